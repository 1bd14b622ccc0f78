"""From samples of any depth to 8 bits, for PNG and TIFF, by three rules: right, or refused with what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.records import Status
from pipeline.settings import Depth
from pipeline.storage.depth import integers_to_8_bits
from pipeline.storage.images import decode_image
from tests.storage.pictures import (
    COMPRESSION,
    EXTRA,
    FORMAT,
    MAX_VALUE,
    PHOTOMETRIC,
    PLENTY,
    decode,
    encode,
    noise,
    opencv,
    png_of,
    refusal,
)
from tests.storage.pictures import tiff as tiff_file

DEEP_HW3 = np.random.default_rng(1).integers(0, 65536, (7, 9, 3), dtype=np.uint16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_its_high_byte(kind: str) -> None:
    """Microscopes and depth cameras; clipping at 255 instead would make them white."""
    data = encode(DEEP_HW3[..., 0], kind)
    np.testing.assert_array_equal(opencv(data), DEEP_HW3[..., 0])
    np.testing.assert_array_equal(decode(data), np.repeat(DEEP_HW3[..., :1] >> 8, 3, axis=2))


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_every_16_bit_png_keeps_its_high_bytes_and_drops_its_alpha(bands: int) -> None:
    """Pillow knows only the high bytes of colours, so these are decoded by libpng directly."""
    alpha_HW1 = np.zeros((7, 9, 1), np.uint16)
    colours_HWS = DEEP_HW3[..., : 3 if bands > 2 else 1]
    data = png_of(colours_HWS if bands % 2 else np.concatenate([colours_HWS, alpha_HW1], axis=2))
    np.testing.assert_array_equal(np.atleast_3d(opencv(data)) - colours_HWS, 0)
    np.testing.assert_array_equal(decode(data), np.broadcast_to(colours_HWS >> 8, (7, 9, 3)))


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16, 32])
def test_pixels_of_8_bits_survive_any_depth(bits: int) -> None:
    """A picture that was widened, by shifting or by repeating its bits, is the same picture as before."""
    levels_HW1 = np.arange(256).reshape(16, 16, 1)
    for widened in (levels_HW1 << (bits - 8), levels_HW1 * (2**bits - 1) // 255):
        np.testing.assert_array_equal(integers_to_8_bits(widened, bits=bits, judged=1), levels_HW1)
        inverted = integers_to_8_bits(2**bits - 1 - widened, bits=bits, judged=1, inverted=True)
        np.testing.assert_array_equal(inverted, levels_HW1)


@pytest.mark.parametrize("bits", range(1, 8))
def test_below_8_bits_black_stays_black_and_white_white(bits: int) -> None:
    """Odd depths are stretched evenly, as 1, 2 and 4 bits are everywhere."""
    levels = integers_to_8_bits(np.arange(2**bits).reshape(1, -1, 1), bits=bits, judged=1).ravel()
    assert (levels[0], levels[-1]) == (0, 255)
    assert np.ptp(np.diff(levels.astype(int))) <= 1


@given(st.integers(9, 16), st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_an_image_is_scaled_by_its_depth_or_refused_as_nearly_black(bits: int, values: list[int]) -> None:
    """A level means the same in every image: nothing is stretched to the image's own values."""
    samples = np.array(values, np.uint16).reshape(1, -1, 1) >> (16 - bits)
    try:
        levels = integers_to_8_bits(samples, bits=bits, judged=1)
    except InputError:
        assert 0 < samples.max() < 2 ** (bits - 4)
    else:
        np.testing.assert_array_equal(levels, samples // 2 ** (bits - 8))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_12_bit_values_that_call_themselves_16_are_refused_with_the_cure(kind: str) -> None:
    """The file says that its white is 65,535; shown like that, the picture is nearly black."""
    error = refusal(encode(np.array([[0, 100, 4095]], np.uint16), kind))
    assert error.status is Status.UNREADABLE
    assert "16-bit values reach only 4,095 of 65,535, which would be nearly black; set image.depth" in error.reason


def test_max_sample_value_says_how_deep_the_values_are() -> None:
    """The one place where a TIFF can say 12 bits in 16; it is believed if the values keep to it."""
    levels_HW = noise()[..., 0]
    data = tiff_file(levels_HW.astype(np.uint16) << 4, tags={MAX_VALUE: 4095})
    np.testing.assert_array_equal(decode(data)[..., 0], levels_HW)
    contradicted = tiff_file(levels_HW.astype(np.uint16) << 8, tags={MAX_VALUE: 4095})
    np.testing.assert_array_equal(decode(contradicted)[..., 0], levels_HW)
    statistical = tiff_file(levels_HW.astype(np.uint16) << 8, tags={MAX_VALUE: 60_000})
    np.testing.assert_array_equal(decode(statistical)[..., 0], levels_HW)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_nothing_but_zeros_is_black(kind: str) -> None:
    """An empty tile of a survey is a result, with no masks."""
    assert decode(encode(np.zeros((2, 3), np.uint16), kind)).max() == 0


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (np.array([[0, 2**31, 2**32 - 1]], np.uint32), [0, 128, 255]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[0, 2**14, 2**15 - 1]], np.int16), [0, 128, 255]),
        (np.array([[0, 64, 127]], np.int8), [0, 129, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float16), [0, 128, 255]),
        (np.array([[0.0, 127.6, 255.0]], np.float64), [0, 128, 255]),
        (np.array([[-0.001, 1.001, np.nan, np.inf, -np.inf]], np.float32), [0, 255, 0, 0, 0]),
        (np.array([[0.0, 0.0]], np.float32), [0, 0]),
    ],
)
def test_signed_and_float_samples_have_their_ranges(values: npt.NDArray[Any], levels: list[int]) -> None:
    """0 is black; white is the largest value of the type, or 1, or 255. What is no number is black."""
    assert decode(tiff_file(values))[0, :, 0].tolist() == levels
    inverted = decode(tiff_file(values, tags={PHOTOMETRIC: 0}))[0, :, 0].tolist()
    assert inverted == [
        255 - level if np.isfinite(value) else 0 for level, value in zip(levels, values[0], strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[-5, 30_000]], np.int16), "negative values (down to -5)"),
        (np.array([[0, 65_535]], np.uint32), "reach only 65,535 of 4,294,967,295"),
        (np.array([[0.0, 10_000.0]], np.float32), "run from 0 to 10000; floats are shares of white in [0, 1]"),
        (np.array([[-9999.0, 0.5]], np.float32), "run from -9999 to 0.5"),
        (np.array([[0.0, 1.5]], np.float32), "reach only 1.5 of 255"),
        (np.array([[0.0, 0.01]], np.float32), "reach only 0.01 of 1"),
        (np.array([[np.nan, np.inf]], np.float32), "none of its values is a finite number"),
    ],
)
def test_what_would_be_black_white_or_clipped_is_refused_with_its_range(values: Any, reason: str) -> None:
    """Masks of a white rectangle would be taken for masks of the photograph."""
    for tags in ({}, {PHOTOMETRIC: 0}, {COMPRESSION: 8}):
        error = refusal(tiff_file(values, tags=tags))
        assert error.status is Status.UNREADABLE
        assert error.reason.startswith(f"a TIFF of 1 x {values.dtype} (")
        assert reason in error.reason


def test_complex_samples_are_named() -> None:
    """Radar products come as TIFF, too."""
    values = np.ones((2, 2), np.uint64)
    assert refusal(tiff_file(values, tags={FORMAT: 6})).reason.startswith("a TIFF of 1 x complex64 (")


@pytest.mark.parametrize(
    ("values", "stretched", "clipped"),
    [
        (np.array([[100, 4095, 2098]], np.uint16), [0, 255, 128], [100, 255, 255]),
        (np.array([[-1000, 3000, 40]], np.int16), [0, 255, 66], [0, 255, 40]),
        (np.array([[-3, 127, 9]], np.int8), [0, 255, 24], [0, 127, 9]),
        (np.array([[7, 7, 7]], np.uint16), [0, 0, 0], [7, 7, 7]),
        (np.array([[0, 2**32 - 1, 255]], np.uint32), [0, 255, 0], [0, 255, 255]),
        (np.array([[-9999.0, 0.5, np.nan]], np.float32), [0, 255, 0], [0, 128, 0]),
        (np.array([[0.25, 0.75, 0.5]], np.float64), [0, 255, 128], [64, 191, 128]),
        (np.array([[0.0, 1e4, np.inf]], np.float32), [0, 255, 0], [0, 255, 0]),
        (np.array([[0, 255, 3]], np.uint8), [0, 255, 3], [0, 255, 3]),
    ],
)
def test_stretch_and_clip_read_what_scale_refuses(
    values: npt.NDArray[Any], stretched: list[int], clipped: list[int]
) -> None:
    """Satellites, scanners and cameras whose white is nowhere said: the first is what viewers show, the second what
    a plain conversion to bytes gives."""
    for rule, levels in ((Depth.STRETCH, stretched), (Depth.CLIP, clipped)):
        for tags in ({}, {PHOTOMETRIC: 0}):
            image_HW3 = decode_image(tiff_file(values, tags=tags), max_pixels=PLENTY, depth=rule).rgb_HW3
            shown = [255 - level if np.isfinite(v) else 0 for level, v in zip(levels, values[0], strict=True)]
            assert image_HW3[0, :, 1].tolist() == (shown if tags else levels), (rule, tags)


def test_colours_are_stretched_together_and_alpha_is_not_asked() -> None:
    """Each by itself would change the hues; an alpha of 65,535 says nothing of white."""
    colours_HWS = np.array([[[100, 200, 300, 65535], [600, 1100, 500, 0]]], np.uint16)
    for data in (png_of(colours_HWS), tiff_file(colours_HWS, tags={PHOTOMETRIC: 2, EXTRA: 2})):
        image_HW3 = decode_image(data, max_pixels=PLENTY, depth=Depth.STRETCH).rgb_HW3
        assert image_HW3.tolist() == [[[0, 26, 51], [128, 255, 102]]]


def test_a_range_that_no_number_holds_and_no_number_at_all_are_refused_by_every_rule() -> None:
    """Never silently black."""
    for rule in (Depth.STRETCH, Depth.CLIP):
        with pytest.raises(InputError, match="none of its values is a finite number"):
            decode_image(tiff_file(np.array([[np.nan, np.inf]], np.float32)), max_pixels=PLENTY, depth=rule)
    with pytest.raises(InputError, match="more than a number can hold"):
        decode_image(tiff_file(np.array([[-1.5e308, 1.5e308]])), max_pixels=PLENTY, depth=Depth.STRETCH)
