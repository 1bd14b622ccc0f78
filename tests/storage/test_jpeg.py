"""JPEG files of the usual kind, which Pillow does not decode: their pixels are those that it would give."""

from __future__ import annotations

import io
import random
import sys
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.storage.images import decode_image
from pipeline.storage.jpeg import decode_one_scan
from tests.storage.pictures import PLENTY, decode, encode, noise, outcome

SIZES = [(1, 1), (17, 9), (64, 48), (131, 97)]
ONE_SCAN: list[dict[str, Any]] = [
    {"subsampling": 0},
    {"subsampling": 1},
    {"subsampling": 2, "optimize": True},
    {"restart_marker_rows": 1},
    {"keep_rgb": True},
    {"icc_profile": bytes(500), "comment": b"\xff\xd9 no end"},
]


def picture(width: int, height: int) -> Image.Image:
    """Smooth, with all colours."""
    return Image.fromarray(cv2.resize(noise(), (width, height), interpolation=cv2.INTER_CUBIC))


def pillows(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("options", ONE_SCAN, ids=str)
@pytest.mark.parametrize("quality", [30, 90])
def test_a_jpeg_of_one_scan_has_the_pixels_that_pillow_gives(options: dict[str, Any], quality: int) -> None:
    for size in SIZES:
        data = encode(picture(*size), "JPEG", quality=quality, **options)
        decoded = decode_one_scan(data)
        assert decoded is not None
        np.testing.assert_array_equal(decoded, pillows(data))
        assert decoded.flags.writeable
        assert decoded.flags.c_contiguous


def test_it_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(picture(17, 9), "JPEG", exif=exif)
    image = decode_image(data, max_pixels=PLENTY)
    assert image.exif_orientation == 6
    np.testing.assert_array_equal(image.rgb_HW3, np.rot90(pillows(data), -1))


@pytest.mark.parametrize(
    ("mode", "options"), [("L", {}), ("CMYK", {}), ("RGB", {"progressive": True})], ids=["grey", "CMYK", "progressive"]
)
def test_other_files_are_left_to_pillow(mode: str, options: dict[str, Any]) -> None:
    data = encode(picture(17, 9).convert(mode), "JPEG", **options)
    assert decode_one_scan(data) is None
    np.testing.assert_array_equal(decode(data), pillows(data))


def test_without_the_decoder_pillow_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be made without JPEG, and a machine with a GPU may lack it."""
    data = encode(picture(17, 9), "JPEG")
    usual = decode(data)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert decode_one_scan(data) is None
    np.testing.assert_array_equal(decode(data), usual)


@pytest.mark.parametrize("options", ONE_SCAN, ids=str)
def test_what_is_damaged_has_the_pixels_or_the_refusal_of_pillow(options: dict[str, Any]) -> None:
    """Cut anywhere, with an end marker put behind, or with some bytes changed."""
    data, dice = encode(picture(64, 48), "JPEG", **options), random.Random(0)
    damaged = [data[: dice.randrange(len(data))] for _ in range(40)]
    damaged += [each + b"\xff\xd9" for each in damaged]
    damaged.append(data[: data.index(b"\xff\xda") + 12] + b"\xff\xd9")  # in the middle of the scan's header
    for _ in range(160):
        hurt = bytearray(data)
        for _ in range(dice.choice((1, 2, 8))):
            hurt[dice.randrange(len(hurt))] = dice.choice((0, 0xFF, 0xD9, dice.randrange(256)))
        damaged.append(bytes(hurt))
    ours = [told(each) for each in damaged]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "imagecodecs", None)
        pillows_own = [told(each) for each in damaged]
    assert ours == pillows_own
    assert sum(decode_one_scan(each) is not None for each in damaged) > 80


def told(data: bytes) -> tuple[Any, ...]:
    """All that becomes of a file."""
    found = outcome(data)
    if isinstance(found, InputError):
        return found.status, found.reason
    return found.rgb_HW3.shape, found.rgb_HW3.tobytes(), found.exif_orientation, found.note
