"""Bytes to pixels, by one policy for every image file.

Owns the policy. The pixels are right, or the row says why there are none:
- the kind is told by the first bytes, not by the name (signatures.py has the kinds);
- the header is read first, and an image larger than max_pixels, or a TIFF with such a tile, is not decoded;
- pixels are 8-bit RGB: palettes are looked up, CMYK and YCbCr converted without colour profiles, alpha dropped and not
  blended, other depths brought to 8 bits by a rule of depth.py;
- EXIF orientation is applied and recorded; of several frames the first counts;
- metadata never costs an image: texts, profiles and EXIF that are damaged or huge are left out;
- a JPEG without its end marker is an image if every row is there, and `note` says so.
Nothing but InputError leaves this file, whatever the bytes are.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pipeline.errors import InputError
from pipeline.records import Status
from pipeline.settings import Depth
from pipeline.storage import jpeg, png, signatures, tiff
from pipeline.storage.depth import Levels, integers_to_8_bits

# H height, W width after the orientation was applied


def _open_heic(file: io.BytesIO) -> Image.Image:
    # Not needed before the first one: a machine with a GPU that is lent often lacks it.
    from pi_heif import HeifImageFile  # pyright: ignore[reportMissingTypeStubs]

    return HeifImageFile(file)


_OPENERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    signatures.JPEG: JpegImagePlugin.jpeg_factory,
    signatures.PNG: PngImagePlugin.PngImageFile,
    signatures.WEBP: WebPImagePlugin.WebPImageFile,
    signatures.BMP: BmpImagePlugin.BmpImageFile,
    signatures.TIFF: TiffImagePlugin.TiffImageFile,
    signatures.GIF: GifImagePlugin.GifImageFile,
    signatures.AVIF: AvifImagePlugin.AvifImageFile,
    signatures.HEIC: _open_heic,
    signatures.JPEG_2000: Jpeg2KImagePlugin.Jpeg2KImageFile,
}
_END_OF_CODESTREAM = b"\xff\xd9"
_TIFFFILE = logging.getLogger("tifffile")
_STRIP = 1 << 22
"""Pixels that are converted at once, so that beside the decoder's image there is little more than the result."""
_AS_STORED: dict[int, Callable[[Levels], Levels]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}
"""An upright image, seen as a file of this EXIF orientation has it."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Pixels as they are meant to be seen, and the EXIF orientation (1 to 8) that was undone to get there."""

    rgb_HW3: Levels
    exif_orientation: int
    note: str = ""
    """What was odd about the file and cost no pixel; empty for a sound one."""


def decode_image(data: bytes, *, max_pixels: int, depth: Depth = Depth.SCALE) -> DecodedImage:
    """The image in `data`, by this file's policy; C-contiguous and writable.

    depth   the rule for samples of more than 8 bits
    raises  InputError with UNREADABLE (no image, a damaged one, or one of a kind that is named) or TOO_LARGE (by the
            header, nothing decoded)
    """
    if not data:
        raise InputError(Status.UNREADABLE, "the file is empty")
    kind = signatures.kind_of(data)
    try:
        with _decoders_let_be():
            return _DECODERS.get(kind, _decode_plain)(kind, data, max_pixels, depth)
    except InputError:
        raise
    # Decoders meet damaged files with whatever their parsing runs into: OSError, SyntaxError, struct.error,
    # IndexError, OverflowError, MemoryError, zlib.error and more. All of it means one thing.
    except Exception as error:
        raise InputError(
            Status.UNREADABLE, f"a {kind} that cannot be decoded: {type(error).__name__}: {error}"
        ) from error


def _decode_plain(kind: str, data: bytes, max_pixels: int, _depth: Depth) -> DecodedImage:
    with _OPENERS[kind](io.BytesIO(data)) as image:
        _check_size(*image.size, max_pixels)
        # Pillow turns a TIFF itself while loading and forgets the tag; elsewhere the tag may come behind the pixels.
        before = _orientation(image) if kind == signatures.TIFF else 1
        image.load()
        rest = _orientation(image)
        return DecodedImage(_pixels(image, rest), before if rest == 1 else rest)


def _decode_jpeg_2000(kind: str, data: bytes, max_pixels: int, depth: Depth) -> DecodedImage:
    """Pillow gives deep grey in 16 bits, whatever its depth, and of deep colours the high 8 bits: no level is its own.

    Of a file that was cut it makes a blurred image, so the end must be there: its two bytes stand nowhere else in a
    codestream (ISO/IEC 15444-1, annex A).
    """
    if _END_OF_CODESTREAM not in data:
        raise InputError(Status.UNREADABLE, f"a {kind} that is cut: it has no end")
    with _OPENERS[kind](io.BytesIO(data)) as image:
        _check_size(*image.size, max_pixels)
        image.load()
        if not image.mode.startswith("I"):
            return DecodedImage(_pixels(image, 1), 1)
        rule = Depth.STRETCH if depth is Depth.STRETCH else Depth.SCALE
        levels_HW1 = integers_to_8_bits(np.asarray(image)[..., None], bits=16, judged=1, rule=rule)
    return DecodedImage(_turned(levels_HW1, 1), 1)


def _decode_png(kind: str, data: bytes, max_pixels: int, depth: Depth) -> DecodedImage:
    data = png.without_metadata(data)
    if not png.is_deep(data):
        return _decode_plain(kind, data, max_pixels, depth)
    with _OPENERS[kind](io.BytesIO(data)) as image:
        _check_size(*image.size, max_pixels)
        orientation = _orientation(image)
    return DecodedImage(_turned(png.decode_deep(data, depth), orientation), orientation)


def _decode_jpeg(kind: str, data: bytes, max_pixels: int, _depth: Depth) -> DecodedImage:
    try:
        image, orientation = _OPENERS[kind](io.BytesIO(data)), None
    except Exception:  # noqa: BLE001 - damaged EXIF may fail in any way; what else is damaged fails again
        data, exif = jpeg.without_metadata(data)
        image, orientation = _OPENERS[kind](io.BytesIO(data)), _exif_orientation(exif)
    note = ""
    with image:
        _check_size(*image.size, max_pixels)
        orientation = orientation or _orientation(image)
        decoded = jpeg.decode_one_scan(data) if image.mode == "RGB" else None
        if decoded is not None and decoded.shape == (image.height, image.width, 3):
            return DecodedImage(_turned(decoded, orientation), orientation)
        try:
            image.load()
            pixels = _pixels(image, orientation)
        except OSError:
            finished = jpeg.finish(data, _OPENERS[kind])
            if finished is None:
                raise
            pixels, note = _pixels(_OPENERS[kind](io.BytesIO(finished)), orientation), jpeg.UNFINISHED
    return DecodedImage(pixels, orientation, note)


def _decode_tiff(kind: str, data: bytes, max_pixels: int, depth: Depth) -> DecodedImage:
    layout = tiff.read_layout(data)
    _check_size(layout.width, layout.height, max_pixels)
    tiff.check_blocks(layout, max_pixels)
    if layout.is_small:
        try:
            return _decode_plain(kind, data, max_pixels, depth)
        except (SyntaxError, ValueError):
            pass  # Pillow has no mode for it, or none for its planes
        except InputError:
            raise
        except Exception as error:
            raise InputError(Status.UNREADABLE, f"{layout}: {type(error).__name__}: {error}") from error
    orientation = layout.orientation if layout.orientation in _AS_STORED else 1
    return DecodedImage(_turned(tiff.decode_samples(data, layout, depth), orientation), orientation)


_DECODERS = {
    signatures.PNG: _decode_png,
    signatures.JPEG: _decode_jpeg,
    signatures.TIFF: _decode_tiff,
    signatures.JPEG_2000: _decode_jpeg_2000,
}


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise InputError(Status.UNREADABLE, f"the image is {width} x {height} pixels")
    if width * height > max_pixels:
        reason = f"{width} x {height} = {width * height:,} pixels; run.max_pixels is {max_pixels:,}"
        raise InputError(Status.TOO_LARGE, reason, width, height)


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 if there is none, or none that can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF fails in as many ways as damaged pixels, and harms none of them
        return 1
    return int(value) if value in _AS_STORED else 1


def _exif_orientation(block: bytes) -> int:
    bearer = Image.new("L", (1, 1))
    bearer.info["exif"] = block
    return _orientation(bearer)


def _pixels(image: Image.Image, orientation: int) -> Levels:
    """8-bit RGB, turned upright."""
    if image.mode.startswith("I") or image.mode == "F":
        raise InputError(Status.UNREADABLE, f"its samples are deeper than its header said (mode {image.mode})")
    width, height = image.size
    upright_HW3, stored_HW3 = _room((height, width), orientation)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        if strip.mode in ("La", "RGBa"):
            strip = strip.convert(strip.mode.upper())
        stored_HW3[top : top + rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return upright_HW3


def _turned(levels_HWS: Levels, orientation: int) -> Levels:
    """8-bit RGB of grey or RGB levels, turned upright."""
    if orientation == 1 and levels_HWS.shape[2] == 3 and levels_HWS.flags.c_contiguous and levels_HWS.flags.writeable:
        return levels_HWS
    upright_HW3, stored_HW3 = _room((levels_HWS.shape[0], levels_HWS.shape[1]), orientation)
    stored_HW3[:] = levels_HWS
    return upright_HW3


def _room(stored_hw: tuple[int, int], orientation: int) -> tuple[Levels, Levels]:
    """An upright image to be filled, and the same memory in the order of the file."""
    height, width = stored_hw[::-1] if orientation >= 5 else stored_hw
    upright_HW3 = np.empty((height, width, 3), np.uint8)
    return upright_HW3, _AS_STORED.get(orientation, lambda upright: upright)(upright_HW3)


class _Shared:
    """How many threads are decoding, and what to put back after the last of them."""

    lock = threading.Lock()
    decoding = 0
    saved_limit: int | None = None
    saved_warnings: warnings.catch_warnings[None] | None = None
    saved_disabled = False


@contextmanager
def _decoders_let_be() -> Generator[None]:
    """No bomb guard (max_pixels is ours, checked on the header) and no warnings (what matters is an error) meanwhile.

    All are process-wide in Pillow, tifffile and Python, so the first thread in sets them and the last one out restores
    them. Within the pipeline nothing but this room uses Pillow and tifffile.
    """
    with _Shared.lock:
        if _Shared.decoding == 0:
            _Shared.saved_limit = Image.MAX_IMAGE_PIXELS
            _Shared.saved_warnings = warnings.catch_warnings()
            _Shared.saved_warnings.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.|tifffile")
            # Not its level: to set one makes Python forget what it knows of every logger.
            _Shared.saved_disabled, _TIFFFILE.disabled = _TIFFFILE.disabled, True
            Image.MAX_IMAGE_PIXELS = None
        _Shared.decoding += 1
    try:
        yield
    finally:
        with _Shared.lock:
            _Shared.decoding -= 1
            if _Shared.decoding == 0 and _Shared.saved_warnings is not None:
                Image.MAX_IMAGE_PIXELS = _Shared.saved_limit
                _TIFFFILE.disabled = _Shared.saved_disabled
                _Shared.saved_warnings.__exit__(None, None, None)
