"""Bytes to pixels, by one policy for every image file.

Owns the policy: 8-bit RGB; the header is read first; EXIF orientation is applied and recorded; alpha is dropped, not
blended; palettes are looked up; 16-bit samples keep their high byte; CMYK and YCbCr are converted without colour
profiles; of several frames the first counts. Nothing but InputError leaves this file, whatever the bytes are.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from pipeline.errors import InputError
from pipeline.records import Status

# H height, W width after the orientation was applied

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
# Pillow registers a format when its plugin is imported.
_PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin, BmpImagePlugin, TiffImagePlugin, GifImagePlugin)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Pixels as they are meant to be seen, and the EXIF orientation (1 to 8) that was undone to get there."""

    rgb_HW3: npt.NDArray[np.uint8]
    exif_orientation: int


def decode_image(data: bytes, *, max_pixels: int) -> DecodedImage:
    """The image in `data`, by this file's policy; C-contiguous and writable.

    raises  InputError with UNREADABLE (no image, or a damaged one) or TOO_LARGE (by the header, nothing decoded)
    """
    if not data:
        raise InputError(Status.UNREADABLE, "the file is empty")
    try:
        with _pillow_let_be(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, max_pixels)
            return _upright(image)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(Status.UNREADABLE, "no JPEG, PNG, WebP, BMP, TIFF or GIF that could be read") from error
    # Pillow's plugins meet damaged files with whatever their parsing runs into: OSError, SyntaxError, struct.error,
    # IndexError, OverflowError, MemoryError, zlib.error and more. All of it means one thing.
    except Exception as error:
        raise InputError(Status.UNREADABLE, f"{type(error).__name__}: {error}") from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(Status.UNREADABLE, f"the image is {width} x {height} pixels")
    if width * height > max_pixels:
        reason = f"{width} x {height} = {width * height:,} pixels; run.max_pixels is {max_pixels:,}"
        raise InputError(Status.TOO_LARGE, reason, width, height)


def _upright(image: Image.Image) -> DecodedImage:
    # Pillow turns a TIFF itself while loading and forgets the tag; a PNG may carry its tag behind the pixels.
    before = _orientation(image) if image.format == "TIFF" else 1
    image.load()
    rest = _orientation(image)
    rgb = _to_rgb(image)
    if rest in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[rest])
    return DecodedImage(np.array(rgb, dtype=np.uint8, order="C"), before if rest == 1 else rest)


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 if there is none, or none that can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF fails in as many ways as damaged pixels, and harms none of them
        return 1
    return int(value) if value in _UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _gray(np.asarray(image).astype(np.uint16) >> 8)
    if image.mode == "I":
        # 32-bit integers have no agreed range; they are taken for 16-bit ones, which is what files use them for.
        return _gray(np.asarray(image).clip(0, 65535) >> 8)
    if image.mode == "F":
        return _gray(_float_to_8_bit(np.asarray(image)))
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    return image.convert("RGB")


def _float_to_8_bit(values_HW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Shares of white in [0, 1] if no value is above 1, else 8-bit levels. Clipped; what is not finite is 0."""
    finite_HW = np.nan_to_num(values_HW, nan=0.0, posinf=0.0, neginf=0.0)
    scale = 255.0 if finite_HW.max(initial=0.0) <= 1.0 else 1.0
    return np.rint(finite_HW * scale).clip(0, 255)


def _gray(levels_HW: npt.NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(levels_HW.astype(np.uint8)).convert("RGB")


class _Shared:
    """How many threads are decoding, and what to put back after the last of them."""

    lock = threading.Lock()
    decoding = 0
    saved_limit: int | None = None
    saved_warnings: warnings.catch_warnings[None] | None = None


@contextmanager
def _pillow_let_be() -> Generator[None]:
    """No bomb guard (max_pixels is ours, checked on the header) and no warnings (what matters is an error) meanwhile.

    Both are process-wide in Pillow and Python, so the first thread in sets them and the last one out restores them.
    """
    with _Shared.lock:
        if _Shared.decoding == 0:
            _Shared.saved_limit = Image.MAX_IMAGE_PIXELS
            _Shared.saved_warnings = warnings.catch_warnings()
            _Shared.saved_warnings.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            Image.MAX_IMAGE_PIXELS = None
        _Shared.decoding += 1
    try:
        yield
    finally:
        with _Shared.lock:
            _Shared.decoding -= 1
            if _Shared.decoding == 0 and _Shared.saved_warnings is not None:
                Image.MAX_IMAGE_PIXELS = _Shared.saved_limit
                _Shared.saved_warnings.__exit__(None, None, None)
