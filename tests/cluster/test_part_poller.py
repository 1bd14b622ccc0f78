"""Looking around without waiting."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.cluster.part_poller import PartPoller
from pipeline.errors import StorageError


def news_of(poller: PartPoller) -> set[str]:
    """What the look under way sees, once it has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        seen = poller.news()
        if seen:
            return seen
        time.sleep(0.01)
    raise AssertionError("no news")


def test_a_look_that_hangs_holds_nobody_up():
    """A store that is down is asked for 15 minutes; the loop must see a signal meanwhile."""
    answer, hung = threading.Event(), True

    def look() -> set[str]:
        nonlocal hung
        answer.wait(30)
        hung = False
        return {"a-00000"}

    poller = PartPoller(look)
    assert [poller.news() for _ in range(3)] == [set(), set(), set()]
    assert hung
    answer.set()
    assert news_of(poller) == {"a-00000"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("look_s", "pause_s"), [(0.0, 5.0), (3.0, 30.0)])
def test_a_slow_listing_is_asked_for_rarely(monkeypatch: pytest.MonkeyPatch, look_s: float, pause_s: float):
    """A million parts take a while to list: at most a tenth of the time, and of the bill, goes into it."""
    clock, looked = Clock(), list[float]()
    monkeypatch.setattr("pipeline.cluster.part_poller.time", clock)

    def look() -> set[str]:
        looked.append(clock.now)
        clock.now += look_s
        return {"a-00000"}

    poller = PartPoller(look)
    assert news_of(poller) == {"a-00000"}
    ended = clock.now
    clock.now = ended + pause_s - 0.1
    assert poller.news() == set()
    assert len(looked) == 1
    clock.now = ended + pause_s
    assert news_of(poller) == {"a-00000"}
    assert len(looked) == 2


def test_a_look_that_fails_is_done_again_later(monkeypatch: pytest.MonkeyPatch):
    """Another driver's progress is a courtesy: not knowing it stops nobody."""
    monkeypatch.setattr("pipeline.cluster.part_poller.POLL_S", 0.01)
    answers = [StorageError("the store answered 503"), {"a-00001"}]

    def look() -> set[str]:
        answer = answers.pop(0)
        if isinstance(answer, StorageError):
            raise answer
        return answer

    assert news_of(PartPoller(look)) == {"a-00001"}


def test_a_bug_in_a_look_is_not_hidden():
    """Only the store's own errors mean \"later\"."""

    def look() -> set[str]:
        raise ZeroDivisionError

    poller = PartPoller(look)
    with pytest.raises(ZeroDivisionError):
        news_of(poller)
