"""Bytes to pixels: one policy for every kind of image, and no exception but ours whatever the bytes are."""

from __future__ import annotations

import io
import pickle
import random
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import InputError
from pipeline.records import Status
from pipeline.storage.images import DecodedImage, decode_image
from tests.storage.pictures import PLENTY, decode, encode, noise, outcome, refusal

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000", "HEIC")


LOSSLESS: list[tuple[str, dict[str, Any]]] = [
    *(("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})),
    *(("JPEG2000", {}), ("JPEG2000", {"no_jp2": True})),
]


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_lossless_formats_come_back_pixel_for_pixel(kind: str, options: dict[str, Any]) -> None:
    """What the generator sees is what the file says, in RGB order, in one block of memory that may be written to."""
    image = decode_image(encode(noise(), kind, **options), max_pixels=PLENTY)
    np.testing.assert_array_equal(image.rgb_HW3, noise())
    assert image.rgb_HW3.dtype == np.uint8
    assert image.rgb_HW3.flags.c_contiguous
    assert image.rgb_HW3.flags.writeable
    assert image.exif_orientation == 1


def test_a_jpeg_equals_pillows_own_decoding() -> None:
    """No chroma shortcut, no reduced size."""
    data = encode(noise(64, 48), "JPEG", quality=80)
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


def test_gray_is_repeated_over_three_channels() -> None:
    """Segment Anything has no gray input."""
    gray_HW = noise()[:, :, 0]
    for kind in ("PNG", "JPEG", "TIFF"):
        rgb_HW3 = decode(encode(gray_HW, kind))
        np.testing.assert_array_equal(rgb_HW3[:, :, 0], rgb_HW3[:, :, 2])
    np.testing.assert_array_equal(decode(encode(gray_HW)), np.repeat(gray_HW[:, :, None], 3, axis=2))


def test_black_and_white_becomes_0_and_255() -> None:
    """Scanned pages have one bit per pixel."""
    bits = Image.fromarray(noise()[:, :, 0]).convert("1")
    assert set(np.unique(decode(encode(bits)))) == {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_dropped_and_not_blended(kind: str) -> None:
    """Blending would need a background colour that nobody named; the colours below are in the file."""
    alpha_HW1 = np.arange(63, dtype=np.uint8).reshape(7, 9, 1) * 4
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encode(np.concatenate([noise(), alpha_HW1], axis=2), kind, **options)
    np.testing.assert_array_equal(decode(data), noise())


def test_gray_with_alpha_keeps_its_gray() -> None:
    """The LA mode of PNG."""
    gray_alpha = Image.merge("LA", [Image.fromarray(noise()[:, :, 0]), Image.new("L", (9, 7), 0)])
    np.testing.assert_array_equal(decode(encode(gray_alpha))[:, :, 1], noise()[:, :, 0])


def test_palettes_are_looked_up_and_their_transparency_ignored() -> None:
    """GIF and small PNG files; a transparent entry has a colour like any other."""
    palette = Image.fromarray(noise()).quantize(8)
    wanted = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(encode(palette)), wanted)
    np.testing.assert_array_equal(decode(encode(palette, transparency=3)), wanted)
    np.testing.assert_array_equal(decode(encode(palette, transparency=bytes(range(8)))), wanted)


def test_cmyk_and_ycck_jpegs_are_converted() -> None:
    """Print archives; OpenCV reads some of these inverted."""
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    for kind in ("JPEG", "TIFF"):
        rgb_HW3 = decode(encode(red.convert("CMYK"), kind))
        assert rgb_HW3.shape == (16, 16, 3)
        np.testing.assert_allclose(rgb_HW3[8, 8], (255, 0, 0), atol=3)


def upright(image_HW3: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """EXIF's own table: where row 0 and column 0 of the stored image are, when it is seen upright."""
    undo: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }
    return undo[orientation](image_HW3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied_and_recorded(kind: str, orientation: int) -> None:
    """Masks are drawn on what people see; the recorded number leads back to the stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    flat = encode(noise(16, 8), kind, **({"lossless": True} if kind == "WEBP" else {}))
    data = encode(Image.open(io.BytesIO(flat)), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    image = decode_image(data, max_pixels=PLENTY)
    stored_HW3 = np.asarray(Image.open(io.BytesIO(flat)))
    if kind in ("JPEG", "AVIF"):  # encoded twice; the flat copy must be, too
        stored_HW3 = np.asarray(Image.open(io.BytesIO(encode(Image.open(io.BytesIO(flat)), kind))))
    np.testing.assert_array_equal(image.rgb_HW3, upright(stored_HW3, orientation))
    assert image.rgb_HW3.flags.c_contiguous
    assert image.exif_orientation == orientation


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_is_none(value: int) -> None:
    """Cameras write 0; it must not cost the image."""
    exif = Image.Exif()
    exif[0x0112] = value
    image = decode_image(encode(noise(), "JPEG", exif=exif), max_pixels=PLENTY)
    assert (image.rgb_HW3.shape, image.exif_orientation) == ((7, 9, 3), 1)


def test_damaged_exif_does_not_cost_the_image() -> None:
    """The pixels are whole."""
    data = encode(noise(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xffgarbage")
    assert decode_image(data, max_pixels=PLENTY).exif_orientation == 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    """One row per file; SA-1B has stills only."""
    frames = [Image.new("RGB", (9, 7), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decode(data)[3, 4], (255, 0, 0), atol=3)


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    """A bomb of a few kilobytes that unpacks to gigabytes must cost nothing; here the pixels do not even exist."""
    header = struct.pack(">IIBBBBB", 100_000, 90_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    data += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 10) + b"IDAT"
    error = refusal(data)
    assert error.status is Status.TOO_LARGE
    assert error.reason == "100000 x 90000 = 9,000,000,000 pixels; run.max_pixels is 268,435,456"
    assert (error.width, error.height) == (100_000, 90_000)
    assert pickle.loads(pickle.dumps(error)).__dict__ == error.__dict__


def test_max_pixels_itself_is_allowed() -> None:
    """The setting is the largest image that works."""
    assert decode(encode(noise()), max_pixels=63).shape == (7, 9, 3)
    assert refusal(encode(noise()), max_pixels=62).status is Status.TOO_LARGE


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_pillows_own_size_limit_does_not_interfere_and_is_left_as_it_was(kind: str) -> None:
    """Its limit is below our default, and other code in the process may rely on it."""
    before = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = 10  # stands for a real image of 200 million pixels
        np.testing.assert_array_equal(decode(encode(noise(), kind)), noise())
        assert Image.MAX_IMAGE_PIXELS == 10
    finally:
        Image.MAX_IMAGE_PIXELS = before


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"not an image" * 50,
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"RIFF\0\0\0\0WEBP",
    ],
)
def test_what_is_no_image_is_unreadable_with_a_reason(data: bytes) -> None:
    """Empty files and web pages saved as .jpg are in every large collection."""
    error = refusal(data)
    assert error.status is Status.UNREADABLE
    assert error.reason


def test_a_truncated_jpeg_is_unreadable() -> None:
    """Half an image with a gray lower half would get masks that nobody could tell from real ones."""
    data = encode(noise(200, 200), "JPEG")
    error = refusal(data[: len(data) // 2])
    assert error.status is Status.UNREADABLE
    assert "truncated" in error.reason


def test_formats_beyond_those_are_refused() -> None:
    """Pillow would start Ghostscript for an EPS file."""
    assert refusal(encode(noise(), "PPM")).status is Status.UNREADABLE
    assert refusal(encode(noise(), "EPS")).status is Status.UNREADABLE


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_at_any_length_is_an_image_or_an_input_error(kind: str) -> None:
    """Whatever Pillow's parsers run into, the chunk goes on; a file without its first half is never an image."""
    data = encode(noise(), kind)
    results = [outcome(data[:size]) for size in range(len(data))]
    assert all(isinstance(result, InputError) for result in results[: len(data) // 2])
    assert isinstance(outcome(data), DecodedImage)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_with_flipped_bits_is_an_image_or_an_input_error(kind: str) -> None:
    """Bit rot and hostile files; no warning, no other exception, no state left behind."""
    data, dice = encode(noise(), kind), random.Random(7)
    results: list[DecodedImage | InputError] = []
    for _ in range(400):
        hurt = bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 8))):
            hurt[dice.randrange(min(len(hurt), dice.choice((64, len(hurt)))))] ^= 1 << dice.randrange(8)
        results.append(outcome(bytes(hurt)))
    assert any(isinstance(result, InputError) for result in results)
    assert isinstance(outcome(data), DecodedImage)


@settings(deadline=None)
@given(st.binary(max_size=64), st.sampled_from(FORMATS))
def test_garbage_behind_a_real_beginning_is_an_image_or_an_input_error(garbage: bytes, kind: str) -> None:
    """The parser is past its first check and believes what comes."""
    outcome(encode(noise(), kind)[:24] + garbage)


def test_warnings_of_pillow_stay_inside_from_many_threads_and_filters_are_left_as_they_were() -> None:
    """Filters are process-wide; threads that save and restore them in turns could leave the wrong ones."""
    tags = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff\0\0\0\0"
    data = encode(noise(), "JPEG", exif=b"Exif\0\0" + tags)
    before, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(30):
                decode_image(data, max_pixels=PLENTY)
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inside = list(warnings.filters)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(warnings.filters) == inside
    assert failures == []
    assert list(warnings.filters) == before
    assert limit == Image.MAX_IMAGE_PIXELS


def test_large_images_are_converted_in_strips_that_fit_together() -> None:
    """Beside the decoder's own image there is room for the result alone, turned on its way."""
    index_HW = np.repeat(np.arange(2100, dtype=np.uint16)[:, None] // 9, 2100, axis=1).astype(
        np.uint8
    )  # 4.4 megapixels
    index_HW[:, ::7] ^= 1
    image = Image.fromarray(index_HW)
    image.putpalette(noise(256, 1).tobytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    colours_HW3 = noise(256, 1)[0][index_HW]
    assert np.array_equal(decode(encode(image, exif=exif, compress_level=1)), np.rot90(colours_HW3, -1))
