"""One image through every step of the generator, in pictures: `python -m jobs.explain image=... [recipe=...]`.

Calls the generator as a run does, in this process and without Ray, and writes one HTML page. Exit codes: 0 the page is
written; 2 the image, the weights or a setting cannot be used, or the page cannot be written.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.command import run_command
from jobs.pages import asked_path, check_page, open_page, write_page
from pipeline.errors import ConfigError, InputError, StorageError
from pipeline.explain.explanation import explain
from pipeline.explain.page import page
from pipeline.masks.points import Prompts
from pipeline.masks.segmenter import Segmenter
from pipeline.plan.point_grid import read_point_grid
from pipeline.progress import progress_on
from pipeline.settings import Depth, ModelSettings, Recipe, RunSettings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.images import decode_image
from pipeline.storage.store import Store
from pipeline.storage.uris import absolute, base_name
from pipeline.texts import counted, printable
from pipeline.work.device import fix_torch
from pipeline.work.regions import Regions
from pipeline.work.released import with_weights_here
from pipeline.work.weights import checked_weights, load_model


@dataclass(frozen=True)
class ExplainJob:
    """What the command takes."""

    image: str = ""
    """One image file: a path or s3:// URI."""
    explain: str = ""
    """Where the page is written, a path that ends in .html. Without it <name of the image>-explain.html in the current
    folder."""
    max_pixels: int = RunSettings.max_pixels
    """As run.max_pixels."""
    max_bytes: int = RunSettings.max_bytes
    """As run.max_bytes."""
    depth: Depth = Depth.SCALE
    """As image.depth."""
    threads: int = RunSettings.threads_per_worker
    """As run.threads_per_worker: sums, and so some masks, depend on it."""
    recipe: Recipe = field(default_factory=Recipe)
    """The command line's default is recipe=sa1b, as of a run."""
    model: ModelSettings = field(default_factory=ModelSettings)
    store: StoreSettings = field(default_factory=lambda: StoreSettings(retry_deadline_s=20.0, answer_timeout_s=10.0))
    """Somebody is waiting: a store that does not answer is given up earlier than in a run."""


def explain_image(job: ExplainJob) -> int:
    """Find the image's masks, write the page, say where it is, open it where there is a desktop."""
    if not job.image:
        raise ConfigError("say which image: image=...")
    if job.threads < 1:
        raise ConfigError(f"threads={job.threads} must be 1 or more")
    store, uri = connect(job.store), absolute(job.image)
    path = _page_path(uri, job.explain)
    check_page(path, setting="explain")
    image_HW3 = _pixels(uri, store, job)
    fix_torch(job.threads)
    segmenter = _segmenter(job.model, store)
    explanation = explain(image_HW3, segmenter, job.recipe, _prompts(job, uri, store, image_HW3))
    text = page(explanation, image_HW3, name=base_name(uri), model=f"{job.model.name}, {job.model.precision}")
    write_page(path, text, setting="explain")
    funnel = explanation.result.funnel
    said = f"{counted(funnel.candidates, 'candidate')}, {counted(funnel.kept, 'mask')}"
    sys.stdout.write(printable(f"Maskmill: {said}: {path}") + "\n")
    open_page(path)
    return 0


def _page_path(uri: str, asked: str) -> Path:
    """raises  ConfigError if `asked` is no name of a page"""
    if not asked:
        return Path.cwd() / f"{Path(base_name(uri)).stem.replace('/', '_').lstrip('.') or 'image'}-explain.html"
    return asked_path(asked, setting="explain")


def _pixels(uri: str, store: Store, job: ExplainJob) -> npt.NDArray[np.uint8]:
    """As a run decodes them."""
    try:
        return decode_image(store.read(uri, limit=job.max_bytes), max_pixels=job.max_pixels, depth=job.depth).rgb_HW3
    except InputError as error:
        raise ConfigError(f"image={uri} cannot be used: {error.status}, {error.reason}") from error
    except StorageError as error:
        raise ConfigError(f"image={uri} cannot be read: {error}") from error


def _prompts(job: ExplainJob, uri: str, store: Store, image_HW3: npt.NDArray[np.uint8]) -> Prompts:
    """As a run reads them; the image's name is its own, without folders."""
    point_grid = read_point_grid(job.recipe.point_grid, store)
    grids = None if point_grid is None else point_grid.by_layer(job.recipe)
    if job.recipe.roi is None:
        return Prompts(grids)
    regions = Regions(absolute(job.recipe.roi), store, job.max_pixels, job.max_bytes)
    try:
        return Prompts(grids, regions.read(base_name(uri)).pixels((image_HW3.shape[0], image_HW3.shape[1])))
    except (InputError, StorageError) as error:
        raise ConfigError(f"recipe.roi={job.recipe.roi} cannot be used for image={uri}: {error}") from error


def _segmenter(model: ModelSettings, store: Store) -> Segmenter[Any]:
    model = with_weights_here(model, progress_on(sys.stderr))
    if model.checkpoint is not None:
        model = replace(model, checkpoint=absolute(model.checkpoint))
    try:
        return load_model(model, checked_weights(model, store).sha256, store)
    except StorageError as error:
        raise ConfigError(f"model.checkpoint={model.checkpoint} cannot be read: {error}") from error


def main() -> int:
    return run_command("explain", ExplainJob, explain_image)


if __name__ == "__main__":
    sys.exit(main())
