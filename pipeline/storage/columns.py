"""A part as columns: what is counted over many parts, without a Python object for each mask.

Owns the columns, and what is read of a part for them. The file may be a part's bytes or a range of a store: what a
caller does not ask for is not read, as far as the format allows. Of Parquet that is any column; of a tar, the table of
contents.
Legend: I images, N masks of all these images, one image after the other.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import DamagedError
from pipeline.settings import Format
from pipeline.storage.arrow import compute
from pipeline.storage.coco_rle import damage, first_contents, load_member
from pipeline.storage.parquet import IMAGE_FIELDS, open_parquet, parquet_damage

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

_TAR_HEAD_BYTES = 1 << 16
"""Read at once of a tar; most tables of contents are shorter."""
_OF_IMAGES = ("image_id", "file_name", "source", "width", "height", "status", "error")
_OF_MASKS = ("segmentation.counts", "bbox", "area", "predicted_iou", "stability_score", "crop_layer", "multimask_index")


@dataclass(frozen=True, slots=True, eq=False)
class ImageColumns:
    """The rows without their masks. `masks_I` says how many each has; the others are those of `ImageRow`."""

    image_id_I: Integers
    file_name_I: list[str]
    source_I: list[str]
    width_I: Integers
    height_I: Integers
    status_I: list[str]
    error_I: list[str]
    masks_I: Integers


@dataclass(frozen=True, slots=True, eq=False)
class MaskColumns:
    """The masks.

    box_xywh_N4  SA-1B's own convention, as in `Mask`
    packed       the characters of all packed run lengths, one after the other
    start_N1     where each mask's characters begin; the last entry is their number
    """

    box_xywh_N4: Floats
    area_N: Integers
    predicted_iou_N: Floats
    stability_N: Floats
    crop_layer_N: Integers
    output_N: Integers
    packed: Bytes
    start_N1: Integers


class PartColumns(Protocol):
    """A part that is open. All raise DamagedError if it turns out to be damaged, and what its file's store raises."""

    @property
    def rows(self) -> int: ...

    @property
    def metadata(self) -> dict[str, str]: ...

    def images(self) -> ImageColumns: ...

    def masks(self) -> MaskColumns: ...


def open_columns(file: BinaryIO | io.RawIOBase, *, format: Format, name: str = "this part") -> PartColumns:
    """Reads the end of a Parquet file, or the first member of a tar.

    raises  DamagedError, with `name` in it, if it is no such part
    """
    match format:
        case Format.PARQUET:
            return _ParquetColumns(file, name)
        case Format.COCO_RLE:
            return _TarColumns(file, name)


class _ParquetColumns:
    def __init__(self, file: Any, name: str) -> None:
        self._name = name
        self._file, self._metadata = open_parquet(file, name, in_few_reads=True)

    @property
    def rows(self) -> int:
        return self._file.metadata.num_rows

    @property
    def metadata(self) -> dict[str, str]:
        return self._metadata

    def images(self) -> ImageColumns:
        table = self._read([*_OF_IMAGES, "annotations.list.element.crop_layer"])
        columns: dict[str, Any] = {
            name: table.column(name).to_numpy().astype(np.int64) for name in ("image_id", "width", "height")
        }
        columns |= {name: table.column(name).to_pylist() for name in _OF_IMAGES if name not in columns}
        masks = compute().list_value_length(table.column("annotations")).to_numpy()
        return ImageColumns(**{f"{name}_I": values for name, values in columns.items()}, masks_I=masks.astype(np.int64))

    def masks(self) -> MaskColumns:
        masks = self._read([f"annotations.list.element.{name}" for name in _OF_MASKS]).column("annotations")
        structs = masks.combine_chunks().flatten()
        numbers = {name: structs.field(name).to_numpy() for name in _OF_MASKS[2:]}
        packed, start_N1 = _characters(structs.field("segmentation").field("counts"))
        return MaskColumns(
            box_xywh_N4=_fours(structs.field("bbox").flatten().to_numpy(), len(structs), self._name),
            area_N=numbers["area"].astype(np.int64),
            predicted_iou_N=numbers["predicted_iou"],
            stability_N=numbers["stability_score"],
            crop_layer_N=numbers["crop_layer"].astype(np.int64),
            output_N=numbers["multimask_index"].astype(np.int64),
            packed=packed,
            start_N1=start_N1,
        )

    def _read(self, columns: list[str]) -> Any:
        with parquet_damage(self._name):
            return self._file.read(columns=columns)


def _characters(strings: Any) -> tuple[Bytes, Integers]:
    """Of an Arrow array of strings, without copying them."""
    _, offsets, data = strings.buffers()
    if not len(strings) or data is None:
        return np.frombuffer(b"", np.uint8), np.zeros(len(strings) + 1, np.int64)
    start_N1 = np.frombuffer(offsets, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    return np.frombuffer(data, np.uint8), start_N1.astype(np.int64)


def _fours(values: Floats, count: int, name: str) -> Floats:
    if len(values) != 4 * count:
        raise DamagedError(f"{name} is damaged (boxes of {len(values)} numbers for {count} masks); delete it")
    return values.reshape(count, 4)


class _TarColumns:
    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = io.BufferedReader(file, _TAR_HEAD_BYTES), name
        with damage(name):
            contents = first_contents(self._file)
            self._metadata: dict[str, str] = dict(contents["metadata"])
            self._entries: list[dict[str, Any]] = list(contents["images"])

    @property
    def rows(self) -> int:
        return len(self._entries)

    @property
    def metadata(self) -> dict[str, str]:
        return self._metadata

    def images(self) -> ImageColumns:
        with damage(self._name):
            columns: dict[str, Any] = {
                f"{field.name}_I": [entry[field.name] for entry in self._entries]
                for field in IMAGE_FIELDS
                if field.name in _OF_IMAGES
            }
            for name in ("image_id_I", "width_I", "height_I"):
                columns[name] = np.array(columns[name], np.int64)
            masks = [int(entry["masks"]) for entry in self._entries]
            return ImageColumns(**columns, masks_I=np.array(masks, np.int64))

    def masks(self) -> MaskColumns:
        annotations = self._annotations
        with damage(self._name):
            packed = [each["segmentation"]["counts"].encode("ascii") for each in annotations]
            boxes = np.array([each["bbox"] for each in annotations], np.float64)
            return MaskColumns(
                box_xywh_N4=_fours(boxes.ravel(), len(annotations), self._name),
                area_N=np.array([each["area"] for each in annotations], np.int64),
                predicted_iou_N=np.array([each["predicted_iou"] for each in annotations], np.float64),
                stability_N=np.array([each["stability_score"] for each in annotations], np.float64),
                crop_layer_N=self._of_contents("crop_layer"),
                output_N=self._of_contents("multimask_index"),
                packed=np.frombuffer(b"".join(packed), np.uint8),
                start_N1=np.cumsum([0, *map(len, packed)], dtype=np.int64),
            )

    @cached_property
    def _annotations(self) -> Sequence[dict[str, Any]]:
        self._file.seek(0)
        with damage(self._name), tarfile.open(fileobj=io.BytesIO(self._file.read()), mode="r:") as tar:
            found: list[dict[str, Any]] = []
            for entry in self._entries:
                own: list[dict[str, Any]] = []
                if entry["json"]:
                    own = load_member(tar, tar.getmember(entry["json"]))["annotations"]
                if not len(own) == entry["masks"] == len(entry["crop_layer"]) == len(entry["multimask_index"]):
                    raise ValueError(
                        f"image {entry['image_id']} has {len(own)} masks, but {entry['masks']} were written"
                    )
                found += own
            return found

    def _of_contents(self, name: str) -> Integers:
        return np.array([number for entry in self._entries for number in entry[name]], np.int64)
