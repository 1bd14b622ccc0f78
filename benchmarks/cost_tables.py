"""The tables of docs/cost.md: `python -m benchmarks.cost_tables`. Arithmetic alone (cost.py), nothing measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks import cost
from benchmarks.cases import named_recipe, prompts_and_crops
from benchmarks.cost import Work, total
from benchmarks.image_cost import Shares, image_work
from model.config import CONFIGS, SamConfig

IMAGE_HW = (1500, 2250)
RECIPES = ("sam", "sa1b", "fast")


def markdown() -> str:
    """Both tables."""
    return "\n".join([*_units(), "", *_images(), ""])


def _units() -> Iterator[str]:
    """What one crop, prompt or mask costs."""
    yield "| one unit, GFLOP (MiB) | " + " | ".join(f"`{name}`" for name in CONFIGS) + " |"
    yield "|---" * (len(CONFIGS) + 1) + "|"
    columns = [dict(_unit_rows(config)) for config in CONFIGS.values()]
    for label in columns[0]:
        yield f"| {label} | " + " | ".join(_both(column[label]) for column in columns) + " |"


def _unit_rows(config: SamConfig) -> Iterator[tuple[str, Work]]:
    encoder = cost.encoder(config)
    yield "**encode a crop**", total(encoder.values())
    yield from ((f"... {stage}", work) for stage, work in encoder.items())
    released = cost.released_prompt(config)
    yield "**released: a prompt**", total(released.values())
    yield from ((f"... {stage}", work) for stage, work in released.items())
    yield "**ours: share a crop's image side**", cost.ours_crop(config)
    ours = cost.ours_prompt(config)
    yield "**ours: a prompt up to its scores**", total(ours.values())
    yield from ((f"... {stage}", work) for stage, work in ours.items())
    inside = cost.inside_square(IMAGE_HW)
    yield "**ours: upscale a prompt above the threshold**", cost.ours_kept_prompt(config, inside=inside)
    yield "**ours: logits of a mask above it**", cost.ours_kept_mask(config, inside=inside)


def _images() -> Iterator[str]:
    """What one image costs with each recipe."""
    yield (
        "| one image, GFLOP (GiB) | crops | prompts | encode | released: prompts | ours: prompts "
        "| released: masks | ours: masks |"
    )
    yield "|---" * 8 + "|"
    for recipe_name in RECIPES:
        recipe = named_recipe(recipe_name)
        prompts, crops = prompts_and_crops(recipe, IMAGE_HW)
        for name, config in CONFIGS.items():
            work = image_work(config, recipe, IMAGE_HW, Shares())
            cells = [f"`{recipe_name}`, `{name}`", str(crops), str(prompts)]
            for stage in (work.encode, work.released_prompts, work.our_crops + work.our_prompts):
                cells.append(f"{stage.flops / 1e9:,.0f} ({stage.bytes / 2**30:,.1f})")
            cells += [f"({value / 2**30:.1f})" for value in (work.released_masks, work.our_masks)]
            yield "| " + " | ".join(cells) + " |"


def _both(work: Work) -> str:
    digits = 3 if work.flops < 1e10 else 0
    return f"{work.flops / 1e9:,.{digits}f} ({work.bytes / 2**20:,.1f})"


if __name__ == "__main__":
    sys.stdout.write(markdown())
