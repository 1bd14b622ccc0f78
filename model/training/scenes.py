"""Drawn scenes with three nested levels of ground truth: wholes, their parts, the parts' parts.

Owns what is in a picture and which pixels belong to what. Deterministic by (seed, index). Every pixel belongs to one
whole (the background is cut into wholes too); a part's visible pixels always lie inside its whole's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from model.training.canvas import LEVELS, PART, SUBPART, WHOLE, Canvas
from model.training.photo_bank import PhotoBank, read_bank
from model.training.photo_things import cut_outs, out_of_focus
from model.training.textures import Mask, noise, outline

HELD_OUT_FROM = 1_000_000_000
"""Scene indices from here on are never trained on."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture and its truth.

    rgb_HW3      uint8
    labels_3HW   uint16, per level (whole, part, subpart) an id; 0 where the level has nothing
    """

    rgb_HW3: npt.NDArray[np.uint8]
    labels_3HW: npt.NDArray[np.uint16]


class SceneSource(Protocol):
    """Scenes by number, without end; pickles, for scenes are made in processes of their own."""

    def scene(self, index: int) -> Scene:
        """The scene with this number; the same on every call."""
        ...


@dataclass(frozen=True)
class DrawnScenes:
    """The scenes of one seed. With a file of photographs (photo_bank.py) a share has its textures and things."""

    seed: int
    photographs: str = ""
    share: float = 0.5

    def scene(self, index: int) -> Scene:
        """See `SceneSource`."""
        if self.photographs and np.random.default_rng([self.seed, index, 13]).random() < self.share:
            return draw_scene(self.seed, index, bank=read_bank(self.photographs))
        return draw_scene(self.seed, index)


def draw_scene(seed: int, index: int, *, size_hw: tuple[int, int] = (384, 384), bank: PhotoBank | None = None) -> Scene:
    """The scene with this number; the same pixels on every call."""
    canvas = Canvas(np.random.default_rng([seed, index]), size_hw, bank)
    rng = canvas.rng
    _background(canvas)
    if rng.random() < 0.35:
        cv2.blur(canvas.rgb_HW3, (int(rng.integers(3, 14)),) * 2, dst=canvas.rgb_HW3)
    side = min(size_hw)
    count = int(rng.integers(3, 13))
    sizes = np.exp(rng.uniform(np.log(0.07), np.log(0.8), count)) * side
    # Near things are drawn over far ones; large things are mostly far.
    for size in sizes[np.argsort(-sizes + rng.normal(0, 0.15 * side, count))]:
        if bank and rng.random() < 0.1:
            out_of_focus(canvas)
        if bank and rng.random() < 0.25:
            cut_outs(canvas, float(size), bank)
            continue
        family = rng.choice(4, p=(0.42, 0.28, 0.14, 0.16))
        (_single, _assembly, _facade, _crowd)[family](canvas, float(size))
    return Scene(canvas.finish(), canvas.labels_3HW)


def held_out_scene(number: int, *, size_hw: tuple[int, int] = (384, 384)) -> Scene:
    """A scene that no training sees."""
    return draw_scene(0, HELD_OUT_FROM + number, size_hw=size_hw)


def _background(canvas: Canvas) -> None:
    """One to four regions: a wall, sky over ground, walls in a corner."""
    rng, (height, width) = canvas.rng, canvas.rgb_HW3.shape[:2]
    canvas.paint(WHOLE, np.ones((height, width), np.uint8), (0, 0))
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    for _ in range(int(rng.choice(4, p=(0.3, 0.4, 0.2, 0.1)))):
        angle = rng.normal(0, 0.15) + (np.pi / 2 if rng.random() < 0.3 else 0)
        distance = (y - height * rng.uniform(0.15, 0.85)) * np.cos(angle) - (
            x - width * rng.uniform(0.2, 0.8)
        ) * np.sin(angle)
        if rng.random() < 0.4:
            distance = distance + noise(rng, (height, width), smooth=True) * height * rng.uniform(0.02, 0.12)
        canvas.paint(WHOLE, (distance > 0).astype(np.uint8), (0, 0), like=0.3 * rng.random())


def _likeness(rng: np.random.Generator) -> float:
    """How much a thing resembles what is behind it: often not at all, sometimes nearly the same."""
    return float(rng.uniform(0.5, 0.9)) if rng.random() < 0.3 else 0.0


def _aspect(rng: np.random.Generator) -> float:
    return float(np.exp(rng.normal(0, 0.45)))


def _details(canvas: Canvas, level: int, body_hw: Mask, at_yx: tuple[int, int], *, most: int) -> None:
    """Draw up to `most` things of this level inside a body, each with details of its own."""
    rng, (h, w) = canvas.rng, body_hw.shape
    if level >= LEVELS or min(h, w) < 12:
        return
    for _ in range(int(rng.integers(0, most + 1))):
        part_hw = np.zeros_like(body_hw)
        if rng.random() < 0.3:
            low, high = sorted(rng.uniform(0, 1, 2))
            if rng.random() < 0.5:
                part_hw[int(low * h) : int(high * h)] = 1
            else:
                part_hw[:, int(low * w) : int(high * w)] = 1
        else:
            ph, pw = max(5, int(h * rng.uniform(0.15, 0.6))), max(5, int(w * rng.uniform(0.15, 0.6)))
            py, px = int(rng.integers(0, max(1, h - ph))), int(rng.integers(0, max(1, w - pw)))
            part_hw[py : py + ph, px : px + pw] = outline(rng, (ph, pw))
        part_hw &= body_hw
        box = cv2.boundingRect(part_hw)
        if part_hw.sum() < 30:
            continue
        x, y, pw, ph = box
        part_hw = np.ascontiguousarray(part_hw[y : y + ph, x : x + pw])
        place = at_yx[0] + y, at_yx[1] + x
        canvas.paint(level, part_hw, place, like=_likeness(rng))
        _details(canvas, level + 1, part_hw, place, most=2)


def _single(canvas: Canvas, size: float) -> None:
    """One body with a few parts on it."""
    y, x, h, w = canvas.region(size, _aspect(canvas.rng))
    body_hw = outline(canvas.rng, (h, w))
    canvas.shadow(body_hw, (y, x))
    canvas.paint(WHOLE, body_hw, (y, x), like=_likeness(canvas.rng))
    _details(canvas, PART, body_hw, (y, x), most=4)


def _assembly(canvas: Canvas, size: float) -> None:
    """A whole put together from overlapping parts (limbs and trunk, body and wheels)."""
    rng = canvas.rng
    y, x, h, w = canvas.region(size, _aspect(rng))
    pieces: list[tuple[Mask, int, int]] = []
    for _ in range(int(rng.integers(2, 6))):
        ph, pw = max(6, int(h * rng.uniform(0.3, 0.75))), max(6, int(w * rng.uniform(0.3, 0.75)))
        py = int(np.clip(rng.normal((h - ph) / 2, h / 5), 0, h - ph))
        px = int(np.clip(rng.normal((w - pw) / 2, w / 5), 0, w - pw))
        pieces.append((outline(rng, (ph, pw)), py, px))
    union_hw = np.zeros((h, w), np.uint8)
    for piece_hw, py, px in pieces:
        union_hw[py : py + piece_hw.shape[0], px : px + piece_hw.shape[1]] |= piece_hw
    canvas.shadow(union_hw, (y, x))
    canvas.paint(WHOLE, union_hw, (y, x))
    related = float(rng.uniform(0, 0.7))
    for piece_hw, py, px in pieces:
        canvas.paint(PART, piece_hw, (y + py, x + px), like=related)
        _details(canvas, SUBPART, piece_hw, (y + py, x + px), most=2)


def _facade(canvas: Canvas, size: float) -> None:
    """A body with a grid of equal parts (windows, keys, tiles), each with one subpart at times."""
    rng = canvas.rng
    y, x, h, w = canvas.region(size, _aspect(rng))
    body_hw = np.ones((h, w), np.uint8) if rng.random() < 0.6 else outline(rng, (h, w))
    canvas.shadow(body_hw, (y, x))
    canvas.paint(WHOLE, body_hw, (y, x))
    rows, columns = (int(n) for n in rng.integers(1, 5, 2))
    fill = rng.uniform(0.4, 0.85)
    ch, cw = h // rows, w // columns
    ph, pw = int(ch * fill), int(cw * fill)
    if min(ph, pw) < 6:
        return
    cell_hw = outline(rng, (ph, pw)) if rng.random() < 0.5 else np.ones((ph, pw), np.uint8)
    state = rng.bit_generator.state
    for row in range(rows):
        for column in range(columns):
            if rows * columns > 2:
                rng.bit_generator.state = state  # The same surface for every cell.
            py, px = row * ch + (ch - ph) // 2, column * cw + (cw - pw) // 2
            part_hw = cell_hw & body_hw[py : py + ph, px : px + pw]
            canvas.paint(PART, part_hw, (y + py, x + px))
            _details(canvas, SUBPART, part_hw, (y + py, x + px), most=1)


def _crowd(canvas: Canvas, size: float) -> None:
    """Several wholes of one kind close together (fruit, pebbles, books)."""
    rng = canvas.rng
    size = min(size, 0.25 * min(canvas.rgb_HW3.shape[:2]))
    aspect = _aspect(rng)
    cy, cx, _, _ = canvas.region(size, aspect)
    for _ in range(int(rng.integers(3, 8))):
        h, w = max(8, int(size * aspect**0.5)), max(8, int(size / aspect**0.5))
        body_hw = outline(rng, (h, w))
        y, x = (int(v) for v in rng.normal((cy, cx), 1.5 * size))
        canvas.shadow(body_hw, (y, x))
        canvas.paint(WHOLE, body_hw, (y, x))
        _details(canvas, PART, body_hw, (y, x), most=1)
