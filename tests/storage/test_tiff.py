"""TIFFs of every layout: the planted pixels, a reason that names the kind, or `too_large`; a second decoder agrees."""

from __future__ import annotations

import io
import random
import struct
import time
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from pipeline.errors import InputError
from pipeline.records import Status
from pipeline.storage.images import DecodedImage, decode_image
from tests.storage import pictures
from tests.storage.pictures import PLENTY, decode, noise, opencv, outcome, refusal
from tests.storage.pictures import tiff as tiff_file

RGB_HW3 = noise(50, 40)
GRAY_HW = RGB_HW3[..., 0]
TYPES = ("u1", "u2", "u4", "f4", "f8")
WHITE = {"u1": 255, "u2": 65535, "u4": 2**32 - 1, "f4": 1, "f8": 1}


def widened(levels: npt.NDArray[np.uint8], kind: str) -> npt.NDArray[Any]:
    """The same picture in another type, as any program would write it."""
    return (levels * np.float64(WHITE[kind] / 255)).round(0 if kind[0] == "u" else 9).astype(kind)


def written(samples: npt.NDArray[Any], **options: Any) -> bytes:
    """As tifffile writes it: compressed, predicted, tiled, in strips, as BigTIFF."""
    sink = io.BytesIO()
    tifffile.imwrite(sink, samples, metadata=None, **options)
    return sink.getvalue()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_layout_gives_the_planted_pixels(kind: str, order: Literal["<", ">"]) -> None:
    """Colours in one strip or in planes, either end of grey as zero, and GDAL's three bands that are not called RGB."""
    rgb, gray = widened(RGB_HW3, kind), widened(GRAY_HW, kind)
    inverted = widened(255 - GRAY_HW, kind)
    for compression in (1, 8):
        tags = {pictures.COMPRESSION: compression}
        for wanted, data in (
            (RGB_HW3, tiff_file(rgb, order=order, tags=tags)),
            (RGB_HW3, tiff_file(rgb, order=order, tags=tags | {pictures.PLANAR: 2})),
            (RGB_HW3, tiff_file(rgb, order=order, tags=tags | {pictures.PHOTOMETRIC: 1, pictures.EXTRA: [0, 0]})),
            (GRAY_HW, tiff_file(gray, order=order, tags=tags)),
            (GRAY_HW, tiff_file(inverted, order=order, tags=tags | {pictures.PHOTOMETRIC: 0})),
        ):
            np.testing.assert_array_equal(decode(data), np.broadcast_to(np.atleast_3d(wanted), RGB_HW3.shape))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("compression", ["none", "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("shape", [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}, {"bigtiff": True, "byteorder": ">"}])
def test_a_second_decoder_sees_what_was_scaled(kind: str, compression: str, shape: dict[str, Any]) -> None:
    """OpenCV reads these with libtiff; what it reads is the planted picture, and so are our pixels."""
    samples = widened(RGB_HW3, kind)
    predictor = compression in ("lzw", "zlib")
    data = written(samples, photometric="rgb", compression=compression, predictor=predictor, **shape)
    np.testing.assert_array_equal(decode(data), RGB_HW3)
    if (kind, compression, "tile" in shape) != ("u1", "none", True):  # OpenCV 5.0 refuses this one
        np.testing.assert_array_equal(opencv(data), samples)


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
def test_compressions_that_opencv_lacks_give_the_planted_pixels(compression: str) -> None:
    """GDAL writes Zstandard."""
    for kind in ("u2", "f4"):
        data = written(widened(RGB_HW3, kind), photometric="rgb", compression=compression, predictor=True)
        np.testing.assert_array_equal(decode(data), RGB_HW3)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 9, 10, 12, 14])
def test_packed_samples_are_scaled_by_their_bits(bits: int) -> None:
    """12-bit scanners and cameras store 1.5 bytes a sample. Below 9 bits, and at 12, Pillow has modes for some."""
    samples = (np.arange(48) * (2**bits - 1) // 47).astype(np.uint8 if bits <= 8 else np.uint16).reshape(6, 8)
    wanted = samples >> (bits - 8) if bits > 8 else np.rint(samples * (255 / (2**bits - 1)))
    data = written(samples, photometric="minisblack", bitspersample=bits)
    np.testing.assert_array_equal(decode(data)[..., 0], wanted)
    inverted = written(samples, photometric="miniswhite", bitspersample=bits)
    np.testing.assert_array_equal(decode(inverted)[..., 0], 255 - wanted)


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("extra", [[0], [1], [2], [0, 0], [2, 0], [1, 0], [0, 0, 0, 0, 0]])
def test_bands_beyond_the_colours_are_dropped_and_multiplied_colours_divided(kind: str, extra: list[int]) -> None:
    """Alpha or near infrared: an RGB image has three colours. 1 is alpha by which they were multiplied."""
    alpha = np.full((40, 50, len(extra)), 128, np.uint8)
    stored = RGB_HW3 // 2 if extra[0] == 1 else RGB_HW3
    samples = widened(np.concatenate([stored, alpha], axis=2), kind)
    tags = {pictures.PHOTOMETRIC: 2, pictures.EXTRA: extra}
    for data in (tiff_file(samples, tags=tags), tiff_file(samples, tags=tags | {pictures.PLANAR: 2})):
        wanted = stored.astype(int) * 255 // 128 if extra[0] == 1 else RGB_HW3
        np.testing.assert_array_equal(decode(data), wanted)


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("extra", [[0], [2], [1]])
def test_gray_with_alpha_is_gray(kind: str, extra: list[int]) -> None:
    """By the specification the second band is no colour, whatever it is."""
    data = tiff_file(widened(np.stack([GRAY_HW // 2, np.full_like(GRAY_HW, 128)], axis=2), kind), tags={338: extra})
    wanted = (GRAY_HW // 2).astype(int) * 255 // 128 if extra == [1] else GRAY_HW // 2
    np.testing.assert_array_equal(decode(data)[..., 0], wanted)


def test_16_bit_cmyk_is_the_8_bit_one() -> None:
    """Print archives."""
    cmyk = np.asarray(Image.fromarray(RGB_HW3).convert("CMYK"))
    eight, sixteen = (tiff_file(widened(cmyk, kind), tags={pictures.PHOTOMETRIC: 5}) for kind in ("u1", "u2"))
    np.testing.assert_array_equal(decode(sixteen), decode(eight))
    np.testing.assert_array_equal(decode(eight), RGB_HW3)


@pytest.mark.parametrize("orientation", [1, 3, 6, 9])
def test_orientation_counts_at_every_depth(orientation: int) -> None:
    """The same tag beside deeper samples; 9 is none."""
    images = [
        decode_image(tiff_file(widened(RGB_HW3, kind), tags={pictures.ORIENTATION: orientation}), max_pixels=PLENTY)
        for kind in TYPES
    ]
    for image in images:
        np.testing.assert_array_equal(image.rgb_HW3, images[0].rgb_HW3)
        assert image.exif_orientation == (1 if orientation == 9 else orientation)


@pytest.mark.parametrize(
    ("samples", "tags", "name"),
    [
        (
            np.ones((4, 4, 5), np.uint16),
            {},
            "a TIFF of 5 x uint16 (BlackIsZero, uncompressed): it is not said which bands",
        ),
        (np.ones((4, 4, 4), np.float32), {}, "a TIFF of 4 x float32 (BlackIsZero, uncompressed): it is not said"),
        (np.ones((4, 4, 3), np.uint16), {pictures.PHOTOMETRIC: 6}, "a TIFF of 3 x uint16 (YCbCr, uncompressed)"),
        (np.ones((4, 4, 3), np.uint16), {pictures.PHOTOMETRIC: 8}, "a TIFF of 3 x uint16 (CIELab, uncompressed)"),
        (np.ones((4, 4), np.uint16), {pictures.PHOTOMETRIC: 32803}, "a TIFF of 1 x uint16 (photometric 32803"),
        (np.ones((4, 4), np.uint16), {pictures.COMPRESSION: 34712}, "compression 34712): this compression is not read"),
        (np.ones((4, 4, 3), np.uint8), {pictures.BITS: [5, 6, 5]}, "a TIFF of 3 x samples of unequal depth (RGB"),
        (
            np.ones((4, 4), np.uint8),
            {pictures.COMPRESSION: 34712},
            "a TIFF of 1 x uint8 (BlackIsZero, compression 34712)",
        ),
    ],
)
def test_a_tiff_that_is_not_read_is_named_by_its_tags(samples: Any, tags: dict[int, Any], name: str) -> None:
    """Its owner knows what to convert; `no image that could be read` would send them looking for damage."""
    error = refusal(tiff_file(samples, tags=tags))
    assert error.status is Status.UNREADABLE
    assert name in error.reason


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("compression", [1, 8])
def test_a_tile_larger_than_max_pixels_is_too_large_by_its_header(kind: str, compression: int) -> None:
    """A decoder makes room for a whole tile, however small the image: 16 x 16 pixels took 1.7 GB."""
    tags = {pictures.TILE_WIDTH: 30_000, pictures.TILE_HEIGHT: 30_000, pictures.COMPRESSION: compression}
    began = time.process_time()
    error = refusal(tiff_file(np.ones((16, 16), kind), tags=tags))
    assert time.process_time() - began < 1
    assert error.status is Status.TOO_LARGE
    assert error.reason.endswith("tiles of 30000 x 30000 = 900,000,000 pixels; run.max_pixels is 268,435,456")
    assert (error.width, error.height) == (16, 16)


@pytest.mark.parametrize("rows", [40, 100, 65_535, 10**9, 2**31 - 1, 2**32 - 1])
def test_more_rows_in_a_strip_than_in_the_image_are_no_more_than_the_image(rows: int) -> None:
    """Writers mean `one strip` by a large number; nothing is made of it."""
    for kind in ("u1", "u2"):
        for compression in (1, 8):
            tags = {pictures.ROWS_PER_STRIP: rows, pictures.COMPRESSION: compression}
            np.testing.assert_array_equal(decode(tiff_file(widened(RGB_HW3, kind), tags=tags)), RGB_HW3)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_too_many_pixels_or_bytes_are_refused_by_the_tags(kind: str) -> None:
    """Hundreds of bands, or eight bytes each, would fill the memory that was planned for three bytes a pixel."""
    large = {pictures.WIDTH: 100_000, pictures.HEIGHT: 90_000}
    error = refusal(tiff_file(np.ones((2, 2), kind), tags=large))
    assert (error.status, error.width, error.height) == (Status.TOO_LARGE, 100_000, 90_000)
    bands = tiff_file(np.full((10, 10, 40), 9999, np.uint16), tags={pictures.PHOTOMETRIC: 2, pictures.EXTRA: [0] * 37})
    assert decode(bands, max_pixels=1000).shape == (10, 10, 3)
    assert "8,000 bytes; 3,200 are allowed" in refusal(bands, max_pixels=100).reason


def test_a_strip_that_unpacks_to_more_than_it_should_costs_no_memory() -> None:
    """A decompression bomb inside a small image: what is beyond the strip is never unpacked."""
    bomb = np.zeros((1000, 1000), np.uint16)
    tags = {pictures.HEIGHT: 4, pictures.WIDTH: 4, pictures.COMPRESSION: 8}
    result = outcome(tiff_file(bomb, tags=tags))
    assert isinstance(result, InputError) or result.rgb_HW3.shape == (4, 4, 3)


def test_a_layout_tag_that_is_there_twice_is_refused() -> None:
    """Decoders differ in which one they believe; a small tile in one view is a bomb in the other."""
    data = bytearray(tiff_file(np.ones((4, 4), np.uint8)))
    entry = data.find(struct.pack("<HH", 284, 4))
    data[entry : entry + 2] = struct.pack("<H", 278)
    data[entry - 12 : entry - 10] = struct.pack("<H", 278)
    assert "twice" in refusal(bytes(data)).reason


VARIANTS = [
    tiff_file(widened(RGB_HW3[:8, :9], kind), tags={pictures.PLANAR: planar, pictures.COMPRESSION: compression})
    for kind in ("u2", "f4")
    for planar in (1, 2)
    for compression in (1, 8)
]


@pytest.mark.parametrize("data", VARIANTS, ids=range(len(VARIANTS)))
def test_a_cut_deep_tiff_is_refused_and_never_filled_up(data: bytes) -> None:
    """tifffile fills missing strips with zeros; here the pixels come last, so that every cut loses some."""
    for size in range(0, len(data), 11):
        result = outcome(data[:size])
        assert isinstance(result, InputError), size
        assert result.status in (Status.UNREADABLE, Status.TOO_LARGE)


@pytest.mark.parametrize("data", VARIANTS, ids=range(len(VARIANTS)))
def test_flipped_bits_in_a_deep_tiff_are_an_image_or_an_input_error(data: bytes) -> None:
    """No other exception, no hang, and the same outcome twice: no pixel is what happened to be in memory."""
    dice = random.Random(7)
    for _ in range(80):
        hurt = bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 8))):
            hurt[dice.randrange(min(len(hurt), dice.choice((200, len(hurt)))))] ^= 1 << dice.randrange(8)
        first, second = outcome(bytes(hurt)), outcome(bytes(hurt))
        if isinstance(first, DecodedImage):
            assert isinstance(second, DecodedImage)
            np.testing.assert_array_equal(first.rgb_HW3, second.rgb_HW3)
        else:
            assert isinstance(second, InputError)
            assert second.reason == first.reason
