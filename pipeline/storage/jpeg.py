"""JPEG beside Pillow: metadata that stops it is left out, a missing end marker is seen for what it is, and files of the
usual kind are decoded in fewer copies.

Knows markers and segments (ITU-T T.81, annex B).
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from pipeline.storage.depth import Levels

UNFINISHED = "the JPEG lacks its end marker; every row is there"
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"
_ADOBE = 0xEE
_SEQUENTIAL = (0xC0, 0xC1)
_COLOURS = 3
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
"""Neither a stuffed zero nor a restart: what ends a scan's bits."""
_COEFFICIENTS = 64
# No 0xFF: these are bits of a scan, and differ from the zeros that a decoder makes up.
_OTHER_ENDS = (random.Random(0).randbytes(512).replace(b"\xff", b"\xb6"), b"\xfe" * 64)


def without_metadata(data: bytes) -> tuple[bytes, bytes]:
    """`data` without the segments that no pixel needs, and its EXIF block (empty if there is none)."""
    kept, exif, rest = [data[:2]], b"", 2
    for marker, start, stop in _segments(data):
        rest = start
        if marker == _START_OF_SCAN:
            break
        rest = stop
        body = data[start + 4 : stop]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = exif or body
        is_metadata = (0xE1 <= marker <= 0xEF and marker != _ADOBE) or marker == 0xFE
        if not is_metadata:
            kept.append(data[start:stop])
    return b"".join((*kept, data[rest:])), exif


def decode_one_scan(data: bytes) -> Levels | None:
    """The pixels of a JPEG with three colours in one scan and its end marker, as Pillow decodes them, in two thirds of
    the time: Pillow has four bytes a pixel, and hands them over in two steps.

    None for any other file, and if anything is wrong; Pillow is to be asked then. Where the last bytes are the end
    marker, a decoder cannot run out of them within a scan, which this one would not say.
    """
    if not data.endswith(_END_OF_IMAGE) or not _has_one_scan(data):
        return None
    try:
        import imagecodecs

        return imagecodecs.jpeg8_decode(data)
    except Exception:  # noqa: BLE001 - or it is not there, or made without JPEG
        return None


def _has_one_scan(data: bytes) -> bool:
    """Whether the first scan is all of a sequential image of three colours. The end marker is no part of its header."""
    frames = 0
    for marker, start, stop in _segments(data):
        body = data[start + 4 : stop]
        if marker in _FRAMES:
            frames += 1
            if marker not in _SEQUENTIAL or body[5:6] != bytes([_COLOURS]):
                return False
        elif marker == _START_OF_SCAN:
            return frames == 1 and body[:1] == bytes([_COLOURS]) and stop <= len(data) - len(_END_OF_IMAGE)
    return False


def finish(data: bytes, decode: Callable[[io.BytesIO], Image.Image]) -> bytes | None:
    """`data` with its end marker, if nothing else is missing; None if pixels are.

    A decoder makes up what it misses and does not say so. Here every coefficient must have been sent by some scan to
    its last bit, as the scans' headers say, and the pixels must be the same whatever bits follow the last one.
    """
    if not _every_coefficient_was_sent(data):
        return None
    bits = data.removesuffix(b"\xff")
    endings = (bits + other + _END_OF_IMAGE for other in (b"", *_OTHER_ENDS))
    try:
        first, *others = (np.asarray(decode(io.BytesIO(ending))) for ending in endings)
    except OSError:
        return None
    return bits + _END_OF_IMAGE if all(np.array_equal(first, other) for other in others) else None


def _every_coefficient_was_sent(data: bytes) -> bool:
    """Whether the scans begun in `data` cover all 64 coefficients of all components to bit 0 (T.81, G.1.1.1)."""
    missing: dict[int, set[int]] = {}
    for marker, start, stop in _segments(data):
        body = data[start + 4 : stop]
        if marker in _FRAMES and not missing:
            missing = {component: set(range(_COEFFICIENTS)) for component in body[6::3]}
        elif marker == _START_OF_SCAN and body:
            components = body[1 : 1 + 2 * body[0] : 2]
            first, last, approximation = body[-3:]
            for component in components if approximation & 0xF == 0 else ():
                missing.get(component, set()).difference_update(range(first, last + 1))
    return bool(missing) and not any(missing.values())


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and stop of each segment that is whole, up to the end marker; scans' bits are passed over."""
    position = 2
    while found := _MARKER.search(data, position):
        marker, start = found[1][0], found.end() - 2
        stop = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == _END_OF_IMAGE[1] or stop > len(data) or stop < start + 4:
            return
        yield marker, start, stop
        position = stop
