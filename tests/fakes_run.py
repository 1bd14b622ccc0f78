"""Stand-ins for the run's seams: masks that cost microseconds, images that are drawn on the spot.

Importable by Ray workers as well as by tests, so it holds no fixtures; and without torch, which takes a worker three
seconds to import.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tarfile
import threading
import time
from collections.abc import Mapping
from functools import partial
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from pipeline.masks.points import EVERYTHING, Prompts
from pipeline.progress import Event, Standing
from pipeline.records import Funnel, ImageMasks, Mask, Stage
from pipeline.settings import Recipe, Settings, StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.store import Store
from pipeline.work.chunk import GenerateMasks
from pipeline.work.loading import Weights
from pipeline.work.stopwatch import Stopwatch

POISON_RGB = (255, 0, 255)
"""An image whose first pixel has this colour kills the process that segments it."""
TAR_PIT_RGB = (255, 0, 254)
"""And one with this colour keeps it for ever."""
GLUTTON_RGB = (254, 0, 255)
"""And one with this colour takes memory until somebody ends that, or it has GLUTTON_MIB."""
GLUTTON_MIB = 8 * 1024

Image_HW3 = npt.NDArray[np.uint8]
rle_of: Any = coco_mask.encode  # it has no types


class FakeGenerator:
    """Squares around the points of a grid, each with the score of the pixel under it: other pixels have other masks.

    What a worker has instead of a model and all that comes after it. One image at a time, as on a device.
    """

    def __init__(self, recipe: Recipe, *, seconds_per_image: float = 0.0, radius: int = 3) -> None:
        self._side = recipe.points_per_side
        self._thresh = recipe.pred_iou_thresh
        self._seconds = seconds_per_image
        self._radius = radius
        self._turn = threading.Lock()

    def __call__(self, image_HW3: Image_HW3, watch: Stopwatch, _prompts: Prompts = EVERYTHING, /) -> ImageMasks:
        with watch.stage(Stage.TURN):
            self._turn.acquire()
        try:
            with watch.stage(Stage.COMPUTE):
                self._work(image_HW3)
        finally:
            self._turn.release()
        with watch.stage(Stage.RLE):
            return self._masks(image_HW3)

    def _work(self, image_HW3: Image_HW3) -> None:
        time.sleep(self._seconds)
        first_rgb = tuple(int(value) for value in image_HW3[0, 0])
        if first_rgb == POISON_RGB:
            os.kill(os.getpid(), signal.SIGKILL)
        if first_rgb == TAR_PIT_RGB:
            time.sleep(1e6)
        if first_rgb == GLUTTON_RGB:
            take_memory()

    def _masks(self, image_HW3: Image_HW3) -> ImageMasks:
        height, width = image_HW3.shape[:2]
        masks: list[Mask] = []
        for row in range(self._side):
            for column in range(self._side):
                x, y = width * (2 * column + 1) / (2 * self._side), height * (2 * row + 1) / (2 * self._side)
                score = 0.85 + int(image_HW3[int(y), int(x)].sum()) / 5000
                if score > self._thresh:
                    masks.append(self._square((height, width), x, y, score))
        points = self._side**2
        return ImageMasks(
            tuple(masks), Funnel(candidates=points, low_predicted_iou=points - len(masks), kept=len(masks))
        )

    def _square(self, hw: tuple[int, int], x: float, y: float, score: float) -> Mask:
        mask_HW = np.zeros(hw, np.uint8, order="F")
        top, left = max(0, int(y) - self._radius), max(0, int(x) - self._radius)
        mask_HW[top : int(y) + self._radius + 1, left : int(x) + self._radius + 1] = 1
        area = int(mask_HW.sum())
        tall, wide = int(mask_HW.any(axis=1).sum()), int(mask_HW.any(axis=0).sum())
        return Mask(
            counts=rle_of(mask_HW)["counts"].decode(),
            bbox_xywh=(float(left), float(top), float(wide - 1), float(tall - 1)),
            area=area,
            predicted_iou=score,
            stability_score=1.0,
            point_xy=(x, y),
            crop_box_xywh=(0.0, 0.0, float(hw[1]), float(hw[0])),
            crop_layer=0,
            multimask_index=0,
        )


def take_memory() -> None:
    taken: list[Image_HW3] = []
    while len(taken) * 64 < GLUTTON_MIB:
        taken.append(np.ones((64, 1024, 1024), np.uint8))
        time.sleep(0.03)  # a watchman that looks twenty times a second shall see it coming
    raise RuntimeError("nobody minded")


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(f"{fullname} is not imported here", name=fullname)


def without_pandas() -> None:
    """For processes of a run alone. pyarrow imports pandas, where there is one, to ask whether a list is a series of
    it: half a second of every driver and worker, for an answer that is known."""
    sys.meta_path.insert(0, _NoPandas())


def load_fake(
    store: Store, recipe: Recipe, *, threads: int, shared: Path | None = None, seconds_per_image: float = 0.0
) -> GenerateMasks:
    """Fails on machines whose environment says FAKE_BROKEN_HERE."""
    if Path(sys.argv[0]).name == "default_worker.py":  # and not a test that works without Ray
        without_pandas()
    if os.environ.get("FAKE_BROKEN_HERE"):
        return load_broken(store, recipe, threads=threads, shared=shared)
    return FakeGenerator(recipe, seconds_per_image=seconds_per_image)


def load_broken(_store: Store, _recipe: Recipe, *, threads: int, shared: Path | None = None) -> GenerateMasks:
    raise RuntimeError("the accelerator is on fire")


def fake_weights(_settings: Settings, _store: Store, *, seconds_per_image: float = 0.0) -> Weights:
    return Weights(sha256="f" * 64, load=partial(load_fake, seconds_per_image=seconds_per_image))


def broken_weights(_settings: Settings, _store: Store) -> Weights:
    return Weights(sha256="f" * 64, load=load_broken)


def drawn_image(seed: int, *, first_rgb: tuple[int, int, int] | None = None) -> bytes:
    """A PNG of smooth noise, 40 to 60 pixels a side."""
    random = np.random.default_rng(seed)
    height, width = random.integers(40, 60, 2)
    small = Image.fromarray(random.integers(0, 255, (4, 5, 3), dtype=np.uint8))
    image = small.resize((int(width), int(height)), Image.Resampling.BILINEAR)
    if first_rgb is not None:
        image.putpixel((0, 0), first_rgb)
    return as_png(image)


def as_png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def write_folder(folder: Path, images: Mapping[str, bytes]) -> Path:
    for name, data in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_tar(path: Path, images: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in images.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


class ReadsNoted(RoutedStore):
    """The usual stores; remembers which parts were read."""

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(settings)
        self.parts_read: list[str] = []

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        if "/data/" in uri:
            self.parts_read.append(uri.rpartition("/")[2])
        return super().read(uri, offset=offset, length=length, etag=etag, limit=limit)


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


class Notes:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.events: list[tuple[Event, str, str]] = []
        self.standings: list[Standing] = []
        self.finishes: list[tuple[int, int]] = []
        self.fetches: list[tuple[str, int, int]] = []

    def show(self, standing: Standing) -> None:
        self.standings.append(standing)

    def show_finish(self, counted: int, parts: int) -> None:
        self.finishes.append((counted, parts))

    def show_fetch(self, name: str, done: int, size: int) -> None:
        self.fetches.append((name, done, size))

    def say(self, sentence: str, event: Event = Event.NOTE, *, chunk: str = "", node: str = "") -> None:
        self.sentences.append(sentence)
        self.events.append((event, chunk, node))

    def close(self) -> None:
        return
