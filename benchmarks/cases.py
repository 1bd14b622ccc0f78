"""What is measured: models, recipes, images, and the options of one benchmark.

Owns names, numbers and the drawing of images; measures nothing.
Legend: H W pixels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from model.config import CONFIGS
from model.training.scenes import held_out_scene
from pipeline.masks.crops import image_crops, points_per_side
from pipeline.settings import CropRank, Recipe

Image_HW3 = npt.NDArray[np.uint8]

RECIPES = Path(__file__).parent.parent / "conf" / "recipe"
RECIPE_NAMES = ("sam", "sa1b", "sa1b_paper", "fast")
"""`sa1b` is that recipe with the released generator's rules wherever the two differ, so that all peers are asked for
the same masks; `sa1b_paper` is the recipe as it is, which only ours can do."""
LENIENT = Recipe(pred_iou_thresh=0.42, stability_score_thresh=0.7)
"""Thresholds that let many masks of `tiny` pass."""


@dataclass(frozen=True, slots=True)
class Case:
    """One image, model and recipe that every peer runs."""

    model: str
    recipe: str
    width: int
    height: int

    @property
    def title(self) -> str:
        return f"{self.model}, {self.recipe}, {self.width} x {self.height}"


@dataclass(frozen=True)
class Options:
    """One benchmark. Seconds are CPU seconds (user + system) unless their name says otherwise."""

    models: tuple[str, ...] = ("tiny", "vit_b")
    recipes: tuple[str, ...] = ("sam", "sa1b")
    sizes_wh: tuple[tuple[int, int], ...] = ((1024, 683), (2250, 1500))
    peers: tuple[str, ...] = ("released", "tuned", "transformers", "fast", "ours")
    repetitions: int = 3
    budget_s: float = 300.0
    """A peer whose repetitions of a case would take longer than this in all (wall, on cuda) runs it once."""
    limit_wall_s: float = 3600.0
    """Wall seconds after which one run is given up."""
    threads: int = 1
    """torch and OpenMP threads of every peer."""
    image: str | None = None
    """Image file, resized to each size; null draws a scene."""
    scene: int = 77
    """Which held-out scene is drawn, or the first of those drawn."""
    pred_iou_thresh: float | None = None
    """For all peers alike; null keeps the recipe's."""
    stability_score_thresh: float | None = None
    """For all peers alike; null keeps the recipe's."""
    points_per_side: int | None = None
    """For all peers alike; null keeps the recipe's."""
    weights: tuple[tuple[str, str], ...] = ()
    """(model, path of a checkpoint); others take the bundled weights, as they are or widened."""
    fast_checkout: str | None = None
    """Folder of a segment-anything-fast checkout."""
    device: str = "cpu"
    """Where every peer runs: cpu or cuda. On cuda seconds that decide are wall seconds."""
    trace: str | None = None
    """File for a profiler's trace of ours on the first case's image, or null."""

    def cases(self) -> list[Case]:
        return [
            Case(model, recipe, width, height)
            for model in self.models
            for recipe in self.recipes
            for width, height in self.sizes_wh
        ]

    def recipe(self, name: str) -> Recipe:
        """The named recipe with the thresholds and points of these options."""
        asked = {
            "pred_iou_thresh": self.pred_iou_thresh,
            "stability_score_thresh": self.stability_score_thresh,
            "points_per_side": self.points_per_side,
        }
        return replace(named_recipe(name), **{key: value for key, value in asked.items() if value is not None})

    def pixels(self, case: Case) -> Image_HW3:
        """The case's image: the file resized, or the scene drawn at that size.

        raises  FileNotFoundError if the file cannot be read as an image
        """
        if self.image is None:
            return drawn_image(case.model, self.scene, (case.height, case.width))
        bgr_HW3 = cv2.imread(self.image, cv2.IMREAD_COLOR)
        if bgr_HW3 is None:
            raise FileNotFoundError(f"{self.image} is no image that can be read; give --image another file")
        resized_HW3 = cv2.resize(bgr_HW3, (case.width, case.height), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(resized_HW3[..., ::-1]).astype(np.uint8, copy=False)


ON_DEVICE: dict[str, dict[str, Any]] = {
    "cpu": {},
    "cuda": {
        "models": ("vit_b", "vit_h"),
        "peers": ("released", "released_bf16", "transformers", "fast", "ours", "ours_bf16"),
        "threads": 4,
    },
}
"""Defaults of `Options` that depend on the device. Four cores are what a machine of several GPUs has for each."""


def drawn_image(model: str, scene: int, size_hw: tuple[int, int]) -> Image_HW3:
    """Held-out scenes from `scene` on, side by side, so that things are as many tokens wide as the tiny model learned
    them: one scene for it, 4 x 4 for the released sizes, whose stand-in weights are the tiny model's widened."""
    per_side = CONFIGS[model].grid_side // CONFIGS["tiny"].grid_side
    image_HW3 = np.zeros((*size_hw, 3), dtype=np.uint8)
    for number in range(per_side**2):
        row, column = divmod(number, per_side)
        (top, bottom), (left, right) = (
            (place * side // per_side, (place + 1) * side // per_side)
            for place, side in zip((row, column), size_hw, strict=True)
        )
        scene_HW3 = held_out_scene(scene + number, size_hw=(bottom - top, right - left)).rgb_HW3
        image_HW3[top:bottom, left:right] = scene_HW3
    return image_HW3


def recipe_of(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values, as YAML and JSON have them.

    raises  TypeError for a name that no setting has
    """
    recipe = Recipe(**values)
    return replace(recipe, crop_rank=CropRank(recipe.crop_rank))


def named_recipe(name: str) -> Recipe:
    """A recipe of conf/recipe, or one of the two forms of `sa1b` (see RECIPE_NAMES)."""
    if name not in RECIPE_NAMES:
        raise ValueError(f"there is no recipe named {name!r}; choose one of {', '.join(RECIPE_NAMES)}")
    recipe = recipe_of(_flat_yaml((RECIPES / f"{name.removesuffix('_paper')}.yaml").read_text()))
    if name == "sa1b":
        return replace(recipe, crop_rank=CropRank.CROP_AREA, drop_if_largest_below=0, max_area_fraction=None)
    return recipe


def _flat_yaml(text: str) -> dict[str, Any]:
    """Keys with numbers or words: all that a recipe's file has. Machines with a GPU often lack Hydra and PyYAML."""
    pairs = (line.split(": ") for line in text.splitlines() if not line.startswith(("#", "{}")))
    return {key: value if value.isidentifier() else json.loads(value) for key, value in pairs}


def prompts_and_crops(recipe: Recipe, image_hw: tuple[int, int]) -> tuple[int, int]:
    """Points prompted and crops encoded for one image."""
    crops = image_crops(image_hw, recipe)
    return sum(points_per_side(recipe, crop.layer) ** 2 for crop in crops), len(crops)
