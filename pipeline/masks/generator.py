"""Pixels to masks: the crops of an image are encoded in batches, searched one by one, merged per image.

Owns the batching of crops, that one without points is not encoded, that an image goes to its device once, and that a
device has the next crop's work before it is waited for. `search` finds the candidates of one crop, `merge` turns those
of one image into its result. Knows nothing of files, runs or which model it is; a `Segmenter` is all it needs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import ContractError
from pipeline.masks.arrays import Points
from pipeline.masks.candidates import Candidates
from pipeline.masks.crops import Crop, image_crops
from pipeline.masks.merge import merge_crops
from pipeline.masks.observer import UNOBSERVED, Observer
from pipeline.masks.points import EVERYTHING, Prompts, check_region, crop_points, grids_of
from pipeline.masks.rle import Rle
from pipeline.masks.search import CropSearch, Found
from pipeline.masks.segmenter import Encoded, Segmenter, placed
from pipeline.records import Funnel, ImageMasks
from pipeline.settings import Recipe

CROPS_PER_ENCODE = 8
"""Crops of an image handed to the encoder at once; bounds the embeddings that are alive. A GPU has its own number."""

Image_HW3 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Window:
    """One crop of an image, and where to look in it."""

    crop: Crop
    points_xy_P2: Points


@torch.no_grad()
def generate_masks(
    images_HW3: Sequence[Image_HW3],
    segmenter: Segmenter[Encoded],
    recipe: Recipe,
    *,
    prompts: Sequence[Prompts] | None = None,
    crops_per_encode: int = CROPS_PER_ENCODE,
    observer: Observer = UNOBSERVED,
) -> list[ImageMasks]:
    """Every mask that the recipe finds in each RGB image, in a fixed order; one result per image, maybe empty.

    Equal pixels, weights and recipe give equal results, whatever else is in the batch and however many crops are
    encoded at once. The order is that of the last duplicate removal: by predicted IoU within one crop, by
    `recipe.crop_rank` across crops, and after a clean-up untouched masks before changed ones.

    prompts   grids and regions that the recipe does not have, one an image
    observer  told of each step, in a call with one image
    raises    ConfigError if the recipe leaves a crop layer without points, or its own files were not read
              ContractError if an image is not (H, W, 3) uint8 with at least one pixel, or its region is of another size
    """
    found: list[list[Found]] = [[] for _ in images_HW3]
    asked = [EVERYTHING] * len(images_HW3) if prompts is None else prompts
    of_images = [
        list(_windows(image_HW3, recipe, of_image)) for image_HW3, of_image in zip(images_HW3, asked, strict=True)
    ]
    for windows, crops in zip(of_images, found, strict=True):
        crops += [Found.nothing() for window in windows if not len(window.points_xy_P2)]
    size = segmenter.crops_at_once or crops_per_encode
    searches = (
        (index, search)
        for index, (image_HW3, windows) in enumerate(zip(images_HW3, of_images, strict=True))
        for search in _searches(image_HW3, windows, segmenter, recipe, observer, crops_per_encode=size)
    )
    for image_index, search in _begun_before_waiting(searches):
        found[image_index].append(search)
    return [
        merge_crops(
            _image_hw(image_HW3), _arrived(crops), sum((crop.funnel for crop in crops), Funnel()), recipe, observer
        )
        for image_HW3, crops in zip(images_HW3, found, strict=True)
    ]


def _searches(
    image_HW3: Image_HW3,
    windows: Sequence[_Window],
    segmenter: Segmenter[Encoded],
    recipe: Recipe,
    observer: Observer,
    *,
    crops_per_encode: int,
) -> Iterator[Generator[None, None, Found]]:
    """The search of each crop with points. No encoding outlives its search, and the image leaves its device before."""
    asked = [window for window in windows if len(window.points_xy_P2)]
    pixels = placed(segmenter, image_HW3) if asked else None
    for start in range(0, len(asked), crops_per_encode):
        batch = asked[start : start + crops_per_encode]
        encoded = list(segmenter.encode([_cut(pixels, window.crop) for window in batch]))
        if start + len(batch) == len(asked):
            pixels = None
        for window in batch:
            search = CropSearch(
                _image_hw(image_HW3), window.crop, window.points_xy_P2, encoded.pop(0), segmenter, recipe, observer
            )
            yield search.steps()
            del search


def _cut(pixels_HW3: Any, crop: Crop) -> Any:
    """A view."""
    x0, y0, x1, y1 = crop.box_xyxy
    return pixels_HW3[y0:y1, x0:x1]


def _begun_before_waiting(
    searches: Iterator[tuple[int, Generator[None, None, Found]]],
) -> Iterator[tuple[int, Found]]:
    """Each search's result. The next one is begun before the one before is waited for, so that no device is idle then.

    A search that never waits has ended before the next one, and the next batch's encoding, begin.
    """
    waiting: tuple[int, _Running] | None = None
    for image_index, steps in searches:
        running = _Running(steps)
        if waiting is not None:
            yield waiting[0], waiting[1].ended()
        waiting = image_index, running
    if waiting is not None:
        yield waiting[0], waiting[1].ended()


class _Running:
    """A search, run until it would wait for the first time."""

    def __init__(self, steps: Generator[None, None, Found]) -> None:
        self._steps = steps
        self._result: Found | None = None
        self._go_on()

    def _go_on(self) -> None:
        try:
            next(self._steps)
        except StopIteration as stop:
            self._result = stop.value

    def ended(self) -> Found:
        """Its result, once it has ended."""
        while self._result is None:
            self._go_on()
        return self._result


def _arrived(crops: Sequence[Found]) -> list[Candidates[Rle]]:
    """In order; the last one's masks are waited for first, and with them all that were queued before are there."""
    return [crop.arrived() for crop in reversed(crops)][::-1]


def _windows(image_HW3: Image_HW3, recipe: Recipe, prompts: Prompts) -> Iterator[_Window]:
    image_hw = _image_hw(image_HW3)
    check_region(recipe, prompts, image_hw)
    grids = grids_of(recipe, prompts)
    for crop in image_crops(image_hw, recipe):
        yield _Window(crop, crop_points(crop, grids, image_HW3, recipe, prompts.region_HW))


def _image_hw(image_HW3: Image_HW3) -> tuple[int, int]:
    if image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or image_HW3.dtype != np.uint8 or not image_HW3.size:
        raise ContractError(f"an image must be (H, W, 3) uint8 with pixels, not {image_HW3.shape} {image_HW3.dtype}")
    return image_HW3.shape[0], image_HW3.shape[1]
