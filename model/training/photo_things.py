"""What photographs add to a drawn scene besides surfaces: things cut out of them, and what is out of focus."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from model.training.canvas import Canvas
from model.training.photo_bank import CutOut, PhotoBank
from model.training.textures import colour, lit


def cut_outs(canvas: Canvas, size: float, bank: PhotoBank) -> None:
    """Something from a photograph, once or several times side by side."""
    rng = canvas.rng
    cut = bank.cut_out(rng)
    count = int(rng.integers(2, 6)) if rng.random() < 0.3 else 1
    size = size if count == 1 else min(size, 0.3 * min(canvas.rgb_HW3.shape[:2]))
    y, x, _, _ = canvas.region(size, 1.0)
    for _ in range(count):
        copy = _changed(rng, cut, size, bank)
        canvas.shadow(copy.mask_HW, (y, x))
        canvas.paste(copy, (y, x))
        y, x = (int(v) for v in rng.normal((y, x), 0.9 * size))


def _changed(rng: np.random.Generator, cut: CutOut, size: float, bank: PhotoBank) -> CutOut:
    """The cut-out with a longer side of `size`, mirrored, turned a little, in other light."""
    height, width = cut.mask_HW.shape
    scale = size / max(height, width)
    h, w = max(8, round(height * scale)), max(8, round(width * scale))
    angle, mirror = float(rng.normal(0, 12)), bool(rng.random() < 0.5)
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), angle, 0.9)

    def moved(array: npt.NDArray[np.uint8], shrink: int, enlarge: int) -> npt.NDArray[np.uint8]:
        sized = cv2.resize(array, (w, h), interpolation=shrink if scale < 1 else enlarge)
        turned = cv2.warpAffine(sized, turn, (w, h), flags=enlarge, borderMode=cv2.BORDER_CONSTANT)
        return np.ascontiguousarray(turned[:, ::-1] if mirror else turned, np.uint8)

    nearest = cv2.INTER_NEAREST
    mask_hw = moved(cut.mask_HW, nearest, nearest)
    parts_Lhw = np.stack([moved(parts_HW, nearest, nearest) for parts_HW in cut.parts_LHW]) * mask_hw
    if cut.is_silhouette:
        rgb_hw3 = lit(rng, bank.texture(rng, (h, w), colour(rng)))
    else:
        rgb_hw3 = moved(cut.rgb_HW3, cv2.INTER_AREA, cv2.INTER_LINEAR) * np.exp(rng.normal(0, 0.12, 3))
    rgb_hw3 = np.clip(rgb_hw3 * np.exp(rng.normal(0, 0.2)), 0, 255).astype(np.uint8)
    return CutOut(rgb_hw3, mask_hw, parts_Lhw)


def out_of_focus(canvas: Canvas) -> None:
    """Blur what is there, which is farther than all that comes."""
    cv2.GaussianBlur(canvas.rgb_HW3, (0, 0), float(canvas.rng.uniform(0.6, 3.0)), dst=canvas.rgb_HW3)
