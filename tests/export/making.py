"""Outputs whose masks have shapes, made from real images by the real worker: what exports are tried on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import StorageError
from pipeline.export.export import Exported, export
from pipeline.export.records import ExportSettings, Form
from pipeline.masks.points import EVERYTHING, Prompts
from pipeline.records import Attempt, Funnel, ImageMasks, ImageRow, Status
from pipeline.settings import Format, RunSettings, Settings, StoreSettings
from pipeline.storage.connect import RoutedStore, connect
from pipeline.storage.store import ObjectInfo, Store
from pipeline.work.chunk import WorkerContext, process_chunk
from pipeline.work.stopwatch import Stopwatch
from tests.fakes_run import as_png, write_tar
from tests.report.making import drawn_masks
from tests.small_runs import RECIPE, context_of, rows_of

NAMES = (
    "im0.png",
    "im1.png",
    "broken.png",
    "folder/one.png",
    "other/one.png",
    "Case.png",
    "case.png",
    "../up.png",
    "/absolute.png",
    "con.png",
    "image_3.png",
    "näme with blanks.png",
)
"""Of images in a tar: two of one base name, two that differ by case, and names that no file should have."""
STEMS = {
    "im0.png": "im0",
    "im1.png": "im1",
    "folder/one.png": "image_3",
    "other/one.png": "image_4",
    "Case.png": "image_5",
    "case.png": "image_6",
    "../up.png": "up",
    "/absolute.png": "absolute",
    "con.png": "image_9",
    "image_3.png": "image_10",
    "näme with blanks.png": "näme with blanks",
}
"""Name -> what its files are called. Every image here has its place in the tar as its id."""


def picture(seed: int) -> bytes:
    """A PNG, 60 to 140 pixels a side; one is of one colour, in which no mask is found."""
    dice = np.random.default_rng(seed)
    height, width = map(int, dice.integers(60, 140, 2))
    levels = np.full((height, width, 3), 7) if seed == 1 else dice.integers(0, 255, (height, width, 3))
    return as_png(Image.fromarray(levels.astype(np.uint8)))


def write_source(path: Path, names: Sequence[str] = NAMES) -> Path:
    images = {name: b"no image" if "broken" in name else picture(number) for number, name in enumerate(names)}
    return write_tar(path, images)


def draw_shapes(image_HW3: Any, _watch: Stopwatch, _prompts: Prompts = EVERYTHING, /) -> ImageMasks:
    """Ellipses, rectangles and rings that follow from the pixels; none on an image of one colour."""
    seed = int(image_HW3.astype(np.int64).sum())
    count = 12 if image_HW3.min() != image_HW3.max() else 0
    masks = drawn_masks(image_HW3.shape[:2], count, np.random.default_rng(seed))
    return ImageMasks(masks, Funnel(candidates=count, kept=count))


def make_output(
    source: Path, out: str, store: Store, *, format: Format = Format.PARQUET, chunks: int | None = None
) -> WorkerContext:
    """An output of the first chunks; of all of them without `chunks`."""
    settings = Settings(
        source=str(source), out=out, recipe=RECIPE, format=format, run=RunSettings(images_per_chunk=4, max_workers=1)
    )
    context = replace(context_of(settings, store), generate=draw_shapes)
    for chunk in list(context.plan.chunks())[:chunks]:
        process_chunk(Attempt(chunk), context)
    return context


def ok_rows(context: WorkerContext) -> list[ImageRow]:
    return [row for row in rows_of(context) if row.status is Status.OK]


def exported(
    context: WorkerContext, to: Path | str, form: Form, *, store: Store | None = None, **settings: Any
) -> Exported:
    return export(
        context.out, str(to), form=form, settings=ExportSettings(**settings), store=store or connect(StoreSettings())
    )


def files_at(to: Path) -> dict[str, bytes]:
    """Below `to`, without what the export keeps for itself."""
    found = {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith("_export/")}


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


class FailingStore(RoutedStore):
    """The usual stores, of which the n-th write fails, and every later one; counts the writes.

    One write after the other: nobody waits for the threads of an export that failed, and none of them may still write
    what it began before.
    """

    def __init__(self, settings: StoreSettings, fails_at: int) -> None:
        super().__init__(settings)
        self._lock, self._fails_at = threading.RLock(), fails_at
        self.written: list[str] = []

    def put_if_absent(self, uri: str, data: bytes) -> ObjectInfo | None:
        with self._lock:
            self._count(uri)
            return super().put_if_absent(uri, data)

    def put_stream(self, uri: str, pieces: Any) -> ObjectInfo:
        def cut() -> Iterator[bytes]:
            yield from pieces
            self._count(uri)

        with self._lock:
            return super().put_stream(uri, cut())

    def _count(self, uri: str) -> None:
        self.written.append(uri)
        if len(self.written) >= self._fails_at:
            raise StorageError(f"{uri}: the disk is full")
