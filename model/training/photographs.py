"""A camera's flaws: exposure, colour cast, contrast, blur, grain and JPEG."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def photograph(rgb_hw3: Pixels, rng: np.random.Generator) -> Pixels:
    """The same view as a camera might have kept it; every flaw at random."""
    rgb_hw3 = _expose(rgb_hw3, rng)
    if rng.random() < 0.06:
        rgb_hw3 = np.asarray(cv2.cvtColor(cv2.cvtColor(rgb_hw3, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
    if rng.random() < 0.35:
        rgb_hw3 = np.asarray(cv2.GaussianBlur(rgb_hw3, (0, 0), float(rng.uniform(0.3, 1.3))), np.uint8)
    if rng.random() < 0.4:
        grain = rng.standard_normal(rgb_hw3.shape[:2], np.float32)[..., None] * np.float32(rng.uniform(2, 12))
        rgb_hw3 = np.clip(rgb_hw3 + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.35:
        rgb_hw3 = jpeg_and_back(rgb_hw3, quality=int(rng.integers(35, 95)))
    return rgb_hw3


def jpeg_and_back(rgb_hw3: Pixels, *, quality: int) -> Pixels:
    """What is left of a picture that was kept as a JPEG file."""
    data = jpeg(rgb_hw3, quality=quality)
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)[..., ::-1]


def jpeg(rgb_hw3: Pixels, *, quality: int) -> bytes:
    """The bytes of a JPEG file."""
    _, data = cv2.imencode(".jpg", rgb_hw3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def _expose(rgb_hw3: Pixels, rng: np.random.Generator) -> Pixels:
    """Gamma, gain per channel and contrast, as one table of 256 values per channel."""
    table_N3 = np.arange(256, dtype=np.float64)[:, None] / 255
    table_N3 = table_N3 ** np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.1, 3)) * np.exp(rng.normal(0, 0.12))
    table_N3 = np.clip((table_N3 - 0.5) * np.exp(rng.normal(0, 0.15)) + 0.5, 0, 1) * 255
    return np.asarray(cv2.LUT(np.ascontiguousarray(rgb_hw3), table_N3.astype(np.uint8)[None]), np.uint8)
