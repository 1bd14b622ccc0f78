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

from model.training.textures import Image, Mask, colour, noise, outline, surface

LEVELS = 3
WHOLE, PART, SUBPART = range(LEVELS)
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
    """The scenes of one seed."""

    seed: int

    def scene(self, index: int) -> Scene:
        """See `SceneSource`."""
        return draw_scene(self.seed, index)


def draw_scene(seed: int, index: int, *, size_hw: tuple[int, int] = (384, 384)) -> Scene:
    """The scene with this number; the same pixels on every call."""
    canvas = _Canvas(np.random.default_rng([seed, index]), size_hw)
    rng = canvas.rng
    _background(canvas)
    if rng.random() < 0.35:
        cv2.blur(canvas.rgb_HW3, (int(rng.integers(3, 14)),) * 2, dst=canvas.rgb_HW3)
    side = min(size_hw)
    count = int(rng.integers(3, 13))
    sizes = np.exp(rng.uniform(np.log(0.07), np.log(0.8), count)) * side
    # Near things are drawn over far ones; large things are mostly far.
    for size in sizes[np.argsort(-sizes + rng.normal(0, 0.15 * side, count))]:
        family = rng.choice(4, p=(0.42, 0.28, 0.14, 0.16))
        (_single, _assembly, _facade, _crowd)[family](canvas, float(size))
    return Scene(canvas.finish(), canvas.labels_3HW)


def held_out_scene(number: int, *, size_hw: tuple[int, int] = (384, 384)) -> Scene:
    """A scene that no training sees."""
    return draw_scene(0, HELD_OUT_FROM + number, size_hw=size_hw)


class _Canvas:
    """The picture while it is drawn; later things hide earlier ones on every level."""

    def __init__(self, rng: np.random.Generator, size_hw: tuple[int, int]) -> None:
        self.rng = rng
        self.rgb_HW3: Image = np.zeros((*size_hw, 3), np.float32)
        self.labels_3HW = np.zeros((LEVELS, *size_hw), np.uint16)
        self.light = rng.uniform(-0.12, 0.12, 2)
        """Where shadows fall, as a share of a thing's size."""
        self._next_id = 1

    def region(self, size: float, aspect: float) -> tuple[int, int, int, int]:
        """(y, x, h, w) of a box of about size x size at a random place, partly outside at times."""
        height, width = self.rgb_HW3.shape[:2]
        h, w = max(8, round(size * aspect**0.5)), max(8, round(size / aspect**0.5))
        y = int(self.rng.integers(-h // 4, max(1, height - 3 * h // 4)))
        x = int(self.rng.integers(-w // 4, max(1, width - 3 * w // 4)))
        return y, x, h, w

    def paint(self, level: int, mask_hw: Mask, at_yx: tuple[int, int], *, like: float = 0.0) -> int:
        """Draw a thing whose mask's top left is at_yx; returns its id. `like` pulls its colour to what it hides."""
        y, x = at_yx
        height, width = self.rgb_HW3.shape[:2]
        y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + mask_hw.shape[0], height), min(x + mask_hw.shape[1], width)
        if y1 <= y0 or x1 <= x0:
            return 0
        mask_hw = mask_hw[y0 - y : y1 - y, x0 - x : x1 - x]
        under_hw3 = self.rgb_HW3[y0:y1, x0:x1]
        base_3 = colour(self.rng)
        if like:
            base_3 = base_3 + np.float32(like) * (under_hw3.mean(axis=(0, 1)) - base_3)
        top_hw3 = surface(self.rng, (y1 - y0, x1 - x0), base_3)
        alpha_hw = cv2.blur(mask_hw.astype(np.float32), (3, 3))[..., None]
        if self.rng.random() < 0.15:
            edge_hw = cv2.morphologyEx(mask_hw, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) * mask_hw
            top_hw3 *= 1 - np.float32(self.rng.uniform(0.2, 0.8)) * edge_hw[..., None]
        under_hw3 += alpha_hw * (top_hw3 - under_hw3)
        return self._claim(level, mask_hw, (y0, x0))

    def _claim(self, level: int, mask_hw: Mask, at_yx: tuple[int, int]) -> int:
        own, self._next_id = self._next_id, self._next_id + 1
        inside = mask_hw.astype(bool)
        labels_3hw = self.labels_3HW[:, at_yx[0] : at_yx[0] + mask_hw.shape[0], at_yx[1] : at_yx[1] + mask_hw.shape[1]]
        labels_3hw[level][inside] = own
        for finer in range(level + 1, LEVELS):
            labels_3hw[finer][inside] = 0
        return own

    def shadow(self, mask_hw: Mask, at_yx: tuple[int, int]) -> None:
        """Darken what lies beside a thing that is about to be drawn."""
        if self.rng.random() < 0.45:
            return
        h, w = mask_hw.shape
        pad = max(2, min(h, w) // 8)
        soft = cv2.blur(
            cv2.copyMakeBorder(mask_hw, pad, pad, pad, pad, cv2.BORDER_CONSTANT).astype(np.float32), (pad, pad)
        )
        dy, dx = (self.light * (h, w)).astype(int)
        y, x = at_yx[0] - pad + dy, at_yx[1] - pad + dx
        height, width = self.rgb_HW3.shape[:2]
        y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + soft.shape[0], height), min(x + soft.shape[1], width)
        if y1 > y0 and x1 > x0:
            dark = 1 - np.float32(self.rng.uniform(0.2, 0.65)) * soft[y0 - y : y1 - y, x0 - x : x1 - x]
            self.rgb_HW3[y0:y1, x0:x1] *= dark[..., None]

    def finish(self) -> npt.NDArray[np.uint8]:
        """The picture as uint8 with uneven light over all of it."""
        if self.rng.random() < 0.6:
            light_hw = noise(self.rng, (64, 64), smooth=True)
            light_HW = cv2.resize(light_hw, self.rgb_HW3.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            self.rgb_HW3 *= (1 + np.float32(self.rng.uniform(0.05, 0.3)) * light_HW)[..., None]
        return np.clip(self.rgb_HW3 + 0.5, 0, 255).astype(np.uint8)


def _background(canvas: _Canvas) -> None:
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


def _details(canvas: _Canvas, level: int, body_hw: Mask, at_yx: tuple[int, int], *, most: int) -> None:
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


def _single(canvas: _Canvas, size: float) -> None:
    """One body with a few parts on it."""
    y, x, h, w = canvas.region(size, _aspect(canvas.rng))
    body_hw = outline(canvas.rng, (h, w))
    canvas.shadow(body_hw, (y, x))
    canvas.paint(WHOLE, body_hw, (y, x), like=_likeness(canvas.rng))
    _details(canvas, PART, body_hw, (y, x), most=4)


def _assembly(canvas: _Canvas, size: float) -> None:
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


def _facade(canvas: _Canvas, size: float) -> None:
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


def _crowd(canvas: _Canvas, size: float) -> None:
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
