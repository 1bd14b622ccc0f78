"""The region of interest of each image: a picture beside it, under the same name in another folder.

Owns the names of these pictures and what their pixels mean: black is off, every other colour is on. One that is missing
or does not fit costs its image, which is never silently done whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, InputError, NotFoundError, OutOfReachError, StorageError, TooManyBytesError
from pipeline.masks.points import Region
from pipeline.records import Status
from pipeline.settings import Depth
from pipeline.storage.images import decode_image
from pipeline.storage.kinds import IMAGE_EXTENSIONS, extension
from pipeline.storage.store import Store


@dataclass(frozen=True, slots=True)
class RegionFile:
    """What was read for one image: the picture's bytes, or why there are none."""

    uri: str
    data: bytes
    refusal: InputError | None
    max_pixels: int

    def pixels(self, hw: tuple[int, int]) -> Region:
        """Where an image of this size, upright, may have points.

        raises  InputError with this size: MISSING without the picture, UNREADABLE if it cannot be used
        """
        height, width = hw
        try:
            if self.refusal is not None:
                raise self.refusal
            picture_HW3 = self._decoded()
            if picture_HW3.shape[:2] != hw:
                shape = picture_HW3.shape
                raise _useless(self.uri, f"it is {shape[1]} x {shape[0]} pixels, the image {width} x {height}")
        except InputError as error:
            raise InputError(error.status, error.reason, width, height) from error
        return np.any(picture_HW3, axis=2, keepdims=True)[..., 0]

    def _decoded(self) -> npt.NDArray[np.uint8]:
        try:
            return decode_image(self.data, max_pixels=self.max_pixels, depth=Depth.CLIP).rgb_HW3
        except InputError as error:
            raise _useless(self.uri, error.reason) from error


@dataclass(frozen=True, slots=True)
class Regions:
    """The folder or prefix of `recipe.roi`, canonical. The limits are those of images."""

    folder: str
    store: Store
    max_pixels: int
    max_bytes: int

    def read(self, key: str) -> RegionFile:
        """That of the image `key`.

        raises  OutOfReachError, DeniedError, StorageError, which say nothing of this image
        """
        uri, data, refusal = self.folder, b"", None
        try:
            uri = f"{self.folder.rstrip('/')}/{region_name(key)}"
            data = self.store.read(uri, limit=self.max_bytes)
        except OutOfReachError:
            raise
        except NotFoundError:
            refusal = InputError(Status.MISSING, f"there is no region of interest for it: {uri} is not there")
        except TooManyBytesError as error:
            refusal = _useless(uri, f"it has {error.size:,} bytes; run.max_bytes is {self.max_bytes:,}")
        except InputError as error:
            refusal = error
        return RegionFile(uri, data, refusal, self.max_pixels)


def region_name(key: str) -> str:
    """`folder/a.jpg` -> `folder/a.png`; what has no image's ending gets one.

    raises  InputError with UNREADABLE for a name that leads out of a folder
    """
    ending = extension(key)
    stem = key.removesuffix(key[-len(ending) :]) if ending in IMAGE_EXTENSIONS else key
    steps = stem.lstrip("/").split("/")
    if "\0" in stem or not {"", ".", ".."}.isdisjoint(steps):
        raise InputError(Status.UNREADABLE, f"no region of interest can have the name of {key!r}")
    return "/".join(steps) + ".png"


def check_regions(folder: str, store: Store) -> None:
    """raises  ConfigError if there is nothing in the folder"""
    try:
        there = next(iter(store.list(folder)), None)
    except StorageError as error:
        raise ConfigError(f"recipe.roi={folder} cannot be read: {error}") from error
    if there is None:
        raise ConfigError(f"recipe.roi={folder} holds nothing; it is a folder of pictures <name of the image>.png")


def _useless(uri: str, why: str) -> InputError:
    return InputError(Status.UNREADABLE, f"its region of interest {uri} cannot be used: {why}")
