"""The member index of a shard."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import StorageError
from pipeline.records import Member
from pipeline.storage.members import PIECE_ROWS, FoundMember, IndexBuilder, IndexPiece, read_members, without_numbers

FOUND = [
    FoundMember(
        f"sa_{n * 3}.jpg" if n % 2 else f"é\n{n}.jpg", "s3://b/a.tar", n * 10**10, n, "e" * (n % 2), "x" * (n % 3)
    )
    for n in range(9000)
]
MEMBERS = [
    Member(ordinal, ordinal * 3 if ordinal % 2 else 10**6 + ordinal, *found) for ordinal, found in enumerate(FOUND)
]


def built(found: list[FoundMember]) -> tuple[IndexPiece, ...]:
    builder = IndexBuilder()
    for member in found:
        builder.add(member)
    assert len(builder) == len(found)
    return builder.finish()


@pytest.fixture(scope="module")
def data() -> bytes:
    (piece,) = built(FOUND)
    assert piece.rows == 9000
    assert piece.numbers_N.tolist() == [n * 3 for n in range(1, 9000, 2)]
    return piece.data


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (0, 64), (4090, 4100), (4096, 8192), (8999, None), (8990, 99_999), (5, 5), (9000, None), (7, 3)],
)
def test_any_stretch_of_members_is_read_as_a_list_would_give_it(data: bytes, start: int, stop: int | None) -> None:
    """Chunks begin and end anywhere, also across row groups; ids and ordinals follow from the place in the run."""
    assert read_members(data, start=start, stop=stop, id_base=10**6) == MEMBERS[start:stop]


def test_members_beyond_one_piece_begin_another() -> None:
    """A worker reads the pieces of its chunk and not a folder of millions."""
    found = [FoundMember(f"{n}.jpg", "s3://b/a.tar", n, 1, "") for n in range(PIECE_ROWS + 2)]
    first, second = built(found)
    assert (first.rows, second.rows) == (PIECE_ROWS, 2)
    last = read_members(second.data, first_ordinal=PIECE_ROWS, id_base=7)
    assert [(m.key, m.ordinal, m.image_id) for m in last] == [
        (f"{n}.jpg", n, n + 7) for n in (PIECE_ROWS, PIECE_ROWS + 1)
    ]


def test_numbers_that_are_taken_away_leave_everything_else(data: bytes) -> None:
    """A number that two images share is neither's."""
    piece = without_numbers(IndexPiece(data, 9000, np.zeros(0, np.int64)), np.array([3, 26997]))
    again = read_members(piece.data, id_base=10**6)
    assert [member.image_id for member in again if member.image_id != MEMBERS[member.ordinal].image_id] == [
        10**6 + 1,
        10**6 + 8999,
    ]
    assert [(m.key, m.offset, m.broken) for m in again] == [(m.key, m.offset, m.broken) for m in MEMBERS]
    assert piece.numbers_N.tolist() == [n * 3 for n in range(3, 8999, 2)]


def test_the_same_members_give_the_same_bytes(data: bytes) -> None:
    """The plan names the index by its hash."""
    (again,) = built(list(FOUND))
    assert again.data == data
    assert built([]) == ()


@pytest.mark.parametrize("size", [0, 100, 40_000])
def test_a_damaged_index_is_a_storage_error(data: bytes, size: int) -> None:
    """It says what to do, and no library's own exception gets out."""
    with pytest.raises(StorageError, match="damaged"):
        read_members(data[:size])
