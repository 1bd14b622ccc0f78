"""What a notebook shows of a result."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline import MaskGenerator
from pipeline.api.masks import Masks, OutputMode
from tests.api.conftest import FEW

Picture = npt.NDArray[np.uint8]
FORMS: dict[OutputMode, Any] = {
    OutputMode.BINARY_MASK: np.arange(120).reshape(10, 12) % 12 < 6,
    OutputMode.UNCOMPRESSED_RLE: {"size": [10, 12], "counts": [0, 60, 60]},
    OutputMode.COCO_RLE: {"size": [10, 12], "counts": "0l1l1"},
}
"""The left half of an image of 12 x 10."""


def drawn(masks: Masks) -> Picture:
    data = masks._repr_png_()  # pyright: ignore[reportPrivateUsage]
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("mode", list(OutputMode))
def test_the_picture_is_the_image_with_its_masks_over_it(mode: OutputMode) -> None:
    image_HW3 = np.full((10, 12, 3), 90, np.uint8)
    picture = drawn(Masks([{"segmentation": FORMS[mode], "area": 60}], image_HW3))
    assert (picture[:, 6:] == 90).all()
    assert (picture[:, :6] != 90).any(axis=2).all()


def test_a_changed_list_shows_what_is_in_it(generator: MaskGenerator, picture: Picture) -> None:
    masks = generator.generate(picture)
    whole = drawn(masks)
    assert (whole != picture).any()
    masks.clear()
    assert np.array_equal(drawn(masks), picture)


def test_the_fragment_names_what_it_shows_and_loads_nothing(picture: Picture) -> None:
    masks = MaskGenerator(**FEW, output_mode="coco_rle").generate(picture)
    fragment = masks._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert f"<figcaption>{len(masks)} masks, 240 x 180 pixels</figcaption>" in fragment
    assert re.findall(r'(?:src|href)="([^:]+):', fragment) == ["data"]
    encoded = re.findall(r"base64,([^\"]+)", fragment)
    assert [base64.b64decode(each) for each in encoded] == [masks._repr_png_()]  # pyright: ignore[reportPrivateUsage]
