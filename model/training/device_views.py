"""Scenes on the training's device -> batches, made there: crops, flips, a camera's flaws, points.

The same kind of views as views.py makes in processes, for a GPU that would use them up faster than these make them.
Owns what is random in a view. Every choice comes from the generator that is passed in, and nothing waits for a value.
Legend: B scenes and their images, K points of an image, L levels, H W pixels of a scene, S input side, h w cells of the
truths, N steps along a side or cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.training.batches import Batch
from model.training.losses import outlines
from model.training.processes import MOST_IDS
from model.training.views import ViewSettings

BLUR_REACH = 4
"""Pixels to each side that a blur takes in."""
NEAR_EDGE = 4.0
"""How many times likelier a cell at an outline is to be a point than one that is not."""


@dataclass(frozen=True, slots=True)
class Windows:
    """What each view shows: of a scene the `extent` from `origin` on, at times mirrored.

    origin_B2, extent_B2  float32, (y, x) in pixels of the scene; sizes_B2 int64, the same in pixels of the view
    """

    origin_B2: Tensor
    extent_B2: Tensor
    sizes_B2: Tensor
    mirrored_B: Tensor


def device_batch(rgb_BHW3: Tensor, labels_BLHW: Tensor, settings: ViewSettings, rng: torch.Generator | None) -> Batch:
    """One view of each scene. rgb uint8, labels int16 with ids below MOST_IDS and 0 for nothing, both on the device."""
    random = _Random(rng, rgb_BHW3.device)
    windows = choose_windows(random, rgb_BHW3.shape[:3], settings)
    images_B3SS = _photographed(_cut(rgb_BHW3, windows, settings.input_side), random)
    images_B3SS = images_B3SS * _inside(windows, settings.input_side, settings.input_side)[:, None]
    labels_BLhw = _labels(labels_BLHW, windows, settings)
    points_BK2, truths_BKLhw, valid_BKL = _points(labels_BLhw, settings, random)
    images_B3SS = images_B3SS.round().to(torch.uint8)
    return Batch(images_B3SS, windows.sizes_B2, points_BK2, truths_BKLhw, valid_BKL, labels_BLhw)


class _Random:
    """Random columns on the device."""

    def __init__(self, rng: torch.Generator | None, device: torch.device) -> None:
        self.rng = rng
        self._device = device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.rng, device=self._device)

    def normal(self, *shape: int, spread: float = 1.0) -> Tensor:
        return spread * torch.randn(shape, generator=self.rng, device=self._device)

    def chance(self, share: float, *shape: int) -> Tensor:
        """bool, True in that share of the cases."""
        return torch.rand(shape, generator=self.rng, device=self._device) < share

    def below(self, limits_B: Tensor) -> Tensor:
        """A whole number from 0 up to and without each limit, as float."""
        return (
            (torch.rand(limits_B.shape, generator=self.rng, device=self._device) * limits_B)
            .floor()
            .minimum(limits_B - 1)
        )


def choose_windows(random: _Random, shape: tuple[int, ...], settings: ViewSettings) -> Windows:
    """As `views.make_view` does: whole scenes, and crops whose longer side is a third of the scene or more."""
    B, height, width = shape
    side = min(height, width)
    long_B = torch.exp(random.uniform(B, low=math.log(0.33), high=0.0)) * side
    narrow_B = torch.where(random.chance(0.6, B), random.uniform(B, low=0.55, high=0.85), 1.0)
    both_B2 = torch.stack([long_B * narrow_B, long_B], dim=1)
    crop_B2 = torch.where(random.chance(0.7, B)[:, None], both_B2, both_B2.flip(1)).round()
    whole_B = random.chance(settings.whole_share, B)
    extents = [torch.where(whole_B, whole, crop_B2[:, i]) for i, whole in enumerate((height, width))]
    origins = [random.below(whole - extent_B + 1) for whole, extent_B in zip((height, width), extents, strict=True)]
    extent_B2, origin_B2 = torch.stack(extents, dim=1), torch.stack(origins, dim=1)
    filling_B2 = extent_B2 if settings.stretched else extent_B2.amax(1, keepdim=True)
    sizes_B2 = (extent_B2 * (settings.input_side / filling_B2)).round().long()
    return Windows(origin_B2, extent_B2, sizes_B2, random.chance(0.5, B))


def _at(windows: Windows, count: int, side: int) -> Tensor:
    """(B, count, 2): where the middles of `count` steps along the side of a view lie, (y, x) in pixels of the scene."""
    middles = (torch.arange(count, device=windows.origin_B2.device) + 0.5) * (side / count)
    places_BN2 = middles[None, :, None].expand(len(windows.origin_B2), -1, 2)
    mirrored_B12 = windows.mirrored_B[:, None, None] & (torch.arange(2, device=middles.device) == 1)
    sizes_B12 = windows.sizes_B2[:, None].float()
    places_BN2 = torch.where(mirrored_B12, sizes_B12 - places_BN2, places_BN2)
    # Not the scale: the view's sides are whole pixels, and so each has a scale of its own.
    return windows.origin_B2[:, None] + places_BN2 * (windows.extent_B2[:, None] / sizes_B12)


def _inside(windows: Windows, count: int, side: int) -> Tensor:
    """(B, count, count) bool: the cells whose middles are no padding."""
    middles = (torch.arange(count, device=windows.origin_B2.device) + 0.5) * (side / count)
    inside_BN2 = middles[None, :, None] < windows.sizes_B2[:, None]
    return inside_BN2[:, :, None, 0] & inside_BN2[:, None, :, 1]


def _cut(rgb_BHW3: Tensor, windows: Windows, side: int) -> Tensor:
    """(B, 3, S, S) float32 in 0..255, bilinear."""
    _, height, width, _ = rgb_BHW3.shape
    at_BN2 = _at(windows, side, side)
    y_BN, x_BN = at_BN2[..., 0] * (2 / height) - 1, at_BN2[..., 1] * (2 / width) - 1
    grid_BSS2 = torch.stack([x_BN[:, None, :].expand(-1, side, -1), y_BN[:, :, None].expand(-1, -1, side)], dim=3)
    return F.grid_sample(rgb_BHW3.permute(0, 3, 1, 2).float(), grid_BSS2, padding_mode="border", align_corners=False)


def _labels(labels_BLHW: Tensor, windows: Windows, settings: ViewSettings) -> Tensor:
    """(B, L, h, w) int32: the ids at the middles of the cells, 0 in the padding."""
    B, L, height, width = labels_BLHW.shape
    side = settings.mask_side
    at_BN2 = _at(windows, side, settings.input_side).long()
    y_BN, x_BN = at_BN2[..., 0].clamp(0, height - 1), at_BN2[..., 1].clamp(0, width - 1)
    images, levels = (torch.arange(n, device=y_BN.device) for n in (B, L))
    found = labels_BLHW[images[:, None, None, None], levels[:, None, None], y_BN[:, None, :, None], x_BN[:, None, None]]
    return found.int() * _inside(windows, side, settings.input_side)[:, None]


def _photographed(images_B3SS: Tensor, random: _Random) -> Tensor:
    """The flaws of `photographs.photograph`, but for JPEG; float32 in 0..255."""
    B = len(images_B3SS)
    gamma_B111 = torch.exp(random.normal(B, 1, 1, 1, spread=0.25))
    gain_B311 = torch.exp(random.normal(B, 3, 1, 1, spread=0.1) + random.normal(B, 1, 1, 1, spread=0.12))
    contrast_B111 = torch.exp(random.normal(B, 1, 1, 1, spread=0.15))
    images_B3SS = (images_B3SS / 255).clamp(0, 1) ** gamma_B111 * gain_B311
    images_B3SS = ((images_B3SS - 0.5) * contrast_B111 + 0.5).clamp(0, 1) * 255
    grey = random.chance(0.06, B, 1, 1, 1)
    images_B3SS = torch.where(grey, images_B3SS.mean(1, keepdim=True), images_B3SS)
    sigma_B = torch.where(random.chance(0.35, B), random.uniform(B, low=0.3, high=1.3), 0.05)
    images_B3SS = _blurred(images_B3SS, sigma_B)
    strength_B111 = random.uniform(B, 1, 1, 1, low=2, high=12) * random.chance(0.4, B, 1, 1, 1)
    noise_B1SS = random.normal(B, 1, *images_B3SS.shape[2:])
    return (images_B3SS + strength_B111 * noise_B1SS).clamp(0, 255)


def _blurred(images_B3SS: Tensor, sigma_B: Tensor) -> Tensor:
    """Gaussian blur, of its own width for every image."""
    B, _, S, _ = images_B3SS.shape
    steps = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=images_B3SS.device)
    kernel_BN = torch.exp(-0.5 * (steps / sigma_B[:, None]) ** 2)
    kernel_BN = (kernel_BN / kernel_BN.sum(1, keepdim=True)).repeat_interleave(3, dim=0, output_size=3 * B)
    x = F.pad(images_B3SS.reshape(1, 3 * B, S, S), (BLUR_REACH,) * 4, mode="replicate")
    x = F.conv2d(x, kernel_BN[:, None, :, None], groups=3 * B)
    return F.conv2d(x, kernel_BN[:, None, None, :], groups=3 * B).reshape(images_B3SS.shape)


def _points(labels_BLhw: Tensor, settings: ViewSettings, random: _Random) -> tuple[Tensor, Tensor, Tensor]:
    """Points and what each may mean, as `views.choose_points` has them, but for NEAR_EDGE.

    returns  (B, K, 2), (B, K, L, h, w), (B, K, L)
    """
    B, L, _, w = labels_BLhw.shape
    K, device = settings.points, labels_BLhw.device
    flat_BLN = labels_BLhw.flatten(2)
    ids_BM = flat_BLN.flatten(1).long()
    areas_BI = torch.zeros(B, MOST_IDS, device=device).scatter_add_(1, ids_BM, torch.ones_like(ids_BM).float())
    large_BI = areas_BI >= settings.min_cells
    large_BI[:, 0] = False
    valid_BLN = large_BI.gather(1, ids_BM).reshape(flat_BLN.shape)
    # A view without anything large has every id alike, and no point of it is valid.
    chance_BI = large_BI.float() + 1e-9
    wanted_BK = torch.multinomial(chance_BI, K, replacement=True, generator=random.rng)
    of_thing_BKN = (flat_BLN[:, None] == wanted_BK[:, :, None, None]).any(2)
    by_thing_K1 = (torch.arange(K, device=device) % 2 == 1)[:, None]
    open_BKN = torch.where(by_thing_K1, of_thing_BKN, valid_BLN.any(1)[:, None])
    # The greatest of u^(1 / weight) is each cell with a chance in proportion to its weight (Efraimidis, Spirakis 2006).
    weight_BN = 1 + (NEAR_EDGE - 1) * outlines(labels_BLhw).any(1).flatten(1)
    score_BKN = random.uniform(*open_BKN.shape) ** (1 / weight_BN[:, None])
    cells_BK = (score_BKN * open_BKN).argmax(2)
    places_BLK = cells_BK[:, None].expand(-1, L, -1)
    chosen_BKL = flat_BLN.gather(2, places_BLK).transpose(1, 2)
    valid_BKL = valid_BLN.gather(2, places_BLK).transpose(1, 2)
    truths_BKLhw = (labels_BLhw[:, None] == chosen_BKL[..., None, None]) & valid_BKL[..., None, None]
    cell = settings.input_side / settings.mask_side
    at_BK2 = torch.stack([cells_BK % w, cells_BK // w], dim=2) + random.uniform(B, K, 2)
    return at_BK2 * cell - 0.5, truths_BKLhw, valid_BKL
