"""What workers are at, as the journal keeps it: the actor's class without its process."""

from __future__ import annotations

import time

from pipeline.cluster.journal import Journal
from pipeline.records import JournalEntry


def known(journal: Journal, key: str) -> tuple[int | None, int]:
    entry = journal.read([key])[key]
    return entry.ordinal, entry.images


def test_an_attempt_is_at_the_image_that_it_marked_last():
    """After a death this is all that is known, and it names the image."""
    journal = Journal()
    for ordinal in (10, 11, 12):
        journal.mark("a#1", ordinal)
    assert known(journal, "a#1") == (12, 3)


def test_what_is_no_images_is_not_counted_and_accuses_none():
    """Reading the index, waiting for a store, writing the part: marks without an image come before and after each."""
    journal = Journal()
    journal.mark("a#1", None)
    assert known(journal, "a#1") == (None, 0)
    for ordinal in (10, None, 11, None):
        journal.mark("a#1", ordinal)
    assert known(journal, "a#1") == (None, 2)


def test_the_first_image_of_all_is_an_image():
    """Its ordinal is 0."""
    journal = Journal()
    journal.mark("a#1", 0)
    assert known(journal, "a#1") == (0, 1)


def test_attempts_are_kept_apart_and_one_that_has_not_begun_is_not_there():
    """Two chunks are in one worker; a second attempt at a chunk begins from nothing."""
    journal = Journal()
    journal.mark("a#1", 3)
    journal.mark("b#1", 7)
    journal.mark("a#2", None)
    assert {key: entry.images for key, entry in journal.read(["a#1", "b#1", "a#2", "c#1"]).items()} == {
        **{"a#1": 1, "b#1": 1},
        **{"a#2": 0},
    }


def test_age_is_the_time_at_the_same_image():
    """The watchdog's measure: every mark begins it anew, and reading does not."""
    journal = Journal()
    journal.mark("a#1", 3)
    begun = time.monotonic()
    while time.monotonic() < begun + 0.05:
        journal.read(["a#1"])
    before = journal.read(["a#1"])["a#1"].age_s
    assert before >= 0.05
    journal.mark("a#1", 4)
    assert journal.read(["a#1"])["a#1"].age_s < before


def test_what_has_ended_is_forgotten_and_what_goes_on_is_not():
    """A run has millions of attempts, and the journal the memory of a few."""
    journal = Journal()
    for key in ("a#1", "b#1", "c#1"):
        journal.mark(key, 1)
    journal.mark("b#1", 2)
    journal.look([], ended=["a#1", "c#1", "never begun"])
    entries = journal.look(["a#1", "b#1", "c#1", "never begun"], ended=[])
    assert entries == {"b#1": JournalEntry(ordinal=2, images=2, age_s=entries["b#1"].age_s)}
