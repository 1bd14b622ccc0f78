"""`MaskGenerator.predict` beside the released `SamPredictor`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.reference.official import segment_anything
from pipeline import MaskGenerator
from pipeline.errors import ConfigError

Picture = npt.NDArray[np.uint8]
POINT, POINTS = [[70.0, 60.0]], [[70.0, 60.0], [200.0, 31.0]]
BOX = [30.0, 20.0, 150.5, 140.0]


@pytest.fixture(scope="module")
def prompted(generator: MaskGenerator, picture: Picture) -> MaskGenerator:
    generator.set_image(picture)
    return generator


@pytest.fixture(scope="module")
def predictor(official: Any, picture: Picture) -> Any:
    predictor = segment_anything.SamPredictor(official)
    predictor.set_image(picture)
    return predictor


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize(
    ("points", "labels", "box"),
    [(POINT, [1], None), (POINTS, [1, 0], None), (None, None, BOX), (POINTS, [0, 1], BOX)],
    ids=["point", "points", "box", "both"],
)
def test_every_kind_of_prompt_is_answered_as_by_the_released_predictor(
    prompted: MaskGenerator, predictor: Any, points: Any, labels: Any, box: Any, *, with_mask: bool, multimask: bool
) -> None:
    earlier = predictor.predict(np.array(POINT), np.array([1]), multimask_output=False)[2] if with_mask else None
    theirs = predictor.predict(
        point_coords=None if points is None else np.array(points),
        point_labels=None if labels is None else np.array(labels),
        box=None if box is None else np.array(box),
        mask_input=earlier,
        multimask_output=multimask,
        return_logits=True,
    )
    ours = prompted.predict(points, labels, box, earlier, multimask, return_logits=True)
    assert ours[0].shape == (3 if multimask else 1, 180, 240)
    for our, their in zip(ours, theirs, strict=True):
        assert our.dtype == their.dtype == np.float32
        np.testing.assert_allclose(our, their, rtol=0, atol=1e-4 * max(1.0, float(np.abs(their).max())))
    masks = prompted.predict(points, labels, box, earlier, multimask)[0]
    assert masks.dtype == np.bool_
    assert np.array_equal(masks, ours[0] > 0)


def test_without_an_image_it_says_what_to_do(generator: MaskGenerator) -> None:
    with pytest.raises(ConfigError, match=r"call set_image\(image\) before predict"):
        MaskGenerator(points_per_side=1).predict(POINT, [1])


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ({}, "nothing is asked"),
        ({"points": POINT}, "points are given without labels"),
        ({"labels": [1]}, "labels are given without points"),
        ({"points": POINT, "labels": [1, 0]}, "labels must have the shape (1), not (2)"),
        ({"points": POINT, "labels": [2]}, "labels must be 1 or 0, not 2"),
        ({"points": [70, 60], "labels": [1]}, "points must have the shape (K, 2), not (2)"),
        ({"points": np.zeros((0, 2)), "labels": []}, "points must have the shape (K, 2), not (0, 2)"),
        ({"points": [["a", "b"]], "labels": [1]}, "points must be numbers"),
        ({"box": [1, 2, 3]}, "box must have the shape (4), not (3)"),
        ({"box": [1, 2, 3, np.inf]}, "box must be finite numbers"),
        ({"mask": np.zeros((1, 256, 256))}, "mask must have the shape (1, 64, 64), not (1, 256, 256)"),
    ],
)
def test_a_prompt_of_another_shape_is_told_in_one_sentence(
    prompted: MaskGenerator, prompt: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        prompted.predict(**prompt)
    assert sentence in str(caught.value)
