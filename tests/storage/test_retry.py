"""Trying again: for how long, how often, and what is never tried again."""

from __future__ import annotations

import pytest

from pipeline.errors import StorageError
from pipeline.storage.retry import FIRST_CONTACT_S, LONGEST_PAUSE_S, Patience, Transient


class Clock:
    """Time that passes in pauses alone."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the module takes for the time; pauses are as long as they may be."""
    clock = Clock()
    monkeypatch.setattr("pipeline.storage.retry.time", clock)
    monkeypatch.setattr("random.uniform", lambda _low, high: high)
    return clock


class Store:
    """Raises these, one after the other, and the last one again and again; answers where there is None."""

    def __init__(self, *failures: Exception | None) -> None:
        self._failures = list(failures)
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        failure = self._failures.pop(0) if len(self._failures) > 1 else self._failures[0]
        if failure is not None:
            raise failure
        return "answer"


BUSY = Transient("503 SlowDown")
SILENT = Transient("nobody listens", unreachable=True)


def test_pauses_double_up_to_the_longest(clock: Clock):
    """A store that is overloaded is not helped by being asked more."""
    assert Patience(900.0).insist("s3://b/k", Store(*[BUSY] * 10, None)) == "answer"
    assert clock.pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert clock.pauses[-2:] == [LONGEST_PAUSE_S] * 2


def test_patience_ends_at_the_deadline_and_the_last_failure_is_told(clock: Clock):
    """A chunk is given back rather than held for ever; no pause is begun that would end too late."""
    store = Store(BUSY)
    with pytest.raises(StorageError, match=r"^s3://b/k: 503 SlowDown \(\d+ tries in \d+ s\)$"):
        Patience(100.0).insist("s3://b/k", store)
    assert 100 - LONGEST_PAUSE_S <= clock.now <= 100
    assert store.asked == len(clock.pauses) + 1


def test_an_address_at_which_nobody_ever_answered_is_given_up_soon(clock: Clock):
    """A wrong store.endpoint_url should not cost a quarter of an hour."""
    with pytest.raises(StorageError, match="nobody listens"):
        Patience(900.0).insist("s3://b/k", Store(SILENT))
    assert clock.now <= FIRST_CONTACT_S


@pytest.mark.parametrize("before", [None, BUSY], ids=["it worked", "it answered"])
def test_a_store_that_answered_before_is_waited_for_as_long_as_any(clock: Clock, before: Transient | None):
    """A network that is away for ten minutes is not a wrong address."""
    patience = Patience(900.0)
    if before is None:
        patience.insist("s3://b/k", Store(None))
    with pytest.raises(StorageError, match="nobody listens"):
        patience.insist("s3://b/k", Store(*([before] if before else []), SILENT))
    assert clock.now > 900 - LONGEST_PAUSE_S - 1


def test_what_no_second_try_cures_is_raised_at_once(clock: Clock):
    """Only what the caller calls transient is tried again."""
    store = Store(KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        Patience(900.0).insist("s3://b/k", store)
    assert (store.asked, clock.pauses) == (1, [])
