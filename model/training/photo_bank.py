"""Textures and cut-outs of photographs that scenes may be drawn with, and the file that a training reads them from.

Owns how a texture is laid and a cut-out chosen. Which photographs they are from is photo_cuts.py's.
Legend: H W pixels, L levels below the whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from model.training.textures import Image, Mask

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CutOut:
    """rgb_HW3 uint8; mask_HW 1 inside; parts_LHW ids of parts and of their parts, 0 for none, inside the mask.

    A silhouette has no colours of its own.
    """

    rgb_HW3: Pixels
    mask_HW: Mask
    parts_LHW: Mask
    is_silhouette: bool = False


@dataclass(frozen=True, slots=True)
class PhotoBank:
    """What photographs give to drawn scenes."""

    textures_HW3: tuple[Pixels, ...]
    cut_outs: tuple[CutOut, ...]

    def texture(self, rng: np.random.Generator, hw: tuple[int, int], base_3: Image) -> Image:
        """An (h, w, 3) float32 surface in [0, 255]: a window of a texture, turned, enlarged or in perspective, in its
        own colours or in those around `base_3`."""
        photo_HW3 = self.textures_HW3[int(rng.integers(len(self.textures_HW3)))]
        middle_2 = rng.uniform(0.2, 0.8, 2) * photo_HW3.shape[1::-1]
        angle, zoom = rng.uniform(0, 2 * np.pi), float(np.exp(rng.uniform(np.log(0.4), np.log(2.5))))
        c, s = np.cos(angle) / zoom, np.sin(angle) / zoom
        h, w = hw
        to_photo = np.array(
            [[c, -s, middle_2[0] - c * w / 2 + s * h / 2], [s, c, middle_2[1] - s * w / 2 - c * h / 2], [0, 0, 1]]
        )
        if rng.random() < 0.3:  # what lies above is farther away, as on a floor
            to_photo = to_photo @ np.array([[1, 0, 0], [0, 1, 0], [0, -rng.uniform(0.2, 0.7) / h, 1]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        rgb_hw3 = cv2.warpPerspective(photo_HW3, to_photo, (w, h), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        rgb_hw3 = rgb_hw3.astype(np.float32)
        if rng.random() < 0.5:
            light_hw = rgb_hw3.mean(axis=2)
            rgb_hw3 = (light_hw / max(20.0, float(light_hw.mean())))[..., None] * base_3
        mean_3 = rgb_hw3.mean(axis=(0, 1))
        contrast, gain = np.float32(rng.uniform(0.3, 1.1)), np.float32(np.exp(rng.normal(0, 0.25)))
        return np.clip(((rgb_hw3 - mean_3) * contrast + mean_3) * gain, 0, 255).astype(np.float32)

    def cut_out(self, rng: np.random.Generator) -> CutOut:
        """One at random, the larger the likelier, for of the small ones there are many."""
        sides = np.array([max(cut.mask_HW.shape) for cut in self.cut_outs], np.float64)
        return self.cut_outs[int(rng.choice(len(self.cut_outs), p=sides / sides.sum()))]


def write_bank(bank: PhotoBank, out: Path, licences: Mapping[str, str]) -> None:
    """One file with everything (.npz), and in it the licence of each photograph, by its file."""
    columns: dict[str, Any] = {f"texture_{number}": each for number, each in enumerate(bank.textures_HW3)}
    for number, cut in enumerate(bank.cut_outs):
        layers = np.concatenate([cut.rgb_HW3, cut.mask_HW[..., None], cut.parts_LHW.transpose(1, 2, 0)], axis=2)
        columns[f"{'silhouette' if cut.is_silhouette else 'thing'}_{number}"] = layers
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, licences=np.array(json.dumps(dict(licences))), **columns)


@lru_cache(maxsize=1)
def read_bank(path: str) -> PhotoBank:
    """What `write_bank` wrote; once a process."""
    with np.load(path) as columns:
        textures = tuple(columns[name] for name in columns.files if name.startswith("texture_"))
        layered = [(name, columns[name]) for name in columns.files if name.startswith(("thing_", "silhouette_"))]
    cut_outs = tuple(
        CutOut(
            np.ascontiguousarray(layers[..., :3]),
            np.ascontiguousarray(layers[..., 3]),
            np.ascontiguousarray(layers[..., 4:].transpose(2, 0, 1)),
            is_silhouette=name.startswith("silhouette_"),
        )
        for name, layers in layered
    )
    return PhotoBank(textures, cut_outs)
