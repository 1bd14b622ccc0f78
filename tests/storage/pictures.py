"""Image files for tests: encoded by libraries, or laid out byte by byte where those would not write such a file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.storage.images import DecodedImage, decode_image

PLENTY = 1 << 28
# Tags of TIFF 6.0 that tests write.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 274, 277
ROWS_PER_STRIP, PLANAR, MAX_VALUE, TILE_WIDTH, TILE_HEIGHT, EXTRA, FORMAT = 278, 284, 281, 322, 323, 338, 339
_STRIPS, _TILES = (273, 279), (324, 325)


Tags = Mapping[int, Sequence[int] | int]


def noise(width: int = 9, height: int = 7) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Image.Image | npt.NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if kind == "HEIC":  # not by Pillow, in which the writer would have to be registered for all
        pillow_heif.from_pillow(picture).save(sink, **{"quality": 90, "chroma": 444} | options)
    else:
        picture.save(sink, kind, **options)
    return sink.getvalue()


def decode(data: bytes, max_pixels: int = PLENTY) -> npt.NDArray[np.uint8]:
    return decode_image(data, max_pixels=max_pixels).rgb_HW3


def opencv(data: bytes) -> npt.NDArray[Any]:
    """What OpenCV reads, of the depth that is in the file, in RGB order: the second decoder."""
    image: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image[..., 2::-1] if image.ndim == 3 else image


def refusal(data: bytes, max_pixels: int = PLENTY) -> InputError:
    with pytest.raises(InputError) as caught:
        decode_image(data, max_pixels=max_pixels)
    return caught.value


def outcome(data: bytes) -> DecodedImage | InputError:
    try:
        return decode_image(data, max_pixels=1 << 16)
    except InputError as error:
        return error


def tiff(
    samples: npt.NDArray[Any], *, order: Literal["<", ">"] = "<", tags: Mapping[int, Sequence[int] | int] | None = None
) -> bytes:
    """A TIFF of `samples`, (H, W) or (H, W, S), with its layout tags; `tags` adds to them or replaces them.

    One strip, or one for each plane if PLANAR is 2; one tile if TILE_WIDTH is given. COMPRESSION 8 is Deflate.
    """
    height, width = samples.shape[:2]
    bands = 1 if samples.ndim == 2 else samples.shape[2]
    known: Tags = {
        WIDTH: width,
        HEIGHT: height,
        BITS: [samples.dtype.itemsize * 8] * bands,
        COMPRESSION: 1,
        PHOTOMETRIC: 2 if bands == 3 else 1,
        SAMPLES: bands,
        PLANAR: 1,
        FORMAT: [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * bands,
        **(tags or {}),
    }
    stored = samples.astype(samples.dtype.newbyteorder(order))
    planes = [stored[..., band] for band in range(bands)] if known[PLANAR] == 2 and bands > 1 else [stored]
    blocks = [plane.tobytes() for plane in planes]
    if known[COMPRESSION] == 8:
        blocks = [zlib.compress(block) for block in blocks]
    return tiff_of(known, blocks, order=order)


def tiff_of(tags: Tags, blocks: Sequence[bytes], *, order: str = "<") -> bytes:
    """A TIFF with these tags, whose strips or tiles are `blocks`: header, directory, values, blocks."""
    place_tag, count_tag = _TILES if TILE_WIDTH in tags else _STRIPS
    entries: dict[int, list[int]] = {
        tag: [value] if isinstance(value, int) else [*value] for tag, value in tags.items()
    }
    entries |= {place_tag: [0] * len(blocks), count_tag: [len(block) for block in blocks]}
    directory_size = 2 + 12 * len(entries) + 4
    values_size = sum(4 * len(values) for values in entries.values() if len(values) > 1)
    first = 8 + directory_size + values_size
    entries[place_tag] = [first + sum(map(len, blocks[:index])) for index in range(len(blocks))]
    directory, values_part = struct.pack(order + "H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            place = 8 + directory_size + len(values_part)
            values_part += packed
            packed = struct.pack(order + "I", place)
        directory += struct.pack(order + "HHI", tag, 4, len(values)) + packed
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return header + directory + bytes(4) + values_part + b"".join(blocks)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(samples: npt.NDArray[Any], *before: bytes) -> bytes:
    """A PNG of 16-bit samples, (H, W, 1 to 4), which Pillow does not write; the chunks `before` precede the pixels."""
    height, width, bands = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunks = (png_chunk(b"IHDR", header), *before, png_chunk(b"IDAT", zlib.compress(lines)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """The PNG with these chunks behind its header."""
    return data[:33] + b"".join(chunks) + data[33:]
