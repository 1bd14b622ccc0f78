"""The pixels that a row's masks were made of, if they are still where they were.

Owns the rule that no other pixels are ever shown below masks: the bytes must have the row's hash.
"""

from __future__ import annotations

import hashlib

from pipeline.errors import InputError, StorageError
from pipeline.look.drawing import Picture
from pipeline.look.sample import Sampled
from pipeline.plan.plan import OutputSettings
from pipeline.records import ImageRow
from pipeline.storage.images import decode_image
from pipeline.storage.store import Store


def pixels_of(sampled: Sampled, store: Store, settings: OutputSettings) -> Picture:
    """(H, W, 3).

    raises  StorageError if these are not there, or not the ones that the masks were made of
    """
    row, place = sampled.row, sampled.place
    if place is None:
        raise StorageError(sampled.why or "there are no bytes of it")
    try:
        data = place.read(store, limit=settings.max_bytes, of_any_version=True)
    except InputError as error:
        raise StorageError(error.reason) from error
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise StorageError(f"{place.uri} has changed since the masks were made")
    return _decoded(data, row, settings)


def _decoded(data: bytes, row: ImageRow, settings: OutputSettings) -> Picture:
    try:
        rgb_HW3 = decode_image(data, max_pixels=settings.max_pixels, depth=settings.depth).rgb_HW3
    except InputError as error:
        raise StorageError(f"{row.source} cannot be decoded here: {error.reason}") from error
    if rgb_HW3.shape[:2] != (row.height, row.width):
        raise StorageError(f"{row.source} is decoded to {rgb_HW3.shape[1]} x {rgb_HW3.shape[0]} here")
    return rgb_HW3
