"""A part as a tar of SA-1B annotation files: one JSON per image that has masks, and a list of all images.

Owns the tar and its table of contents. The content of a JSON is made in sa1b.py. Images without masks have no JSON,
because several readers fail on an empty list; the table of contents names them. File names are made of image ids alone.
So all tars of a run can be unpacked into one folder, and SAM 2's trainer finds the number that it expects in a name.
"""

from __future__ import annotations

import io
import json
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from pipeline.errors import ContractError, DamagedError
from pipeline.records import ImageRow, Status
from pipeline.storage.sa1b import mask_of, sa1b_annotation

CONTENTS = "__maskmill__"
"""Name of the tar's first member, the table of contents. WebDataset readers skip names of this form."""
_SA_STEM = re.compile(r"sa_([0-9]{1,16})")


def write_coco_rle(rows: Sequence[ImageRow], metadata: Mapping[str, str]) -> bytes:
    """The same rows and metadata give the same bytes, in any process."""
    names = _names(rows)
    contents = {
        "metadata": dict(sorted(metadata.items())),
        "images": [_contents_entry(row, name) for row, name in zip(rows, names, strict=True)],
    }
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, CONTENTS, contents)
        for row, name in zip(rows, names, strict=True):
            if name is not None:
                _add(tar, name, sa1b_annotation(row))
    return sink.getvalue()


def read_coco_rle(data: bytes, name: str) -> tuple[tuple[ImageRow, ...], dict[str, str]]:
    """raises  DamagedError if `data` is no part of this format, or was damaged."""
    with damage(name), _opened(data) as tar:
        contents, members = _opened_contents(tar)
        rows = tuple(
            _row(each, load_member(tar, members[each["json"]]) if each["json"] else None) for each in contents["images"]
        )
        return rows, dict(contents["metadata"])


def count_coco_rle(data: bytes, name: str) -> tuple[dict[str, int], int, dict[str, str]]:
    """Rows by status, masks and metadata, from the table of contents. Of the JSONs only their presence is checked.

    raises  as `read_coco_rle`
    """
    with damage(name), _opened(data) as tar:
        contents, _ = _opened_contents(tar)
        images = contents["images"]
        statuses = Counter(str(Status(each["status"])) for each in images)
        return dict(statuses), sum(int(each["masks"]) for each in images), dict(contents["metadata"])


def first_contents(file: BinaryIO) -> dict[str, Any]:
    """The table of contents, of which a reader of `file` reads no more than the first member.

    raises  what `damage` translates
    """
    with tarfile.open(fileobj=file, mode="r:") as tar:
        first = tar.next()
        if first is None or first.name != CONTENTS:
            raise ValueError(f"its first member is not {CONTENTS}")
        return load_member(tar, first)


@contextmanager
def damage(name: str) -> Generator[None]:
    """Whatever a damaged tar makes of its reader becomes a DamagedError that names it."""
    try:
        yield
    except (tarfile.TarError, KeyError, ValueError, TypeError, EOFError) as error:
        raise DamagedError(f"{name} is damaged ({type(error).__name__}: {error}); delete it and run again") from error


def _opened(data: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(data), mode="r:")


def _opened_contents(tar: tarfile.TarFile) -> tuple[dict[str, Any], dict[str, tarfile.TarInfo]]:
    """The table of contents, and the other members of the tar. Raises ValueError if it names others than these."""
    members = {info.name: info for info in tar}
    contents = load_member(tar, members.pop(CONTENTS))
    named = {each["json"] for each in contents["images"]} - {None}
    if named != members.keys():
        raise ValueError(f"{CONTENTS} and the files beside it disagree: {sorted(named ^ members.keys())[:3]}")
    return contents, members


def _contents_entry(row: ImageRow, name: str | None) -> dict[str, Any]:
    """What SA-1B's strict JSON has no place for. `json` is the member that holds the rest; null for no masks."""
    return {
        "image_id": row.image_id,
        "file_name": row.file_name,
        "source": row.source,
        "status": str(row.status),
        "error": row.error,
        "width": row.width,
        "height": row.height,
        "exif_orientation": row.exif_orientation,
        "sha256": row.sha256,
        "masks": len(row.masks),
        "json": name,
        "crop_layer": [mask.crop_layer for mask in row.masks],
        "multimask_index": [mask.multimask_index for mask in row.masks],
    }


def _names(rows: Sequence[ImageRow]) -> list[str | None]:
    """Member names, unique in the run because image ids are; None for images without masks."""
    names = [_name(row) if row.status is Status.OK and row.masks else None for row in rows]
    used = [name for name in names if name is not None]
    if len(set(used)) < len(used):
        raise ContractError(f"an image id occurs twice in one part: {sorted(row.image_id for row in rows)}")
    return names


def _name(row: ImageRow) -> str:
    """The image's own stem if that is `sa_` and its id (leading zeros are kept), else `sa_<image_id>`; then `.json`."""
    stem = posixpath.splitext(posixpath.basename(row.file_name))[0]
    number = _SA_STEM.fullmatch(stem)
    is_own = number is not None and int(number[1]) == row.image_id
    return f"{stem if is_own else f'sa_{row.image_id}'}.json"


def _add(tar: tarfile.TarFile, name: str, content: dict[str, Any]) -> None:
    try:
        data = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise ContractError(f"{name}: a mask holds a number that JSON cannot: {error}") from error
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def load_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Any:
    """raises  what `damage` translates"""
    file = tar.extractfile(info)
    if file is None:
        raise ValueError(f"{info.name!r} is no plain file")
    return json.load(file)


def _row(entry: dict[str, Any], annotation: dict[str, Any] | None) -> ImageRow:
    annotations: list[dict[str, Any]] = annotation["annotations"] if annotation else []
    if len(annotations) != entry["masks"]:
        raise ValueError(f"image {entry['image_id']} has {len(annotations)} masks, but {entry['masks']} were written")
    layers = zip(annotations, entry["crop_layer"], entry["multimask_index"], strict=True)
    return ImageRow(
        image_id=entry["image_id"],
        file_name=entry["file_name"],
        source=entry["source"],
        status=Status(entry["status"]),
        error=entry["error"],
        width=entry["width"],
        height=entry["height"],
        exif_orientation=entry["exif_orientation"],
        sha256=entry["sha256"],
        masks=tuple(mask_of(each, crop_layer=layer, multimask_index=index) for each, layer, index in layers),
        first_annotation_id=annotations[0]["id"] if annotations else 0,
    )
