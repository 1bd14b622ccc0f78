"""Cuts textures and things out of the example photographs of two Python packages.

Owns which photographs, with their licences, and what of each is used. scikit-image and scikit-learn have to be
installed where this is done, and nowhere else. Legend: H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from model.training.photo_bank import CutOut, PhotoBank, Pixels, read_bank, write_bank
from model.training.textures import Mask

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""
Ellipse = tuple[int, int, int, int, int]
"""x and y of the middle, the radii along x and y in pixels, the level: 0 a part of the whole, 1 a part of that."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A file in a package.

    textures   boxes that show one material each
    around     box that holds the thing to be cut out; None if there is none
    surely     boxes inside the thing
    never      boxes beside it
    parts      of the thing
    """

    file: str
    licence: str
    textures: Sequence[Box] = ()
    around: Box | None = None
    surely: Sequence[Box] = ()
    never: Sequence[Box] = ()
    parts: Sequence[Ellipse] = ()


CC0 = "CC0"
_FULL = (0, 0, 512, 512)
PHOTOGRAPHS = (
    Photograph(
        file="skimage/data/astronaut.png",
        licence="NASA Great Images, public domain",
        textures=[(60, 290, 110, 60)],
        around=(20, 5, 480, 507),
        surely=[(150, 200, 150, 250), (190, 60, 60, 110), (320, 370, 120, 100), (60, 300, 120, 180)],
        never=[(0, 0, 90, 120), (290, 0, 222, 250), (0, 120, 60, 60)],
        parts=[(172, 390, 38, 42, 0)],
    ),
    Photograph(file="skimage/data/brick.png", licence=f"{CC0}, CC0Textures Bricks25", textures=[_FULL]),
    Photograph(
        file="skimage/data/grass.png",
        licence=f"{CC0}, linolafett (deviantart.com/linolafett/art/Grass-01-434853879)",
        textures=[_FULL],
    ),
    Photograph(file="skimage/data/gravel.png", licence=f"{CC0}, CC0Textures Gravel04", textures=[_FULL]),
    Photograph(
        file="skimage/data/camera.png",
        licence=f"{CC0}, Lav Varshney",
        textures=[(430, 360, 82, 150)],
        around=(20, 60, 340, 450),
        surely=[(60, 170, 80, 200), (150, 110, 50, 50)],
        never=[(0, 0, 512, 50)],
    ),
    Photograph(
        file="skimage/data/chelsea.png",
        licence=f"{CC0}, Stefan van der Walt",
        textures=[(180, 20, 90, 60), (390, 60, 60, 200)],
        around=(40, 0, 350, 300),
        surely=[(120, 60, 170, 200)],
        never=[(400, 0, 51, 300)],
        parts=[(172, 113, 33, 31, 0), (319, 113, 26, 28, 0), (264, 245, 26, 18, 0)],
    ),
    Photograph(
        file="skimage/data/coffee.png",
        licence=f"{CC0}, Rachel Michetti",
        textures=[(0, 100, 60, 300), (530, 0, 70, 300)],
        around=(100, 5, 400, 390),
        surely=[(230, 60, 120, 120), (330, 200, 70, 130)],
        never=[(0, 0, 90, 400), (510, 0, 90, 400)],
        parts=[(290, 111, 118, 95, 0), (288, 140, 84, 52, 1)],
    ),
    Photograph(file="skimage/data/ihc.png", licence="no known copyright restrictions", textures=[_FULL]),
    Photograph(file="skimage/data/hubble_deep_field.jpg", licence="NASA, public domain", textures=[(0, 0, 1000, 872)]),
    Photograph(
        file="skimage/data/retina.jpg",
        licence=f"{CC0}, Mikael Häggström (doi:10.15347/wjm/2014.008)",
        textures=[(400, 400, 600, 600)],
        around=(5, 5, 1400, 1400),
        surely=[(300, 300, 800, 800)],
    ),
    Photograph(
        file="skimage/data/rocket.jpg",
        licence="SpaceX, public domain",
        textures=[(350, 10, 180, 120)],
        around=(300, 130, 50, 290),
        surely=[(317, 200, 12, 180)],
    ),
    Photograph(
        file="sklearn/datasets/images/china.jpg",
        licence="CC BY 2.0, danielbuechele (flickr.com/photos/danielbuechele/6061409035)",
        textures=[(430, 20, 200, 120), (380, 340, 250, 80)],
        around=(60, 20, 300, 390),
        surely=[(140, 150, 120, 200)],
        never=[(340, 0, 300, 427), (0, 0, 40, 427)],
    ),
    Photograph(
        file="sklearn/datasets/images/flower.jpg",
        licence="CC BY 2.0, vultilion (flickr.com/photos/vultilion/6056698931)",
        textures=[(0, 0, 150, 427), (250, 150, 110, 110)],
        around=(160, 70, 320, 310),
        surely=[(230, 140, 150, 150)],
    ),
)
COINS = Photograph(file="skimage/data/coins.png", licence="no known copyright restrictions")
HORSE = Photograph(file="skimage/data/horse.png", licence=f"{CC0}, Andreas Preuss")
LARGEST = 384
"""Pixels: a longer side of a texture or cut-out is brought down to this."""


def gather(out: Path) -> PhotoBank:
    """Cut textures and things out of the installed packages' photographs, and write them to `out` (.npz).

    raises  FileNotFoundError if a package or a photograph is missing
    """
    textures: list[Pixels] = []
    cut_outs: list[CutOut] = []
    for photograph in PHOTOGRAPHS:
        rgb_HW3 = _read(photograph)
        textures += [_shrunk(_boxed(rgb_HW3, box)) for box in photograph.textures]
        if photograph.around is not None:
            cut_outs.append(_cut_out(rgb_HW3, photograph))
    cut_outs += _coins(_read(COINS))
    horse_HW3 = _read(HORSE)
    cut_outs.append(_trimmed(horse_HW3, _largest(horse_HW3[..., 0] < 128), (), is_silhouette=True))
    licences = {each.file: each.licence for each in (*PHOTOGRAPHS, COINS, HORSE)}
    write_bank(PhotoBank(tuple(textures), tuple(cut_outs)), out, licences)
    return read_bank(str(out))


def _read(photograph: Photograph) -> Pixels:
    package, _, rest = photograph.file.partition("/")
    spec = find_spec(package)
    path = Path((spec.submodule_search_locations or [""])[0] if spec else "") / rest
    bgr_HW3 = cv2.imread(str(path), cv2.IMREAD_COLOR) if spec else None
    if bgr_HW3 is None:
        raise FileNotFoundError(f"{photograph.file} is not there: pip install scikit-image scikit-learn")
    return np.ascontiguousarray(bgr_HW3[..., ::-1], np.uint8)


def _boxed(array: Any, box: Box) -> Any:
    x, y, w, h = box
    return array[y : y + h, x : x + w]


def _shrunk(rgb_HW3: Pixels) -> Pixels:
    scale = min(1.0, LARGEST / max(rgb_HW3.shape[:2]))
    return np.asarray(cv2.resize(rgb_HW3, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _cut_out(rgb_HW3: Pixels, photograph: Photograph) -> CutOut:
    """The thing inside `around`, by GrabCut."""
    marks_HW = np.full(rgb_HW3.shape[:2], cv2.GC_BGD, np.uint8)
    boxes = [(photograph.around, cv2.GC_PR_FGD), *((box, cv2.GC_FGD) for box in photograph.surely)]
    for box, mark in [*boxes, *((box, cv2.GC_BGD) for box in photograph.never)]:
        _boxed(marks_HW, box or (0, 0, 0, 0))[:] = mark
    cv2.setRNGSeed(1)
    cv2.grabCut(rgb_HW3, marks_HW, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 6, cv2.GC_INIT_WITH_MASK)
    return _trimmed(rgb_HW3, _largest((marks_HW == cv2.GC_FGD) | (marks_HW == cv2.GC_PR_FGD)), photograph.parts)


def _largest(inside_HW: npt.NDArray[np.bool_]) -> Mask:
    """The largest connected piece, with its small holes filled."""
    opened_HW = cv2.morphologyEx(inside_HW.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, pieces_HW, figures, _ = cv2.connectedComponentsWithStats(opened_HW)
    mask_HW = (pieces_HW == 1 + figures[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    count, holes_HW, figures, _ = cv2.connectedComponentsWithStats(1 - mask_HW)
    height, width = mask_HW.shape
    for hole in range(1, count):
        x, y, w, h, area = figures[hole]
        if min(x, y) > 0 and x + w < width and y + h < height and area < 0.1 * mask_HW.sum():
            mask_HW[holes_HW == hole] = 1
    return mask_HW


def _coins(rgb_HW3: Pixels) -> list[CutOut]:
    """The round ones of the bright pieces."""
    blurred_HW = cv2.medianBlur(rgb_HW3[..., 0].copy(), 5)
    bright_HW = cv2.adaptiveThreshold(blurred_HW, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 151, -15)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    rings, _ = cv2.findContours(
        cv2.morphologyEx(bright_HW, cv2.MORPH_CLOSE, kernel), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    found: list[CutOut] = []
    for ring in map(cv2.convexHull, rings):
        _, _, w, h = cv2.boundingRect(ring)
        if cv2.contourArea(ring) > 500 and 0.8 < w / h < 1.25 and 0.74 < cv2.contourArea(ring) / (w * h) < 0.83:
            mask_HW = np.zeros(rgb_HW3.shape[:2], np.uint8)
            found.append(_trimmed(rgb_HW3, np.asarray(cv2.fillPoly(mask_HW, [ring], 1), np.uint8), ()))
    return found


def _trimmed(rgb_HW3: Pixels, mask_HW: Mask, parts: Sequence[Ellipse], *, is_silhouette: bool = False) -> CutOut:
    """Cut to the mask's box and brought down to LARGEST."""
    parts_LHW = np.zeros((2, *mask_HW.shape), np.uint8)
    for number, (x, y, rx, ry, level) in enumerate(parts, start=1):
        cv2.ellipse(parts_LHW[level], (x, y), (rx, ry), 0, 0, 360, number, -1)
    box = cv2.boundingRect(mask_HW)
    rgb_hw3 = _shrunk(_boxed(rgb_HW3, box))  # type: ignore[arg-type]
    h, w = rgb_hw3.shape[:2]
    mask_hw, *parts_hw = (
        np.asarray(cv2.resize(_boxed(each, box), (w, h), interpolation=cv2.INTER_NEAREST), np.uint8)  # type: ignore[arg-type]
        for each in (mask_HW, *parts_LHW)
    )
    return CutOut(rgb_hw3, mask_hw, np.stack(parts_hw) * mask_hw, is_silhouette)
