"""Where the time went: each second in one stage."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.records import Stage
from pipeline.work.stopwatch import Stopwatch


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the module takes for the time."""
    clock = Clock()
    monkeypatch.setattr("pipeline.work.stopwatch.time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def test_time_of_a_stage_within_another_is_not_counted_twice(clock: Clock):
    """Otherwise the CPU's part would look as slow as the device's."""
    watch = Stopwatch()
    for _ in range(2):
        with watch.stage(Stage.RLE):
            clock.now += 1
            with watch.stage(Stage.COMPUTE, within=Stage.RLE):
                clock.now += 10
            clock.now += 2
    assert watch.seconds == {Stage.RLE: 6.0, Stage.COMPUTE: 20.0}


def test_a_stage_that_fails_took_its_time_all_the_same(clock: Clock):
    """A store that answers an error after a minute is a slow store."""
    watch = Stopwatch()

    def read() -> None:
        with watch.stage(Stage.READ):
            clock.now += 60
            raise OSError

    with pytest.raises(OSError, match=r"^$"):
        read()
    assert watch.seconds == {Stage.READ: 60.0}


def test_seconds_that_are_moved_are_never_more_than_there_were() -> None:
    """A device may have worked longer than its host waited; what both did at once is counted once."""
    watch = Stopwatch()
    watch.seconds[Stage.RLE] = 5.0
    for seconds in (2.0, 9.0):
        watch.move(seconds, source=Stage.RLE, target=Stage.COMPUTE)
    assert watch.seconds == {Stage.RLE: 0.0, Stage.COMPUTE: 5.0}
