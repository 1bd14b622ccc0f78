"""TIFF by its tags: what a file holds, whether it is within bounds, and its pixels where Pillow has no mode for them.

Pillow knows a TIFF by mode, and loses what a mode cannot say: it reads planes of 16 bits as bytes, ignores WhiteIsZero
above 8 bits, and refuses three bands that are not called RGB. So the tags are judged first. Up to 8 bits the file is
Pillow's, if it knows the layout; everything else is read by tifffile (OpenCV reads planar 16-bit RGB and three bands
under BlackIsZero wrong) and brought to 8 bits by a rule of depth.py.

Bands: of an RGB image the first three count; three bands under BlackIsZero are RGB, as GDAL writes them. Alpha is
dropped, and divided out first if the colours were multiplied by it. An integer's depth is BitsPerSample, or that of
MaxSampleValue if this is 2^n - 1 and true (12-bit values in 16 bits).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import ceil
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from pipeline.errors import InputError
from pipeline.records import Status
from pipeline.settings import Depth
from pipeline.storage.depth import Levels, floats_to_8_bits, integers_to_8_bits

# H height, W width, S samples of a pixel

_FORMATS = {1: "uint", 2: "int", 3: "float", 4: "untyped", 5: "complex int", 6: "complex"}
_PHOTOMETRICS = {0: "WhiteIsZero", 1: "BlackIsZero", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_COMPRESSIONS = {
    1: "uncompressed",
    5: "LZW",
    8: "Deflate",
    32773: "PackBits",
    32946: "Deflate",
    34925: "LZMA",
    50000: "Zstandard",
}
"""Those whose output is bounded by the size that the tags promise. An image file inside a TIFF could hold a bomb."""
_PREMULTIPLIED, _ALPHA = 1, 2
_MAX_SAMPLE_BYTES = 32
"""A pixel of four float64; with more, an image of `max_pixels` would not fit where others do."""
_LAYOUT_TAGS = (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339)
_CURE = (
    "set image.depth=stretch, or say in the tag MaxSampleValue how deep they are (`tiffset -s 281 4095 FILE`), "
    "or scale them to the whole range"
)
# tifffile reads some makers' files in their own ways, as many frames or with other headers; one plain way is enough.
_NO_MAKERS: dict[str, Any] = dict.fromkeys(("is_lsm", "is_scanimage", "is_ndpi", "is_stk"), False)


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """The first image of a TIFF as its tags describe it; nothing is decoded yet."""

    width: int
    height: int
    bits: int
    """BitsPerSample; 0 if the samples differ."""
    sample_format: int
    samples: int
    photometric: int
    planar: bool
    compression: int
    extra_samples: tuple[int, ...]
    block_width: int
    block_height: int
    """Of a tile or strip. Decoders make room for a whole one, even if it is larger than the image."""
    max_value: int
    """MaxSampleValue if all samples have the same one, else 0."""
    orientation: int

    @property
    def is_small(self) -> bool:
        """Whether its samples fit the 8 bits of Pillow's modes."""
        return 0 < self.bits <= 8 and self.sample_format == 1

    @property
    def sample_bytes(self) -> int:
        """Of one pixel in memory."""
        return self.samples * max(1, 2 ** ceil(np.log2(max(self.bits, 8) / 8)))

    def __str__(self) -> str:
        """`a TIFF of 3 x float32 (RGB, planar, LZW)`"""
        kind = f"{_FORMATS.get(self.sample_format, 'unknown ')}{self.bits}" if self.bits else "samples of unequal depth"
        photometric = _PHOTOMETRICS.get(self.photometric, f"photometric {self.photometric}")
        planar = ", planar" if self.planar else ""
        compression = _COMPRESSIONS.get(self.compression, f"compression {self.compression}")
        return f"a TIFF of {self.samples} x {kind} ({photometric}{planar}, {compression})"


def read_layout(data: bytes) -> TiffLayout:
    """What the tags of the first image say.

    raises  InputError with UNREADABLE if a tag of the layout is there twice: two decoders could disagree
    """
    with tifffile.TiffFile(io.BytesIO(data), **_NO_MAKERS) as file:
        return _layout(file.pages.first)


def check_blocks(layout: TiffLayout, max_pixels: int) -> None:
    """raises InputError with TOO_LARGE if decoding would take more memory than an ordinary image of `max_pixels`."""
    block = layout.block_width * layout.block_height
    size = layout.width, layout.height
    if block > max_pixels:
        tile = f"tiles of {layout.block_width} x {layout.block_height} = {block:,} pixels"
        raise InputError(Status.TOO_LARGE, f"{layout}: {tile}; run.max_pixels is {max_pixels:,}", *size)
    pixels = max(block, layout.width * layout.height)
    if not layout.is_small and pixels * layout.sample_bytes > max_pixels * _MAX_SAMPLE_BYTES:
        needed = f"{pixels * layout.sample_bytes:,} bytes; {max_pixels * _MAX_SAMPLE_BYTES:,} are allowed"
        raise InputError(Status.TOO_LARGE, f"{layout}: {needed} (run.max_pixels x {_MAX_SAMPLE_BYTES})", *size)


def decode_samples(data: bytes, layout: TiffLayout, depth: Depth) -> Levels:
    """The image in 8-bit grey or RGB, (H, W, 1 or 3), not yet turned, read by tifffile.

    data    within the bounds of `check_blocks`
    raises  InputError with UNREADABLE and what the file holds, if that has no colours here; others if it is damaged
    """
    colours = _colour_count(layout)
    samples_HWS = _samples(data, layout)
    premultiplied = layout.samples > colours and layout.extra_samples[:1] == (_PREMULTIPLIED,)
    used_HWS = samples_HWS[..., : colours + premultiplied]
    inverted = layout.photometric == _WHITE_IS_ZERO
    try:
        if layout.sample_format == 3:
            levels_HWS = floats_to_8_bits(used_HWS, judged=colours, inverted=inverted, rule=depth)
        else:
            bits = _value_bits(layout, used_HWS[..., :colours])
            levels_HWS = integers_to_8_bits(
                used_HWS, bits=bits, judged=colours, inverted=inverted, cure=_CURE, rule=depth
            )
    except InputError as error:
        raise InputError(error.status, f"{layout}: {error.reason}") from error
    return _to_rgb(levels_HWS, layout, premultiplied=premultiplied)


def _layout(page: tifffile.TiffPage) -> TiffLayout:
    doubled = [code for code in _LAYOUT_TAGS if len(page.tags.getall(code) or ()) > 1]
    if doubled:
        raise InputError(Status.UNREADABLE, f"a TIFF with tag {doubled[0]} twice")
    bits: Any = page.bitspersample  # a tuple if they differ
    width, height = page.imagewidth, page.imagelength
    return TiffLayout(
        width=width,
        height=height,
        bits=bits if isinstance(bits, int) else 0,
        sample_format=int(page.sampleformat),
        samples=page.samplesperpixel,
        photometric=int(page.photometric),
        planar=page.planarconfig == 2 and page.samplesperpixel > 1,
        compression=int(page.compression),
        extra_samples=tuple(int(value) for value in page.extrasamples),
        block_width=page.tilewidth if page.is_tiled else width,
        block_height=page.tilelength if page.is_tiled else min(page.rowsperstrip, height),
        max_value=_one_number(page, 281),
        orientation=_one_number(page, 274),
    )


def _one_number(page: tifffile.TiffPage, code: int) -> int:
    """A tag's value, the same for all samples; 0 if there is none, or none that makes sense."""
    value: Any = page.tags.valueof(code, 0)
    values: list[Any] = list(cast(tuple[Any, ...], value)) if isinstance(value, tuple) else [value]
    first = values[0] if values and all(other == values[0] for other in values) else 0
    return first if isinstance(first, int) and first > 0 else 0


def _colour_count(layout: TiffLayout) -> int:
    """How many of the first samples are colours; InputError if none are known."""
    alpha = bool(layout.extra_samples) and layout.extra_samples[-1] in (_PREMULTIPLIED, _ALPHA)
    bands = layout.samples - alpha
    counts = {
        _WHITE_IS_ZERO: 1 if bands == 1 else 0,
        _BLACK_IS_ZERO: {1: 1, 2: 1, 3: 3}.get(bands, 0),
        _RGB: 3 if layout.samples >= 3 else 0,
        _CMYK: 4 if layout.samples >= 4 else 0,
    }
    count = counts.get(layout.photometric, 0)
    if layout.bits == 0 or layout.sample_format not in (1, 2, 3):
        raise _unread(layout, "samples of this kind have no grey")
    if count == 0:
        raise _unread(layout, "it is not said which bands are the colours; write one band or three as RGB")
    if layout.compression not in _COMPRESSIONS:
        raise _unread(layout, "this compression is not read at this depth; write it anew with LZW or Deflate")
    return count


def _samples(data: bytes, layout: TiffLayout) -> npt.NDArray[Any]:
    with tifffile.TiffFile(io.BytesIO(data), **_NO_MAKERS) as file:
        page = file.pages.first
        if page.dtype is None or page.imagedepth != 1 or (page.is_tiled and page.tiledepth != 1):
            raise _unread(layout, "its samples are of a kind that is not read")
        _check_complete(page, layout, len(data))
        samples = page.asarray(squeeze=False, maxworkers=1)
    separate, _, height, width, contiguous = samples.shape
    if layout.planar:
        return np.moveaxis(samples.reshape(separate, height, width), 0, -1)
    return samples.reshape(height, width, contiguous)


def _check_complete(page: tifffile.TiffPage, layout: TiffLayout, size: int) -> None:
    """Every strip or tile is in the file. tifffile fills up what is missing with nothing or with whatever was there."""
    planes = layout.samples if layout.planar else 1
    blocks = ceil(layout.width / layout.block_width) * ceil(layout.height / layout.block_height) * planes
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:blocks]
    there = sum(offset > 0 and count > 0 and offset + count <= size for offset, count in places)
    if there < blocks:
        name = "tiles" if page.is_tiled else "strips"
        raise InputError(Status.UNREADABLE, f"{layout}: truncated, {there} of its {blocks} {name} are in the file")
    row = ceil(layout.block_width * (1 if layout.planar else layout.samples) * layout.bits / 8)
    rows = layout.height * planes if not page.is_tiled else layout.block_height * blocks
    if layout.compression == 1 and sum(count for _, count in places) < row * rows:
        raise InputError(Status.UNREADABLE, f"{layout}: its {blocks} parts have fewer bytes than its pixels need")


def _value_bits(layout: TiffLayout, colours_HWS: npt.NDArray[Any]) -> int:
    bits = layout.bits - 1 if layout.sample_format == 2 else layout.bits
    stated = layout.max_value
    power_of_two = (stated & (stated + 1)) == 0
    if power_of_two and 8 <= stated.bit_length() < bits and int(colours_HWS.max()) <= stated:
        return stated.bit_length()
    return bits


def _to_rgb(levels_HWS: Levels, layout: TiffLayout, *, premultiplied: bool) -> Levels:
    mode = "CMYK" if layout.photometric == _CMYK else {1: "L", 3: "RGB"}[levels_HWS.shape[2] - premultiplied]
    divided = premultiplied and mode != "CMYK"
    if mode != "CMYK" and not divided:
        return levels_HWS[..., : len(mode)]
    height, width = levels_HWS.shape[:2]
    rgb_HW3 = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        line = levels_HWS[row].tobytes() if divided else levels_HWS[row, :, :4].tobytes()
        image = Image.frombytes(f"{mode}a" if divided else mode, (width, 1), line)
        rgb_HW3[row] = np.asarray((image.convert(f"{mode}A") if divided else image).convert("RGB"))[0]
    return rgb_HW3


def _unread(layout: TiffLayout, reason: str) -> InputError:
    return InputError(Status.UNREADABLE, f"{layout}: {reason}")
