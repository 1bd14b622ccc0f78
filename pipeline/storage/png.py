"""PNG beside its pixels: leaves out what pixels and orientation do not need, and reads 16-bit samples whole.

A damaged or huge text, colour profile or timestamp must not cost an image whose pixels are sound. Pillow's limits on
them (PngImagePlugin.MAX_TEXT_CHUNK) are of the whole process, so they stay as they are and the chunks go instead:
critical chunks are kept as they are, and of the others eXIf and the two texts in which an orientation may be.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.records import Status
from pipeline.settings import Depth
from pipeline.storage.depth import Levels, integers_to_8_bits

_SIGNATURE_LENGTH = 8
_ORIENTING_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_MAX_TEXT = 1 << 20
"""Bytes of a text that is kept, as stored and inflated; Pillow's own limit is the same."""
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_GRAY_TYPES = (0, 4)


class _Chunk(NamedTuple):
    name: bytes
    start: int
    stop: int


def without_metadata(data: bytes) -> bytes:
    """The PNG in `data` with the chunks that pixels and orientation need, and its end if only that is missing.

    What is kept besides pixels is moved before them, so that it is known before they are decoded.
    raises  InputError with UNREADABLE if a checksum of the pixels is wrong, which Pillow does not look at
    """
    pixels: list[bytes] = []
    beside: list[bytes] = []
    for chunk in _chunks(data):
        if chunk.name == b"IEND":
            break
        if not chunk.name[0] & 0x20:  # a capital letter: critical
            if chunk.name == b"IDAT" and chunk.stop <= len(data) and not _is_sound(data, chunk):
                raise InputError(Status.UNREADABLE, "a PNG with damaged pixels: the checksum of IDAT is wrong")
            pixels.append(data[chunk.start : chunk.stop])
        elif chunk.stop <= len(data) and _may_orient(data, chunk):
            beside.append(data[chunk.start : chunk.stop])
    return b"".join((data[:_SIGNATURE_LENGTH], *pixels[:1], *beside, *pixels[1:], _END))


def is_deep(data: bytes) -> bool:
    """Whether the header says 16 bits a sample."""
    return data[12:16] == b"IHDR" and data[24:25] == b"\x10"


def decode_deep(data: bytes, depth: Depth) -> Levels:
    """A PNG of 16 bits a sample as 8-bit grey or RGB, (H, W, 1 or 3), by that rule.

    raises  InputError, or any exception if it is damaged
    """
    import imagecodecs  # not needed before the first one

    colours = 1 if data[25] in _GRAY_TYPES else 3
    samples = imagecodecs.png_decode(data)
    samples_HWS = samples.reshape(*samples.shape[:2], -1)[..., :colours]
    return integers_to_8_bits(samples_HWS, bits=16, judged=colours, rule=depth)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The chunks as far as their lengths lead; the last one may end behind the data."""
    start = _SIGNATURE_LENGTH
    while start + 12 <= len(data):
        stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
        yield _Chunk(data[start + 4 : start + 8], start, stop)
        start = stop


def _is_sound(data: bytes, chunk: _Chunk) -> bool:
    checksum = zlib.crc32(memoryview(data)[chunk.start + 4 : chunk.stop - 4])
    return checksum == int.from_bytes(data[chunk.stop - 4 : chunk.stop], "big")


def _may_orient(data: bytes, chunk: _Chunk) -> bool:
    """Whether it may hold the orientation, is whole, and is safe to unpack."""
    body = data[chunk.start + 8 : chunk.stop - 4]
    if chunk.name not in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") or len(body) > _MAX_TEXT:
        return False
    if not _is_sound(data, chunk):
        return False
    if chunk.name == b"eXIf":
        return True
    keyword = next((text for text in _ORIENTING_TEXTS if body.startswith(text)), None)
    return keyword is not None and _is_short(chunk.name, body[len(keyword) :])


def _is_short(name: bytes, body: bytes) -> bool:
    """Whether the text behind the keyword is at most _MAX_TEXT bytes when it is inflated."""
    if name == b"tEXt" or (name == b"iTXt" and body[:1] == b"\0"):
        return True
    # zTXt: method, text. iTXt: flag, method, language, 0, translated keyword, 0, text.
    packed = body[1:] if name == b"zTXt" else body[2:].split(b"\0", 2)[-1]
    inflater = zlib.decompressobj()
    try:
        return len(inflater.decompress(packed, _MAX_TEXT)) < _MAX_TEXT and not inflater.unconsumed_tail
    except zlib.error:
        return False
