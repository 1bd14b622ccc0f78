"""HEIC and JPEG 2000: colours, orientation and depth. test_images.py has what they share with other kinds."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

from tests.storage.pictures import decode, encode, noise, refusal


def test_a_heic_has_the_colours_that_were_put_in() -> None:
    """As far as its compression leaves them: a phone's picture is seldom anything else."""
    smooth_HW3 = np.asarray(Image.fromarray(noise(4, 3)).resize((64, 48), Image.Resampling.BILINEAR))
    error_HW3 = np.abs(decode(encode(smooth_HW3, "HEIC")).astype(int) - smooth_HW3)
    assert error_HW3.mean() < 2
    assert error_HW3.max() < 16


def test_a_heic_that_lies_on_its_side_is_upright_and_turned_once() -> None:
    """Its container turns it; the EXIF beside that says the same and must not turn it again."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture = Image.fromarray(noise(4, 3)).resize((64, 48), Image.Resampling.BILINEAR)
    data = encode(picture, "HEIC", exif=exif.tobytes())
    upright = np.asarray(picture.transpose(Image.Transpose.ROTATE_270))
    found = decode(data)
    assert found.shape == upright.shape == (64, 48, 3)
    assert np.abs(found.astype(int) - upright).mean() < 2


def test_deep_grey_in_jpeg_2000_follows_the_rule_for_deep_samples() -> None:
    ramp_HW = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    found = decode(encode(Image.fromarray(ramp_HW), "JPEG2000"))
    np.testing.assert_array_equal(found, np.repeat((ramp_HW >> 8).astype(np.uint8)[..., None], 3, axis=2))
    assert "nearly black" in refusal(encode(Image.fromarray(ramp_HW >> 8), "JPEG2000")).reason
