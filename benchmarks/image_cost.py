"""What one image costs with a recipe: the units of cost.py times crops, prompts and masks. Arithmetic alone.

Legend: h w pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import cost
from benchmarks.cost import Work, total
from model.config import SamConfig
from pipeline.masks.crops import image_crops, points_per_side
from pipeline.settings import Recipe


@dataclass(frozen=True, slots=True)
class Shares:
    """How much survives, as shares of all predicted masks; `prompts` is the share of prompts with a mask above."""

    above: float = 0.30
    prompts: float = 0.50
    stable: float = 0.15


@dataclass(frozen=True, slots=True)
class ImageWork:
    """One image."""

    encode: Work
    our_crops: Work
    """What ours makes of every encoded crop for all its prompts."""
    released_prompts: Work
    our_prompts: Work
    released_masks: float
    """Bytes, as `our_masks`."""
    our_masks: float


def image_work(config: SamConfig, recipe: Recipe, image_hw: tuple[int, int], shares: Shares) -> ImageWork:
    """All crops and prompts of one image."""
    encode, shared, ours, released, traffic = Work(), Work(), Work(), Work(), [0.0, 0.0]
    released_prompt = total(cost.released_prompt(config).values())
    our_prompt = total(cost.ours_prompt(config).values())
    for crop in image_crops(image_hw, recipe):
        prompts, inside = points_per_side(recipe, crop.layer) ** 2, cost.inside_square(crop.hw)
        masks = prompts * config.multimask_outputs
        encode += total(cost.encoder(config).values())
        shared += cost.ours_crop(config)
        released += released_prompt * prompts
        ours += our_prompt * prompts
        ours += cost.ours_kept_prompt(config, inside=inside) * (prompts * shares.prompts)
        ours += cost.ours_kept_mask(config, inside=inside) * (masks * shares.above)
        for index, of_mask in enumerate((cost.released_masks(config, crop.hw), cost.ours_masks(config, crop.hw))):
            traffic[index] += masks * (
                of_mask.predicted + shares.above * of_mask.above + shares.stable * of_mask.stable
            )
    return ImageWork(encode, shared, released, ours, *traffic)
