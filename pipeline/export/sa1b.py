"""SA-1B's own layout: tars of `sa_<image_id>.json`, and of the images beside them where these are asked for.

Owns how images are spread over tars: those of a chunk are in one, which is continued in another if it gets large.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterator

from pipeline.export.names import file_extension
from pipeline.export.records import ExportImage, File, Item, Joined, LeftOut, index_file, index_item, json_bytes
from pipeline.storage.sa1b import sa1b_annotation

TAR_BYTES = 256 * 2**20
"""A tar that has more is closed. One tar for each thread is in memory."""


class Sa1bTars:
    """See `Writer`. Images without masks are left out: several readers fail on a file without annotations."""

    joined: tuple[Joined, ...] = (index_file(),)
    constant: tuple[File, ...] = ()
    named_by_stem = False
    is_one_file = False

    def write(self, images: Iterator[ExportImage], number: int) -> Iterator[File | Item | LeftOut]:
        """The tars of a chunk are sa_<number>.tar, sa_<number>_1.tar, ..."""
        tar = _Tar()
        count = 0
        for image in images:
            if not image.row.masks:
                continue
            if tar.size >= TAR_BYTES:
                yield File(_name(number, count), tar.closed())
                tar, count = _Tar(), count + 1
            yield index_item(image.row, f"{_name(number, count)}/{_add(tar, image)}")
        if tar.size:
            yield File(_name(number, count), tar.closed())


def _name(number: int, count: int) -> str:
    return f"sa_{number:06d}{f'_{count}' if count else ''}.tar"


def _add(tar: _Tar, image: ExportImage) -> str:
    """The name of the JSON. Its image stands before it, as in SA-1B, and the JSON says under which name."""
    stem = f"sa_{image.row.image_id}"
    annotation = sa1b_annotation(image.row)
    if image.data is not None:
        name = stem + (file_extension(image.row.file_name, image.data))
        annotation["image"]["file_name"] = name
        tar.add(name, image.data)
    else:
        annotation["image"]["file_name"] = posixpath.basename(image.row.file_name)
    tar.add(f"{stem}.json", json_bytes(annotation))
    return f"{stem}.json"


class _Tar:
    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._sink, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - see closed

    @property
    def size(self) -> int:
        return self._sink.tell()

    def add(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))

    def closed(self) -> bytes:
        self._tar.close()
        return self._sink.getvalue()
