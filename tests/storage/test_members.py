"""The member index of a shard."""

from __future__ import annotations

import pytest

from pipeline.errors import StorageError
from pipeline.records import Member
from pipeline.storage.members import read_members, write_members

MEMBERS = [
    Member(n, n * 3, f"é\n{n}.jpg", "s3://b/a.tar", n * 10**10, n, "e" * (n % 2), "cut" * (n % 3)) for n in range(9000)
]


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (0, 64), (4090, 4100), (4096, 8192), (8999, None), (8990, 99_999), (5, 5), (9000, None), (7, 3)],
)
def test_any_stretch_of_members_is_read_as_a_list_would_give_it(start: int, stop: int | None) -> None:
    """Chunks begin and end anywhere, also across row groups."""
    assert read_members(write_members(MEMBERS), start=start, stop=stop) == MEMBERS[start:stop]


def test_the_same_members_give_the_same_bytes() -> None:
    """The plan names the index by its hash."""
    assert write_members(MEMBERS) == write_members(list(MEMBERS))
    assert read_members(write_members([])) == []


@pytest.mark.parametrize("size", [0, 100, 40_000])
def test_a_damaged_index_is_a_storage_error(size: int) -> None:
    """It says what to do, and no library's own exception gets out."""
    with pytest.raises(StorageError, match="damaged"):
        read_members(write_members(MEMBERS)[:size])
