"""Counts, boxes and runs by Triton's kernels on the GPU that the logits are on. Nothing waits before an answer is used.

Owns what the kernels are launched with, and the way of their answers: copied to pinned memory, with an event behind.
NMS and all scores stay on the host, whose code for them is the same for every device. Imported where there is a GPU.
Legend: S slots of a batch, N live ones, K chosen masks, h w low-resolution cells, H W pixels of the crop.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.masks import gpu_kernels
from pipeline.masks.arrays import Integers
from pipeline.masks.measure import LEFT, LOOSE, RIGHT, TIGHT, Live, Measures
from pipeline.masks.rle import Rle, lengths
from pipeline.masks.segmenter import Predictions
from pipeline.masks.upscaling import Axis, Upscaling

kernels: Any = gpu_kernels  # Triton has no types for launches

SIDE = 16
"""Pixels along a tile. In real masks of 1500 x 2250 a cut runs through 5 to 9 % of such tiles, of 32 x 32 7 to 12 %."""
WARPS = 4
"""Of the kernels that evaluate pixels."""
TILES = 32
"""Tiles that are looked at together to find those that a cut runs through."""
CELLS, COLUMNS = 1024, 1024
"""What a program of the two small kernels has at once: low-resolution cells beside each other, columns."""
ROOM = 4
"""Ends of runs for each column, for which there is room at first. A mask with more is traced again; real ones of
1500 x 2250 have 1.5 on average."""
KEPT = 64
"""Tables of axes that stay on the device: 40 bytes a pixel of its length."""


@dataclass(frozen=True, slots=True)
class Lines:
    """One axis of an `Upscaling` on the device, for L lines of the crop.

    cell_4L    int32: the two cells of each of the two lines of the square that a line is made of
    weight_6L  float32: theirs, and those of the two lines of the square
    under      most cells beneath a tile
    """

    cell_4L: Tensor
    weight_6L: Tensor
    under: int

    @staticmethod
    def of(axis: Axis, side: int, device: torch.device) -> Lines:
        (i0, i1, w0, w1), (s0, s1, v0, v1) = axis.square, axis.crop
        cell_4L = np.stack([i0[s0], i1[s0], i0[s1], i1[s1]]).astype(np.int32)
        weight_6L = np.stack([w0[s0], w1[s0], w0[s1], w1[s1], v0, v1])
        starts = np.arange(0, len(s0), side)
        stops = np.minimum(starts + side, len(s0))
        under = int((cell_4L[3, stops - 1] - cell_4L[0, starts]).max()) + 1
        return Lines(_sent(cell_4L, device), _sent(weight_6L, device), under)


@dataclass(frozen=True, slots=True)
class Geometry:
    """How cells become pixels, as kernels are told."""

    x: Lines
    y: Lines
    hw: tuple[int, int]
    side: int

    @property
    def tiles(self) -> int:
        return _per(self.hw[0], self.side) * _per(self.hw[1], self.side)

    @property
    def columns_under(self) -> int:
        """Columns of cells beneath a tile, in a power of two."""
        return 1 << (self.x.under - 1).bit_length()

    @property
    def pixels(self) -> tuple[Any, ...]:
        """The arguments of kernels that evaluate pixels."""
        return self.y.cell_4L, self.y.weight_6L, self.hw[0], self.x.cell_4L, self.x.weight_6L, self.hw[1]


class Arrival:
    """Tensors on their way to the host."""

    def __init__(self, *tensors: Tensor) -> None:
        self._pinned = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors]
        for pinned, tensor in zip(self._pinned, tensors, strict=True):
            pinned.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event(blocking=True)  # or whoever waits keeps a core busy
        self._event.record()

    def arrays(self) -> list[npt.NDArray[Any]]:
        """Waits until they are there, if they are not."""
        if not self._event.query():
            self._event.synchronize()
        return [pinned.numpy() for pinned in self._pinned]


@dataclass(frozen=True, slots=True, eq=False)
class HeldMask:
    """A mask that may never be needed at full size: its logits are those of one of the rows."""

    rows_Khw: Tensor
    row: int
    upscaling: Upscaling


@dataclass(frozen=True, slots=True)
class MeasuredOnGpu:
    """A batch that is being measured."""

    arrival: Arrival
    logits_Shw: Tensor
    upscaling: Upscaling

    @property
    def on_its_way(self) -> bool:
        return True

    def arrived(self) -> Live:
        tally_S6, live_S, predicted_iou_S = self.arrival.arrays()
        slot_N = np.flatnonzero(live_S)
        tally_N6 = tally_S6[slot_N].astype(np.int64)
        tally_N6[tally_N6[:, LEFT] > tally_N6[:, RIGHT], LEFT:] = 0
        measures = Measures(tally_N6[:, TIGHT], tally_N6[:, LOOSE], tally_N6[:, LEFT:])
        return Live(slot_N, predicted_iou_S[slot_N], measures)

    def untraced(self, chosen_K: Integers) -> tuple[HeldMask, ...]:
        if not len(chosen_K):
            return ()
        slot_K = self.arrived().slot_N[chosen_K]
        rows_Khw = self.logits_Shw.index_select(0, _sent(slot_K, self.logits_Shw.device))
        return tuple(HeldMask(rows_Khw, row, self.upscaling) for row in range(len(slot_K)))


@dataclass(frozen=True, slots=True)
class TracedOnGpu:
    """Masks that are being traced."""

    work: OnGpu
    logits_Khw: Tensor
    index_K: Integers
    upscaling: Upscaling
    arrival: Arrival

    def arrived(self) -> tuple[Rle, ...]:
        ends_KE, total_K = self.arrival.arrays()
        height, width = self.upscaling.crop_hw
        if int(total_K.max()) > ends_KE.shape[1]:
            again = self.work.traced(self.logits_Khw, self.index_K, self.upscaling, room=int(total_K.max()))
            ends_KE, total_K = again.arrival.arrays()
        ends = [
            np.concatenate([[0], end_E[:total], [height * width]])
            for end_E, total in zip(ends_KE, total_K, strict=True)
        ]
        return tuple(Rle((height, width), lengths(end_M1.astype(np.int64))) for end_M1 in ends)


@dataclass(frozen=True, slots=True)
class NothingToTrace:
    """No mask of the crop survived."""

    def arrived(self) -> tuple[Rle, ...]:
        return ()


class OnGpu:
    """See `MaskWork`. `least_score` saves nothing here: a mask costs a fraction of a microsecond.

    side   pixels along a tile, at most 32
    warps  of the kernels that evaluate pixels
    """

    def __init__(self, *, side: int = SIDE, warps: int = WARPS) -> None:
        self._side, self._warps = side, warps
        self._lines: dict[tuple[int, torch.device], tuple[Axis, Lines]] = {}
        self._lock = threading.Lock()

    def measure(
        self, predictions: Predictions, upscaling: Upscaling, *, offset: float, least_score: float
    ) -> MeasuredOnGpu:
        logits_Shw, live_S = predictions.logits_PMhw.flatten(0, 1), predictions.live_PM.flatten()
        S, device, (height, width) = len(logits_Shw), logits_Shw.device, upscaling.crop_hw
        geometry = self._geometry(upscaling, device)
        index_S = torch.where(live_S, torch.arange(S, dtype=torch.int32, device=device), -1)
        tally_S6 = torch.zeros(S, 6, dtype=torch.int32, device=device)
        tally_S6[:, LEFT], tally_S6[:, LEFT + 1], tally_S6[:, RIGHT:] = width, height, -1
        kinds = self._decided(logits_Shw, index_S, geometry, offset)
        grid = S, _per(height, self._side)
        kernels.measure_strips[grid](
            *_cells(logits_Shw), index_S, kinds, tally_S6, float(np.float32(offset)), *geometry.pixels,
            SIDE=self._side, TILES=TILES, num_warps=self._warps, enable_fp_fusion=False,
        )  # fmt: skip
        scores_S = predictions.predicted_iou_PM.flatten()
        return MeasuredOnGpu(Arrival(tally_S6, live_S, scores_S), logits_Shw, upscaling)

    def trace(self, masks: Sequence[HeldMask]) -> TracedOnGpu | NothingToTrace:
        if not masks:
            return NothingToTrace()
        batches = {id(mask.rows_Khw): mask.rows_Khw for mask in masks}
        starts = dict(zip(batches, np.cumsum([0, *map(len, batches.values())]), strict=False))
        rows_Khw = next(iter(batches.values())) if len(batches) == 1 else torch.cat(list(batches.values()))
        index_K = np.array([starts[id(mask.rows_Khw)] + mask.row for mask in masks])
        upscaling = masks[0].upscaling
        return self.traced(rows_Khw, index_K, upscaling, room=ROOM * upscaling.crop_hw[1] + 64)

    def traced(self, logits_Rhw: Tensor, index_K: Integers, upscaling: Upscaling, *, room: int) -> TracedOnGpu:
        """The runs of those rows, with room for so many ends of each."""
        K, device, (height, width) = len(index_K), logits_Rhw.device, upscaling.crop_hw
        geometry, index = self._geometry(upscaling, device), _sent(index_K.astype(np.int32), device)
        down, across = _per(height, self._side), _per(width, self._side)
        words = torch.empty(K, down, width, dtype=torch.int32, device=device)
        before_KW = torch.empty(K, width, dtype=torch.int32, device=device)
        ends_KE = torch.empty(K, room, dtype=torch.int32, device=device)
        total_K = torch.empty(K, dtype=torch.int32, device=device)
        kinds = self._decided(logits_Rhw, index, geometry, 0.0)
        kernels.find_ends[K, across](
            *_cells(logits_Rhw), index, kinds, words, before_KW, *geometry.pixels,
            SIDE=self._side, num_warps=self._warps, enable_fp_fusion=False,
        )  # fmt: skip
        kernels.sum_columns[K,](index, before_KW, total_K, width, COLUMNS=COLUMNS)
        kernels.write_ends[K, across](index, words, before_KW, ends_KE, room, height, width, SIDE=self._side)
        return TracedOnGpu(self, logits_Rhw, index_K, upscaling, Arrival(ends_KE, total_K))

    def _decided(self, logits_Shw: Tensor, index: Tensor, geometry: Geometry, offset: float) -> Tensor:
        """A byte for each tile of each mask."""
        tiles, (height, width) = geometry.tiles, geometry.hw
        at_once = max(1, CELLS // geometry.columns_under)
        kinds = torch.empty(len(index), tiles, dtype=torch.int8, device=logits_Shw.device)
        kernels.decide_tiles[len(index), _per(tiles, at_once)](
            *_cells(logits_Shw), index, kinds, float(np.float32(offset)), geometry.y.under, geometry.y.cell_4L, height,
            geometry.x.cell_4L, width,
            SIDE=self._side, UNDER=geometry.columns_under, TILES=at_once, enable_fp_fusion=False,
        )  # fmt: skip
        return kinds

    def _geometry(self, upscaling: Upscaling, device: torch.device) -> Geometry:
        return Geometry(
            self._on_device(upscaling.x, device), self._on_device(upscaling.y, device), upscaling.crop_hw, self._side
        )

    def _on_device(self, axis: Axis, device: torch.device) -> Lines:
        """An axis is one object for all crops of its size (`upscaling`); it is kept, so that its address stays its."""
        with self._lock:
            key = id(axis), device
            if key not in self._lines:
                if len(self._lines) >= KEPT:
                    self._lines.pop(next(iter(self._lines)))
                self._lines[key] = axis, Lines.of(axis, self._side, device)
            return self._lines[key][1]


ON_GPU = OnGpu()


def _per(count: int, size: int) -> int:
    """Parts of that size, the last one perhaps smaller."""
    return -(-count // size)


def _cells(logits_Shw: Tensor) -> tuple[Tensor, int, int]:
    """Where a kernel finds the logits of a slot: they are contiguous."""
    return logits_Shw, logits_Shw.shape[1] * logits_Shw.shape[2], logits_Shw.shape[2]


def _sent(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """By way of pinned memory, so that nothing waits."""
    tensor = torch.as_tensor(array)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
