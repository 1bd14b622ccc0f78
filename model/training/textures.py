"""Surfaces and outlines: what drawn things are made of.

Owns colours, patterns and shapes inside a region of interest. Does not know about scenes or ground truth.
Legend: h w pixels of a region; all randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]

TILE = 512
_EXPONENTS = (0.6, 0.9, 1.2, 1.5, 1.8, 2.2)
"""Amplitude falls with frequency^-exponent: natural images are near 1; higher is smoother (clouds, folds)."""


@lru_cache(maxsize=1)
def _noise_tiles() -> tuple[Image, ...]:
    """Noise of TILE x TILE in about [-1, 1], one tile per exponent; the same in every process."""
    rng = np.random.default_rng(2017)
    fy, fx = np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :]
    radius = np.sqrt(fy**2 + fx**2)
    radius[0, 0] = np.inf
    tiles: list[Image] = []
    for exponent in _EXPONENTS:
        spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE))) / radius**exponent
        tile = np.fft.irfft2(spectrum, s=(TILE, TILE))
        tiles.append((tile / (2.0 * tile.std())).astype(np.float32))
    return tuple(tiles)


def noise(rng: np.random.Generator, hw: tuple[int, int], *, smooth: bool) -> Image:
    """A random window of fractal noise, (h, w) in about [-1, 1]; `smooth` picks among the low-frequency tiles."""
    tiles = _noise_tiles()
    tile = tiles[int(rng.integers(3, len(tiles)) if smooth else rng.integers(0, 4))]
    zoom = float(np.exp(rng.uniform(0.0, 1.2)))
    side_h, side_w = min(TILE, max(2, int(hw[0] / zoom))), min(TILE, max(2, int(hw[1] / zoom)))
    y, x = int(rng.integers(0, TILE - side_h + 1)), int(rng.integers(0, TILE - side_w + 1))
    window = tile[y : y + side_h, x : x + side_w]
    if rng.random() < 0.5:
        window = window[:, ::-1]
    window = np.ascontiguousarray(window)
    return np.asarray(cv2.resize(window, (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def colour(rng: np.random.Generator) -> Image:
    """An RGB colour in [0, 255]: mostly muted, as in photographs, sometimes vivid."""
    hue, value = rng.uniform(0, 180), rng.uniform(25, 250)
    saturation = rng.beta(1.3, 2.8) * 255 if rng.random() < 0.75 else rng.uniform(120, 255)
    pixel = np.array([[[hue, saturation, value]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def surface(rng: np.random.Generator, hw: tuple[int, int], base_3: Image) -> Image:
    """An (h, w, 3) surface in [0, 255] around one base colour: a pattern of two colours, shading and grain."""
    strength = rng.beta(1.2, 2.5)
    second_3 = base_3 + (colour(rng) - base_3) * np.float32(strength)
    blend_hw = _pattern(rng, hw)
    rgb_hw3: Image = blend_hw[..., None] * (second_3 - base_3).astype(np.float32)
    rgb_hw3 += base_3
    if rng.random() < 0.7:
        rgb_hw3 *= (1.0 + np.float32(rng.uniform(0.05, 0.35)) * _shading(rng, hw))[..., None]
    if rng.random() < 0.6:
        rgb_hw3 += (np.float32(rng.uniform(3, 28)) * noise(rng, hw, smooth=False))[..., None]
    np.clip(rgb_hw3, 0, 255, out=rgb_hw3)
    return rgb_hw3


def lit(rng: np.random.Generator, rgb_hw3: Image) -> Image:
    """A surface, changed in place: at times under light that falls off."""
    if rng.random() < 0.5:
        rgb_hw3 *= (1.0 + np.float32(rng.uniform(0.05, 0.4)) * _shading(rng, rgb_hw3.shape[:2]))[..., None]
    np.clip(rgb_hw3, 0, 255, out=rgb_hw3)
    return rgb_hw3


def _grid(hw: tuple[int, int]) -> tuple[Image, Image]:
    y = np.arange(hw[0], dtype=np.float32)[:, None]
    x = np.arange(hw[1], dtype=np.float32)[None, :]
    return y, x


def _pattern(rng: np.random.Generator, hw: tuple[int, int]) -> Image:
    """A field in [0, 1]: flat, gradient, stripes, checks, spots or noise."""
    kind = rng.choice(6, p=(0.24, 0.18, 0.1, 0.06, 0.07, 0.35))
    y, x = _grid(hw)
    if kind == 0:
        return np.zeros(hw, np.float32)
    if kind == 5:
        return np.clip(0.5 + 0.6 * noise(rng, hw, smooth=bool(rng.random() < 0.4)), 0, 1)
    angle = rng.uniform(0, np.pi)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = c * x + s * y, c * y - s * x
    if kind == 1:
        span = max(1.0, float(np.ptp(along)))
        return ((along - along.min()) / np.float32(span)).astype(np.float32)
    period = np.float32(2 * np.pi / np.exp(rng.uniform(np.log(5), np.log(max(8.0, max(hw) / 2)))))
    if kind == 2:
        wave = np.sin(along * period + rng.uniform(0, 6))
    elif kind == 3:
        wave = np.sin(along * period) * np.sin(across * period) * 2
    else:
        wave = (np.cos(along * period) + np.cos(across * period) - rng.uniform(0.2, 1.2)) * 1.5
    hardness = np.float32(np.exp(rng.uniform(0, 2)))
    return np.clip(0.5 + hardness * wave.astype(np.float32), 0, 1)


def _shading(rng: np.random.Generator, hw: tuple[int, int]) -> Image:
    """A smooth field in about [-1, 1]: light from one side, a round body, or folds."""
    y, x = _grid(hw)
    y, x = y / max(1, hw[0] - 1) * 2 - 1, x / max(1, hw[1] - 1) * 2 - 1
    kind = rng.integers(0, 3)
    if kind == 0:
        angle = rng.uniform(0, 2 * np.pi)
        return (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
    if kind == 1:
        cy, cx = rng.uniform(-0.5, 0.5, 2)
        return (1.0 - 1.2 * ((y - cy) ** 2 + (x - cx) ** 2)).clip(-1.5, 1).astype(np.float32)
    return noise(rng, hw, smooth=True)


def outline(rng: np.random.Generator, hw: tuple[int, int]) -> Mask:
    """A random shape that fills most of an (h, w) region; uint8, 1 inside."""
    mask_hw = np.zeros(hw, np.uint8)
    kind = rng.choice(6, p=(0.2, 0.22, 0.2, 0.22, 0.1, 0.06))
    if kind == 0:
        _fill(mask_hw, _box(rng, rounded=bool(rng.random() < 0.5)))
    elif kind == 1:
        _fill(mask_hw, _ring(rng, points=48, roughness=0.0))
    elif kind == 2:
        _fill(mask_hw, _ring(rng, points=int(rng.integers(3, 9)), roughness=0.35))
    elif kind == 3:
        _fill(mask_hw, _ring(rng, points=48, roughness=rng.uniform(0.1, 0.4)))
    elif kind == 4:
        for _ in range(int(rng.integers(2, 4))):
            corner = rng.uniform(-1, 0.1, 2)
            part = _ring(rng, points=32, roughness=0.15) * 0.55
            _fill(mask_hw, part + corner + 0.45)
    else:
        _fill(mask_hw, _ring(rng, points=48, roughness=0.05))
        _fill(mask_hw, _ring(rng, points=48, roughness=0.05) * rng.uniform(0.3, 0.6), value=0)
    return mask_hw


def frayed(rng: np.random.Generator, mask_hw: Mask) -> Mask:
    """The mask with an outline as of fur, grass or torn paper."""
    reach = max(3, min(mask_hw.shape) // 8)
    soft_hw = cv2.blur(mask_hw.astype(np.float32), (reach, reach))
    rough_hw = soft_hw + np.float32(rng.uniform(0.1, 0.4)) * noise(rng, mask_hw.shape, smooth=False)
    return ((rough_hw > 0.5) & (soft_hw > 0)).astype(np.uint8)


def _fill(mask_hw: Mask, xy_N2: npt.NDArray[np.float64], value: int = 1) -> None:
    """Fill a polygon given in [-1, 1] over the whole region."""
    h, w = mask_hw.shape
    pixels = (np.clip(xy_N2, -1, 1) * 0.5 + 0.5) * np.array([w - 1, h - 1])
    cv2.fillPoly(mask_hw, [np.round(pixels).astype(np.int32)], value)


def _turn(xy_N2: npt.NDArray[np.float64], angle: float) -> npt.NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return xy_N2 @ np.array([[c, s], [-s, c]])


def _ring(rng: np.random.Generator, *, points: int, roughness: float) -> npt.NDArray[np.float64]:
    """A closed curve around the origin; roughness is the share by which its radius varies."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False) + rng.uniform(0, 6.3)
    if points < 12:
        t = t + rng.uniform(-0.5, 0.5, points) * (2 * np.pi / points)
        radius = 1 - roughness * rng.random(points)
    else:
        waves = range(2, 7)
        radius = 1 + sum(rng.normal() / k * roughness * np.sin(k * t + rng.uniform(0, 6.3)) for k in waves)
        radius = radius / np.max(np.abs(radius))
    return np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1)


def _box(rng: np.random.Generator, *, rounded: bool) -> npt.NDArray[np.float64]:
    """A rectangle, sometimes turned, sometimes a trapezium, sometimes with round corners."""
    corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    if rounded:
        t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        power = rng.uniform(0.15, 0.5)
        corner = np.stack(
            [np.sign(np.cos(t)) * np.abs(np.cos(t)) ** power, np.sign(np.sin(t)) * np.abs(np.sin(t)) ** power], 1
        )
    if rng.random() < 0.25:
        corner[:, 0] *= 1 - rng.uniform(0, 0.5) * (corner[:, 1] * 0.5 + 0.5)
    if rng.random() < 0.4:
        corner = _turn(corner, rng.uniform(-0.6, 0.6)) * 0.8
    return corner
