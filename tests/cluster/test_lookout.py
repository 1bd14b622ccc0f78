"""Looking around without waiting."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.cluster.lookout import Lookout
from pipeline.errors import StorageError


def news_of(lookout: Lookout) -> set[str]:
    """What the look under way sees, once it has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        seen = lookout.news()
        if seen:
            return seen
        time.sleep(0.01)
    raise AssertionError("no news")


def test_a_look_that_hangs_holds_nobody_up():
    """A store that is down is asked for 15 minutes; the loop must see a signal meanwhile."""
    answer = threading.Event()

    def look() -> set[str]:
        answer.wait(30)
        return {"a-00000"}

    lookout = Lookout(look)
    begun = time.monotonic()
    assert [lookout.news() for _ in range(3)] == [set(), set(), set()]
    assert time.monotonic() - begun < 5
    answer.set()
    assert news_of(lookout) == {"a-00000"}


def test_a_look_that_fails_is_done_again_later(monkeypatch: pytest.MonkeyPatch):
    """Another driver's progress is a courtesy: not knowing it stops nobody."""
    monkeypatch.setattr("pipeline.cluster.lookout.LOOK_AROUND_S", 0.01)
    answers = [StorageError("the store answered 503"), {"a-00001"}]

    def look() -> set[str]:
        answer = answers.pop(0)
        if isinstance(answer, StorageError):
            raise answer
        return answer

    assert news_of(Lookout(look)) == {"a-00001"}


def test_a_bug_in_a_look_is_not_hidden():
    """Only the store's own errors mean \"later\"."""

    def look() -> set[str]:
        raise ZeroDivisionError

    lookout = Lookout(look)
    with pytest.raises(ZeroDivisionError):
        news_of(lookout)
