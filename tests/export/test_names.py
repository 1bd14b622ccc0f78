"""What files are called: the image's own name where it can be, and never a name that leads elsewhere."""

from __future__ import annotations

import pytest

from pipeline.export.names import find_names, folded, own_stem
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.work.chunk import WorkerContext
from tests.export.making import NAMES, STEMS

STORE = connect(StoreSettings())


def test_own_names_are_kept_where_no_other_image_has_them(output: WorkerContext) -> None:
    """Shared, hostile and device names become the image's id; the planned failures count as images."""
    names = find_names(output.plan, out=output.out, store=STORE)
    assert {name: names.stem(name, number) for number, name in enumerate(NAMES) if name in STEMS} == STEMS
    every = [folded(names.stem(name, number)) for number, name in enumerate(NAMES)]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "..",
        ".png",
        "a/.hidden.png",
        "-rf.png",
        "~root.png",
        " a.png",
        "a .png",
        "a..png",
        "a\nb.png",
        "a\x1b[31m.png",
        "a\\b.png",
        "a:b.png",
        "NUL.png",
        "com1.tar.png",
        "image_17.png",
        "IMAGE_17.png",
        "_Export.png",
        "index.csv.png",
        "e\u202egnp.png",
        "half\ud800.png",
        "é" * 100 + ".png",
    ],
)
def test_what_no_file_should_be_called_is_no_stem(key: str) -> None:
    """Folders, options, devices, our own files, ids of other images, and what turns a terminal or a name around."""
    assert own_stem(key) == ""


def test_names_that_some_file_system_takes_for_the_same_are_the_same() -> None:
    """macOS stores accents apart, Windows has no case, and ß is folded to ss."""
    assert folded("É") == folded("e\u0301") == folded("é")
    assert folded("STRASSE") == folded("straße")
    assert own_stem("deep/folder.d/IMG 01 (copy).v2.jpeg") == "IMG 01 (copy).v2"
