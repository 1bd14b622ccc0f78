"""Stand-ins for the run's seams: a segmenter that costs microseconds, images that are drawn on the spot.

Importable by Ray workers as well as by tests, so it holds no fixtures.
"""

from __future__ import annotations

import io
import os
import signal
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from model.point_decoder import Predictions
from pipeline.progress import Event, Standing
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.store import Store
from pipeline.work.weights import Weights

POISON_RGB = (255, 0, 255)
"""An image whose first pixel has this colour kills the process that segments it."""
TAR_PIT_RGB = (255, 0, 254)
"""And one with this colour keeps it for ever."""
GLUTTON_RGB = (254, 0, 255)
"""And one with this colour takes memory until somebody ends that, or it has GLUTTON_MIB."""
GLUTTON_MIB = 8 * 1024

Image_HW3 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FakeCrop:
    pixels_HW3: Image_HW3

    @property
    def crop_hw(self) -> tuple[int, int]:
        return self.pixels_HW3.shape[0], self.pixels_HW3.shape[1]

    @property
    def resized_hw(self) -> tuple[int, int]:
        scale = FakeSegmenter.input_side / max(self.crop_hw)
        return round(self.crop_hw[0] * scale), round(self.crop_hw[1] * scale)


class FakeSegmenter:
    """Three squares around every point; the score is the pixel under it, so that other pixels give other masks."""

    input_side = 64
    outputs_per_prompt = 3
    side = 16

    def __init__(self, seconds_per_image: float = 0.0) -> None:
        self._seconds = seconds_per_image

    def encode(self, crops_HW3: Sequence[Image_HW3]) -> list[FakeCrop]:
        for crop_HW3 in crops_HW3:
            time.sleep(self._seconds)
            first_rgb = tuple(int(value) for value in crop_HW3[0, 0])
            if first_rgb == POISON_RGB:
                os.kill(os.getpid(), signal.SIGKILL)
            if first_rgb == TAR_PIT_RGB:
                time.sleep(1e6)
            if first_rgb == GLUTTON_RGB:
                take_memory()
        return [FakeCrop(crop_HW3) for crop_HW3 in crops_HW3]

    def decode(self, crop: FakeCrop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float) -> Predictions:
        height, width = crop.crop_hw
        points, outputs, scores, logits = [], [], [], []
        for index, (x, y) in enumerate(points_xy_P2):
            value = int(crop.pixels_HW3[min(int(y), height - 1), min(int(x), width - 1)].sum())
            for output in range(3):
                score = 0.85 + value / 5000 + output / 1000
                if score > pred_iou_thresh:
                    points.append(index)
                    outputs.append(output)
                    scores.append(score)
                    logits.append(self._square(crop, x, y, radius=1 + output))
        empty_Nhw = torch.zeros(0, self.side, self.side)
        return Predictions(
            torch.tensor(points, dtype=torch.int64),
            torch.tensor(outputs, dtype=torch.int64),
            torch.tensor(scores, dtype=torch.float32),
            torch.stack(logits) if logits else empty_Nhw,
        )

    def _square(self, crop: FakeCrop, x: float, y: float, *, radius: int) -> torch.Tensor:
        cell = self.side / max(crop.crop_hw)
        column, row = int(x * cell), int(y * cell)
        logits_hw = torch.full((self.side, self.side), -10.0)
        logits_hw[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1] = 10.0
        return logits_hw


def take_memory() -> None:
    taken: list[Image_HW3] = []
    while len(taken) * 64 < GLUTTON_MIB:
        taken.append(np.ones((64, 1024, 1024), np.uint8))
        time.sleep(0.03)  # a watchman that looks twenty times a second shall see it coming
    raise RuntimeError("nobody minded")


def load_fake(store: Store, _shared: Path | None = None, *, seconds_per_image: float = 0.0) -> Any:
    """Fails on machines whose environment says FAKE_BROKEN_HERE."""
    return load_broken(store) if os.environ.get("FAKE_BROKEN_HERE") else FakeSegmenter(seconds_per_image)


def load_broken(_store: Store, _shared: Path | None = None) -> Any:
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

    def show(self, standing: Standing) -> None:
        self.standings.append(standing)

    def show_finish(self, counted: int, parts: int) -> None:
        self.finishes.append((counted, parts))

    def say(self, sentence: str, event: Event = Event.NOTE, *, chunk: str = "", node: str = "") -> None:
        self.sentences.append(sentence)
        self.events.append((event, chunk, node))

    def close(self) -> None:
        return
