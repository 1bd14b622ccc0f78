"""An output as a PyTorch dataset: `from pipeline import MaskDataset`.

Reads part by part, so that an output of any size takes the memory of one part a worker. Owns the order, and how parts
are shared among ranks and workers.
Legend: H W pixels, N masks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.errors import ConfigError, RunError, StorageError
from pipeline.look.pixels import pixels_of
from pipeline.look.sample import Sampled
from pipeline.masks.rle import mask_pixels
from pipeline.output.committed import find_committed, planned_part
from pipeline.output.labelled import images_of_chunk
from pipeline.plain_values import to_settings
from pipeline.plan.layout import part_name
from pipeline.plan.member_index import MemberIndex
from pipeline.records import Chunk, ImageRow, Status
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute


class MaskForm(StrEnum):
    """What `masks` of an example is."""

    BOOL = "bool"
    """A bool tensor (N, H, W)."""
    RLE = "rle"
    """A list of N dicts {"size": [H, W], "counts": COCO's string}, which pycocotools reads."""
    NONE = "none"
    """Nothing: boxes and scores alone."""


class MaskDataset(IterableDataset[dict[str, Any]]):
    """The images of an output that are ok, each with its masks, finished run or not.

    out         what the run was given as OUT: a folder or s3:// prefix
    masks       bool, rle or none, see `MaskForm`
    images      whether the pixels are read, from where they were when the run was planned
    shuffle     parts, and images inside each part, in an order that follows from `seed` and the epoch of `set_epoch`
    skip_missing  whether an image whose pixels are gone or changed is left out, instead of an error
    rank, world_size  share of the parts; None takes those of torch.distributed if it is in use
    storage     endpoint_url, region, anonymous and so on, as store.endpoint_url=... of a run
    raises      ConfigError if there is no such output, or none of its parts

    An example is a dict:

    image            uint8 (3, H, W), RGB; only if `images`
    masks            as `masks` says; not there if it is none
    boxes            float32 (N, 4), XYXY: the edges of the first and behind the last pixel
    predicted_iou    float32 (N,)
    stability_score  float32 (N,)
    image_id         int
    file_name        str, the image's name below the source

    With several workers or ranks every part is read by one of them, so each image comes once an epoch. Ranks may get
    different numbers of images. Masks of two images differ in number: give the DataLoader `batch_size=None`, or a
    `collate_fn` of your own.
    """

    def __init__(  # noqa: PLR0913  # each has a default, as in PyTorch's own classes
        self,
        out: str,
        *,
        masks: str = MaskForm.BOOL,
        images: bool = True,
        shuffle: bool = False,
        seed: int = 0,
        skip_missing: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        storage: Mapping[str, Any] | None = None,
    ) -> None:
        if masks not in list(MaskForm):
            raise ConfigError(f"masks={masks} must be one of {', '.join(MaskForm)}")
        self._masks, self._images, self._skip_missing = MaskForm(masks), images, skip_missing
        self._shuffle, self._seed, self._epoch = shuffle, seed, 0
        self._rank, self._world_size = _place_among(rank, world_size)
        self._store = connect(to_settings(StoreSettings, storage or {}, prefix="storage."))
        self._there = find_committed(absolute(out), self._store)

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has another order, the same on all ranks. Call it before the DataLoader makes its workers."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """raises  StorageError if the store does not answer, RunError if a part is not the one that was planned"""
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        mine = slice(self._rank * workers + number, None, self._world_size * workers)
        there = self._there
        index = MemberIndex(there.plan, out=there.out, store=self._store)
        for chunk in self._ordered(there.chunks, "parts")[mine]:
            for row, place in self._ordered(self._rows(chunk, index), chunk.chunk_id):
                if row.status is Status.OK and (example := self._example(Sampled(row, place))) is not None:
                    yield example

    def _rows(self, chunk: Chunk, index: MemberIndex) -> list[tuple[ImageRow, Any]]:
        there = self._there
        part = planned_part(chunk, there.plan, out=there.out, store=self._store)
        if isinstance(part, str):
            raise RunError(f"{part}; make verify OUT={there.out} tells more")
        planned = images_of_chunk(chunk, there.plan, index=index, out=there.out)
        if [row.image_id for row in part.rows] != [image.image_id for image in planned]:
            name = part_name(there.plan, chunk)
            raise RunError(f"{name} has other images than were planned; make verify OUT={there.out} tells more")
        return [(row, image.image) for row, image in zip(part.rows, planned, strict=True)]

    def _ordered(self, items: Sequence[Any], what: str) -> list[Any]:
        """Shuffled alike in every process."""
        found = list(items)
        if self._shuffle:
            random.Random(f"{self._seed} {self._epoch} {what}").shuffle(found)
        return found

    def _example(self, sampled: Sampled) -> dict[str, Any] | None:
        """None if its pixels are not there and that is no error."""
        row = sampled.row
        example: dict[str, Any] = {"image_id": row.image_id, "file_name": row.file_name}
        if self._images:
            try:
                rgb_HW3 = pixels_of(sampled, self._store, self._there.plan.settings)
            except StorageError:
                if self._skip_missing:
                    return None
                raise
            example["image"] = _tensor(np.ascontiguousarray(rgb_HW3.transpose(2, 0, 1)))
        return example | _masks_of(row, self._masks)


def _masks_of(row: ImageRow, form: MaskForm) -> dict[str, Any]:
    hw = row.height, row.width
    xywh_N4 = np.array([mask.bbox_xywh for mask in row.masks], np.float32).reshape(-1, 4)
    # SA-1B's width and height are one pixel short.
    xyxy_N4 = np.concatenate([xywh_N4[:, :2], xywh_N4[:, :2] + xywh_N4[:, 2:] + 1], axis=1)
    found: dict[str, Any] = {
        "boxes": _tensor(xyxy_N4),
        "predicted_iou": torch.tensor([mask.predicted_iou for mask in row.masks], dtype=torch.float32),
        "stability_score": torch.tensor([mask.stability_score for mask in row.masks], dtype=torch.float32),
    }
    match form:
        case MaskForm.BOOL:
            masks_NHW = np.zeros((len(row.masks), *hw), np.bool_)
            for mask_HW, mask in zip(masks_NHW, row.masks, strict=True):
                mask_HW[:] = mask_pixels(mask.counts, hw)
            found["masks"] = _tensor(masks_NHW)
        case MaskForm.RLE:
            found["masks"] = [{"size": list(hw), "counts": mask.counts} for mask in row.masks]
        case MaskForm.NONE:
            pass
    return found


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    return cast(Any, torch).from_numpy(array)


def _place_among(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """raises  ConfigError unless both are given, or neither, and the rank is one of that many"""
    if (rank is None) != (world_size is None):
        raise ConfigError("rank and world_size belong together: give both or neither")
    if rank is None or world_size is None:
        distributed = cast(Any, torch.distributed)
        if not (distributed.is_available() and distributed.is_initialized()):
            return 0, 1
        return distributed.get_rank(), distributed.get_world_size()
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank} must be from 0 to {world_size - 1}, for world_size={world_size}")
    return rank, world_size
