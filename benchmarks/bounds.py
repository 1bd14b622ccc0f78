"""The least time that a device can need for an image: each stage's products, or bytes, over what it reaches at best.

`python -m benchmarks.bounds` prints the tables of docs/gpu.md, with the datasheet's figures for the H200. A comparison
gives ceilings that it measured. Arithmetic alone (cost.py); nothing is measured here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import cost
from benchmarks.cases import named_recipe, prompts_and_crops
from benchmarks.ceilings import Ceilings
from benchmarks.cost import FLOAT, Work, total
from benchmarks.image_cost import ImageWork, Shares, image_work
from benchmarks.peers import DECODE, ENCODE
from benchmarks.stages import POST
from model.config import CONFIGS

ELEMENT = {"fp32": FLOAT, "bf16": 2}
"""Bytes of an activation."""
H200 = Ceilings({"fp32": 67e12, "bf16": 989e12}, 4.8e12)
"""NVIDIA's H200 SXM datasheet: tensor cores without sparsity, float32 outside of them (no TF32), HBM3e."""


@dataclass(frozen=True, slots=True)
class Floor:
    """One stage of one image.

    flops             of its products
    seconds           least time: the products at the ceiling, or where there are none the bytes that must be read
    operator_seconds  time for the bytes alone if every operator reads and writes the device's memory
    """

    flops: float
    seconds: float
    operator_seconds: float


def floors(work: ImageWork, ceilings: Ceilings, *, encoder: str, decoder: str = "fp32") -> dict[str, Floor]:
    """Each stage's floor.

    encoder, decoder  precision of their products, keys of `ceilings.flops`
    """
    fast, exact = ceilings.flops[encoder], ceilings.flops[decoder]
    activations = work.encode.bytes * ELEMENT[encoder] + (work.our_crops.bytes * ELEMENT[decoder])
    masks_s = work.our_masks / ceilings.bytes
    return {
        ENCODE: Floor(
            work.encode.flops + work.our_crops.flops,
            work.encode.flops / fast + work.our_crops.flops / exact,
            activations / FLOAT / ceilings.bytes,
        ),
        DECODE: Floor(
            work.our_prompts.flops,
            work.our_prompts.flops / exact,
            work.our_prompts.bytes * ELEMENT[decoder] / FLOAT / ceilings.bytes,
        ),
        POST: Floor(0.0, masks_s, masks_s),
    }


def seen_shares(funnel: dict[str, int]) -> Shares:
    """What a run's funnel says, with the fewest prompts that can have so many masks: a floor must not be too high."""
    candidates = max(funnel["candidates"], 1)
    above = candidates - funnel["low_predicted_iou"]
    return Shares(above / candidates, above / candidates, (above - funnel["low_stability"]) / candidates)


def markdown() -> str:
    """Both tables of docs/gpu.md."""
    return "\n".join([*_parts(), "", *_images(), ""])


def _parts() -> Iterator[str]:
    """ViT-H on one image of 1024 x 683, part by part."""
    config, size_hw, recipe = CONFIGS["vit_h"], (683, 1024), named_recipe("sam")
    work = image_work(config, recipe, size_hw, Shares())
    prompts, _ = prompts_and_crops(recipe, size_hw)
    scores = total(cost.ours_prompt(config).values()) * prompts
    rows = {"**encoder**": work.encode} | {f"... {name}": part for name, part in cost.encoder(config).items()}
    rows |= {"**decoder**": work.our_crops + work.our_prompts, "... shared by a crop": work.our_crops}
    rows |= {f"... {prompts} prompts up to their scores": scores}
    rows |= {"... upscaling and logits of those above": work.our_prompts + scores * -1}
    rows |= {"**post-processing**": Work(0, work.our_masks)}
    yield "| ViT-H, 1024 x 683, `sam` | GFLOP | ms in bf16 | ms in fp32 | GiB by operators, fp32 | ms for them |"
    yield "|---" * 6 + "|"
    for name, part in rows.items():
        times = [part.flops / H200.flops[precision] * 1e3 for precision in ("bf16", "fp32")]
        flops = [f"{part.flops / 1e9:,.1f}", *(f"{ms:.2f}" for ms in times)] if part.flops else [""] * 3
        yield f"| {name} | {' | '.join(flops)} | {part.bytes / 2**30:.2f} | {part.bytes / H200.bytes * 1e3:.2f} |"


def _images() -> Iterator[str]:
    """Whole images, the encoder in bf16."""
    yield "| one image | encode, ms | prompts fp32, ms | prompts bf16, ms | images/s, fp32 decoder | bf16 decoder |"
    yield "|---" * 6 + "|"
    for recipe_name, size_hw in (("sam", (683, 1024)), ("sa1b", (1500, 2250))):
        for name in ("vit_b", "vit_h"):
            work = image_work(CONFIGS[name], named_recipe(recipe_name), size_hw, Shares())
            exact, lower = (floors(work, H200, encoder="bf16", decoder=decoder) for decoder in ("fp32", "bf16"))
            cells = [f"`{name}`, `{recipe_name}`, {size_hw[1]} x {size_hw[0]}", f"{exact[ENCODE].seconds * 1e3:.1f}"]
            cells += [f"{floor[DECODE].seconds * 1e3:.1f}" for floor in (exact, lower)]
            cells += [f"{1 / sum(stage.seconds for stage in floor.values()):.0f}" for floor in (exact, lower)]
            yield "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
