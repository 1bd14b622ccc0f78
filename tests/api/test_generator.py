"""`MaskGenerator` beside the released generator, and what it refuses."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from benchmarks.reference.official import OfficialSegmenter, segment_anything
from model.load import BUNDLED
from pipeline import MaskGenerator
from pipeline.api.masks import OutputMode, released
from pipeline.errors import ConfigError
from pipeline.masks.generator import generate_masks
from pipeline.masks.rle import mask_pixels
from pipeline.settings import CropRank, Recipe
from pipeline.work.device import Device
from tests.api.conftest import FEW

Picture = npt.NDArray[np.uint8]
CROPPED = FEW | {"crop_n_layers": 1, "min_mask_region_area": 30}


def plain(value: Any) -> Any:
    """A value and its types, for comparing."""
    if isinstance(value, np.ndarray):
        return "array", value.dtype, value.shape, value.tobytes()
    if isinstance(value, dict):
        return [(key, plain(each)) for key, each in value.items()]
    if isinstance(value, list):
        return [plain(each) for each in value]
    return type(value), value


@pytest.mark.parametrize("mode", list(OutputMode))
@pytest.mark.parametrize("options", [FEW, CROPPED], ids=["whole", "crops"])
def test_on_the_released_networks_logits_every_key_value_and_type_is_the_released_one(
    official: Any, picture: Picture, mode: OutputMode, options: dict[str, Any]
) -> None:
    theirs = segment_anything.SamAutomaticMaskGenerator(official, output_mode=mode, **options).generate(picture)
    [result] = generate_masks([picture], OfficialSegmenter(official), Recipe(**options))
    ours = released(result, picture, mode)
    assert len(ours) >= 5
    assert isinstance(ours, list)
    assert plain(list(ours)) == plain(theirs)


@pytest.mark.parametrize("layers", [0, 1])
def test_with_grids_of_ones_own_every_key_is_the_released_one(official: Any, picture: Picture, layers: int) -> None:
    """One a layer, in any order, up to the very edge; points_per_side=None stands beside them in released programs."""
    grids = [np.random.default_rng(seed).random((count, 2)) for seed, count in ((0, 30), (1, 25))]
    grids[0][:2] = [[1.0, 0.5], [0.0, 1.0]]
    options = FEW | {"points_per_side": None, "point_grids": grids[: layers + 1], "crop_n_layers": layers}
    theirs = segment_anything.SamAutomaticMaskGenerator(official, output_mode="coco_rle", **options).generate(picture)
    ours = MaskGenerator(model="tiny", output_mode="coco_rle", **options)
    ours._device = Device(OfficialSegmenter(official), ours.recipe)  # pyright: ignore[reportPrivateUsage]
    masks = ours.generate(picture)
    assert len(masks) >= 5
    assert list(masks) == theirs  # not by type: where a crop has no mask, the released crop_box are floats
    assert [list(mask) for mask in masks] == [list(mask) for mask in theirs]


def test_a_region_of_interest_takes_points_away(generator: MaskGenerator, picture: Picture) -> None:
    roi = np.zeros(picture.shape[:2], np.uint8)
    roi[:, 120:] = 255
    masks = generator.generate(picture, roi=roi)
    assert masks
    assert all(mask["point_coords"][0][0] >= 120 for mask in masks)
    assert generator.generate(picture, roi=roi * 0) == []
    for wrong in (roi[1:], roi / 255):
        with pytest.raises(ConfigError, match=r"roi must be \(180, 240\) of bool or whole numbers, .*; it is \("):
            generator.generate(picture, roi=wrong)


def test_with_its_own_network_the_masks_are_the_released_ones(
    generator: MaskGenerator, official: Any, picture: Picture
) -> None:
    ours = generator.generate(picture)
    theirs = segment_anything.SamAutomaticMaskGenerator(official, **FEW).generate(picture)
    assert len(ours) == len(theirs) >= 5
    for our, their in zip(ours, theirs, strict=True):
        assert list(our) == list(their)
        assert np.mean(our["segmentation"] != their["segmentation"]) < 1e-3
        assert our["predicted_iou"] == pytest.approx(their["predicted_iou"], abs=1e-4)
        assert our["point_coords"] == their["point_coords"]


def test_it_gives_what_a_run_gives(generator: MaskGenerator, picture: Picture) -> None:
    """The same model, the same generator: the masks of the rows, byte for byte."""
    [result] = generate_masks([picture], generator._segmenter, generator.recipe)  # pyright: ignore[reportPrivateUsage]
    ours = [mask["segmentation"] for mask in generator.generate(picture)]
    assert [mask.tolist() for mask in ours] == [mask_pixels(each.counts, (180, 240)).tolist() for each in result.masks]


def test_a_path_is_decoded_as_a_run_decodes_it(generator: MaskGenerator, picture: Picture, tmp_path: Path) -> None:
    """A file that says it lies on its side is the upright picture."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(picture, 1).copy()).save(tmp_path / "a.png", exif=exif)
    masks = generator.generate(tmp_path / "a.png")
    assert np.array_equal(masks.image_HW3, picture)
    assert plain(list(masks)) == plain(list(generator.generate(str(tmp_path / "a.png"))))


def test_many_images_come_in_their_order_and_are_taken_as_they_are_needed(
    generator: MaskGenerator, picture: Picture
) -> None:
    small = [picture[:60, : 40 + 10 * number] for number in range(5)]
    taken: list[int] = []

    def images() -> Iterator[Picture]:
        for number, image in enumerate(small):
            taken.append(number)
            yield image

    results = generator.generate_many(images())
    first = next(results)
    assert len(taken) <= 3
    every = [first, *results]
    assert [masks.image_HW3.shape for masks in every] == [image.shape for image in small]
    assert [plain(list(masks)) for masks in every] == [plain(list(generator.generate(image))) for image in small]


def test_whoever_stops_listening_leaves_no_thread_behind(generator: MaskGenerator, picture: Picture) -> None:
    results = generator.generate_many([picture[:50, :50]] * 4)
    next(results)
    results.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("masks")]


def test_an_image_that_fails_raises_in_its_place(generator: MaskGenerator, picture: Picture) -> None:
    results = generator.generate_many([picture[:50, :50], "nowhere.jpg"])
    assert next(results).image_HW3.shape == (50, 50, 3)
    with pytest.raises(ConfigError, match=r"nowhere\.jpg cannot be read: No such file"):
        next(results)


@pytest.mark.parametrize(
    ("arguments", "thresholds"),
    [
        ({}, (0.85, 0.965, 0.6, 32)),
        ({"recipe": "fast"}, (0.85, 0.965, 0.6, 16)),
        ({"pred_iou_thresh": 0.9, "points_per_side": 4}, (0.9, 0.965, 0.6, 4)),
    ],
)
def test_a_recipe_is_the_presets_then_the_models_then_the_callers(
    arguments: dict[str, Any], thresholds: tuple[float, float, float, int]
) -> None:
    recipe = MaskGenerator(**arguments).recipe
    found = (recipe.pred_iou_thresh, recipe.stability_score_thresh, recipe.box_nms_thresh, recipe.points_per_side)
    assert found == thresholds


def test_sa1b_is_the_recipe_of_the_paper() -> None:
    recipe = MaskGenerator(recipe="sa1b").recipe
    assert (recipe.crop_n_layers, recipe.crop_rank, recipe.max_area_fraction) == (2, CropRank.LAYER, 0.95)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "vit_x"}, "there is no model named 'vit_x'; choose one of small, tiny, vit_b"),
        ({"model": "vit_b", "checkpoint": BUNDLED["tiny"]}, "the checkpoint is not a vit_b"),
        ({"checkpoint": "nowhere.pth"}, "checkpoint=nowhere.pth cannot be read as a file: No such file"),
        ({"recipe": "sa1"}, "there is no recipe 'sa1'; choose one of fast, sa1b, sam"),
        ({"device": "gpu"}, "model.device='gpu' is no device"),
        ({"precision": "fp8"}, "precision=fp8 must be one of fp32, bf16x3, bf16"),
        ({"output_mode": "rle"}, "output_mode=rle must be one of binary_mask, uncompressed_rle, coco_rle"),
        ({"points_per_sid": 4}, "there is no setting points_per_sid; did you mean points_per_side"),
        ({"points_per_side": 4.5}, "points_per_side=4.5 must be a whole number"),
        ({"points_per_side": 0}, "points_per_side=0 must be 1 or more"),
        ({"points_per_side": 4, "point_grids": [[[0, 0]]]}, "points_per_side=4 and point_grids are both given"),
        ({"point_grids": [[[0, 0]]], "crop_n_layers": 1}, "grids for 1 crop layers, and crop_n_layers=1 needs 2"),
        ({"point_grids": [[[0, 2]]]}, "point_grids[0] must have x and y in [0, 1]"),
        ({"point_grid": "a.npy"}, "point_grid= is of runs; give arrays as point_grids=[...]"),
        ({"roi": "masks"}, "roi= is of runs; give the region of an image to generate(image, roi=...)"),
        ({"nodata": (0, 0)}, "nodata=[0,0] must be 3 whole numbers, written [1,2,3]"),
        ({"nodata": (0, 0, 256)}, "nodata=(0, 0, 256) must be three levels in 0..255"),
        ({"pred_iou_thresh": float("nan")}, "pred_iou_thresh=nan must be a finite number"),
        ({"crop_n_layers": 6, "crop_n_points_downscale_factor": 2}, "crop layer 6 would have no points"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MaskGenerator(**arguments)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((8, 8), np.uint8), "not (8, 8) uint8; make three channels of one"),
        (np.zeros((8, 8, 4), np.uint8), "not (8, 8, 4) uint8; leave out its alpha"),
        (np.zeros((8, 8, 3), np.float32), "not (8, 8, 3) float32"),
        (np.zeros((0, 8, 3), np.uint8), "not (0, 8, 3) uint8"),
        ([[1, 2]], "not a list"),
        (Path(__file__), "is no image that can be used: unreadable"),
    ],
)
def test_what_is_no_image_is_told_in_one_sentence(generator: MaskGenerator, image: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        generator.generate(image)
    assert sentence in str(caught.value)


def test_it_brings_neither_ray_nor_hydra_nor_an_s3_client_nor_the_compiler_of_torch() -> None:
    """Some calls of torch import its compiler, sympy among it: 2 s of every start, for workers and drivers as well."""
    code = (
        "import sys, numpy; from pipeline import MaskGenerator\n"
        "MaskGenerator(points_per_side=1).generate(numpy.zeros((9, 9, 3), 'uint8'))\n"
        "from pipeline.work.device import fix_torch; fix_torch(1)\n"
        "unwanted = {'ray', 'hydra', 'omegaconf', 'boto3', 'botocore', 'pyarrow', 'sympy', 'torch._dynamo'}\n"
        "print(sorted(unwanted & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_result_survives_pickling(generator: MaskGenerator, picture: Picture) -> None:
    masks = generator.generate(picture)
    again = pickle.loads(pickle.dumps(masks))
    assert plain(list(again)) == plain(list(masks))
    assert np.array_equal(again.image_HW3, picture)
