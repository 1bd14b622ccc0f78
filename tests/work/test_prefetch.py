"""Running ahead in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.work.prefetch import prefetch


def test_items_come_in_order():
    """The wrapped loop must not notice."""
    assert list(prefetch(range(50), depth=3)) == list(range(50))


def test_never_more_than_depth_items_are_ahead():
    """Decoded images are large: the depth is a bound on memory."""
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    for taken, _ in enumerate(prefetch(source(), depth=2), start=1):
        time.sleep(0.002)
        # depth ready, one being handed over
        assert len(made) <= taken + 2 + 1


def test_an_error_arrives_after_the_items_before_it():
    """A chunk fails with the error of its reader, whole."""

    def source() -> Iterator[int]:
        yield 1
        raise OSError("disk gone")

    items = prefetch(source(), depth=4)
    assert next(items) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(items)


def test_leaving_early_ends_the_thread():
    """A failed chunk must not leave a reader behind that fights the next one."""
    items = prefetch(iter(range(10**9)), depth=1)
    next(items)
    items.close()
    deadline = time.monotonic() + 5
    while any(thread.name == "prefetch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the thread still runs"
        time.sleep(0.01)
