"""A picture while it is drawn, and which pixels belong to what.

Owns how a thing hides what is behind it, on every level, its shadow and the light over all. Others say what is drawn.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from model.training.photo_bank import CutOut, PhotoBank
from model.training.photographs import jpeg_and_back
from model.training.textures import Image, Mask, colour, frayed, lit, noise, surface

LEVELS = 3
WHOLE, PART, SUBPART = range(LEVELS)


class Canvas:
    """Later things hide earlier ones on every level. With a `bank` some surfaces are photographs, some edges frayed."""

    def __init__(self, rng: np.random.Generator, size_hw: tuple[int, int], bank: PhotoBank | None) -> None:
        self.rng = rng
        self.bank = bank
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
        if self.bank and self.rng.random() < 0.12:
            mask_hw = frayed(self.rng, mask_hw)
        visible = self._visible(mask_hw.shape, at_yx)
        if visible is None:
            return 0
        y0, x0, y1, x1 = visible
        mask_hw = mask_hw[y0 - at_yx[0] : y1 - at_yx[0], x0 - at_yx[1] : x1 - at_yx[1]]
        under_hw3 = self.rgb_HW3[y0:y1, x0:x1]
        base_3 = colour(self.rng)
        if like:
            base_3 = base_3 + np.float32(like) * (under_hw3.mean(axis=(0, 1)) - base_3)
        if self.bank and self.rng.random() < 0.6:
            top_hw3 = lit(self.rng, self.bank.texture(self.rng, (y1 - y0, x1 - x0), base_3))
        else:
            top_hw3 = surface(self.rng, (y1 - y0, x1 - x0), base_3)
        softness = 3 + 2 * int(self.rng.integers(0, 3)) if self.bank else 3
        alpha_hw = cv2.blur(mask_hw.astype(np.float32), (softness, softness))[..., None]
        if self.rng.random() < 0.15:
            edge_hw = cv2.morphologyEx(mask_hw, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) * mask_hw
            top_hw3 *= 1 - np.float32(self.rng.uniform(0.2, 0.8)) * edge_hw[..., None]
        # In place, for most of the time of a scene goes to memory.
        top_hw3 -= under_hw3
        top_hw3 *= alpha_hw
        under_hw3 += top_hw3
        return self._claim(level, mask_hw, (y0, x0))

    def paste(self, cut: CutOut, at_yx: tuple[int, int]) -> None:
        """Put a cut-out, with its parts, where its top left is at_yx."""
        visible = self._visible(cut.mask_HW.shape, at_yx)
        if visible is None:
            return
        y0, x0, y1, x1 = visible
        window = slice(y0 - at_yx[0], y1 - at_yx[0]), slice(x0 - at_yx[1], x1 - at_yx[1])
        mask_hw = np.ascontiguousarray(cut.mask_HW[window])
        under_hw3 = self.rgb_HW3[y0:y1, x0:x1]
        under_hw3 += cv2.blur(mask_hw.astype(np.float32), (3, 3))[..., None] * (cut.rgb_HW3[window] - under_hw3)
        self._claim(WHOLE, mask_hw, (y0, x0))
        for level, parts_hw in zip((PART, SUBPART), cut.parts_LHW[:, *window], strict=True):
            for part in np.unique(parts_hw[parts_hw > 0]):
                self._claim(level, (parts_hw == part).astype(np.uint8), (y0, x0))

    def _visible(self, hw: tuple[int, ...], at_yx: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """(y0, x0, y1, x1) of the part of a region that is in the picture; None if nothing is."""
        (y, x), (height, width) = at_yx, self.rgb_HW3.shape[:2]
        y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + hw[0], height), min(x + hw[1], width)
        return (y0, x0, y1, x1) if y1 > y0 and x1 > x0 else None

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
        rgb_HW3 = np.clip(self.rgb_HW3 + 0.5, 0, 255).astype(np.uint8)
        if self.bank and self.rng.random() < 0.3:
            return jpeg_and_back(rgb_HW3, quality=int(self.rng.integers(35, 95)))
        return rgb_HW3
