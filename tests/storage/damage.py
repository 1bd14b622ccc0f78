"""Seeded damage done to sound files: what disks, networks and cut uploads make of them.

Owns the kinds of damage. What a damaged file becomes is the caller's to say.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1")
"""Lengths and offsets that nothing has: zero, minus one, the largest and one, in both orders of bytes."""


def damaged(files: dict[str, bytes], *, each: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`each` damaged copies of every file: cuts, flipped bits, overwritten, lost, doubled and extreme bytes."""
    dice = random.Random(seed)
    for name, data in files.items():
        for number in range(each):
            how, hurt = _hurt(data, dice)
            yield f"{how} {number} of {name}", hurt


def _hurt(data: bytes, dice: random.Random) -> tuple[str, bytes]:
    # Most of what a decoder believes stands at the beginning.
    at = dice.randrange(len(data) if dice.random() < 0.5 else min(len(data), 200))
    span = dice.choice((1, 2, 4, 16, 64))
    match dice.randrange(8):
        case 0 | 1:
            return "cut", data[:at]
        case 2 | 3:
            return "flip", data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
        case 4:
            return "noise", data[:at] + dice.randbytes(span) + data[at + span :]
        case 5:
            return "lost", data[:at] + data[at + span :]
        case 6:
            return "doubled", data[: at + span] + data[at:]
        case _:
            return "extreme", data[:at] + dice.choice(EXTREMES) + data[at + 4 :]
