"""What reading an export back takes: every file of it into Python objects, by the plainest reader that its form has.

Owns these readers. JSON is parsed by the standard library, so masks stay run lengths or polygons there; PNGs are
decoded by Pillow; YOLO's lines become floats. No reader makes pixels of run lengths or polygons.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.export.records import Form


def read_back(form: str, folder: Path) -> int:
    """The masks that were found; of label maps the levels, which are fewer where masks hide others."""
    return sum(READERS[form](folder))


def _plain(folder: Path) -> Iterator[int]:
    for path in folder.glob("*.json"):
        yield len(json.loads(path.read_bytes())["annotations"])


def _sa1b(folder: Path) -> Iterator[int]:
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and member.name.endswith(".json"):
                    yield len(json.load(file)["annotations"])


def _one_json(name: str, count: Callable[[Any], int]) -> Callable[[Path], Iterator[int]]:
    def read(folder: Path) -> Iterator[int]:
        yield count(json.loads((folder / name).read_bytes()))

    return read


def _in_items(document: Any) -> int:
    return sum(len(item["annotations"]) for item in document["items"])


def _label_map(folder: Path) -> Iterator[int]:
    for path in folder.glob("*.png"):
        yield len(np.unique(np.asarray(Image.open(path)))) - 1


def _png(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*.png"):
        yield int(np.asarray(Image.open(path)).any())


def _yolo(folder: Path) -> Iterator[int]:
    for path in folder.glob("labels/*.txt"):
        yield sum(bool([float(word) for word in line.split()]) for line in path.read_text().splitlines())


def _labelme(folder: Path) -> Iterator[int]:
    for path in folder.glob("*.json"):
        yield len({shape["group_id"] for shape in json.loads(path.read_bytes())["shapes"]})


PLAIN = "plain"
READERS: Mapping[str, Callable[[Path], Iterator[int]]] = {
    PLAIN: _plain,
    Form.SA1B: _sa1b,
    Form.COCO: _one_json("instances.json", lambda document: len(document["annotations"])),
    Form.COCO_RESULTS: _one_json("results.json", len),
    Form.DATUMARO: _one_json("annotations/default.json", _in_items),
    Form.LABEL_MAP: _label_map,
    Form.PNG: _png,
    Form.YOLO: _yolo,
    Form.LABELME: _labelme,
}
