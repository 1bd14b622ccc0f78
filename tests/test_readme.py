"""What the README tells a reader to type, and where it and the pages in docs/ lead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pipeline.records import ImageRow, Mask, Status
from pipeline.settings import Format, Recipe
from pipeline.storage.parts import write_part

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    snippet
    for page in (ROOT / "README.md", ROOT / "docs" / "python.md")
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
]


def mask(area_side: int) -> Mask:
    """A square in the corner of an image of 4 x 6."""
    import numpy as np

    from tests.masks.oracle import encode_mask

    mask_HW = np.zeros((4, 6), dtype=np.bool_)
    mask_HW[:area_side, :area_side] = True
    corner = float(area_side - 1)
    return Mask(
        counts=encode_mask(mask_HW).packed(),
        bbox_xywh=(0.0, 0.0, corner, corner),
        area=area_side**2,
        predicted_iou=0.9,
        stability_score=0.96,
        point_xy=(0.5, 0.5),
        crop_box_xywh=(0.0, 0.0, 6.0, 4.0),
        crop_layer=0,
        multimask_index=1,
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder with a photo, and a finished output at the place that the README's first run writes to."""
    rows = [
        ImageRow(1, "a.jpg", "/a.jpg", Status.OK, width=6, height=4, masks=(mask(2), mask(3)), first_annotation_id=1),
        ImageRow(2, "b.jpg", "/b.jpg", Status.OK, width=6, height=4),
        ImageRow(3, "c.jpg", "/c.jpg", Status.UNREADABLE, error="no image"),
    ]
    data = tmp_path / "out" / "scenes" / "data"
    data.mkdir(parents=True)
    (data / "scenes-00000.parquet").write_bytes(write_part(rows, format=Format.PARQUET, metadata={}))
    Image.new("RGB", (48, 32)).save(tmp_path / "photo.jpg")
    return tmp_path


def test_there_are_snippets_for_every_reader_named() -> None:
    """The test below must not pass because a heading or a fence changed."""
    joined = "\n".join(SNIPPETS)
    for reader in ("MaskGenerator", "pyarrow", "duckdb", "load_dataset", "torch", "pycocotools"):
        assert reader in joined


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_each_snippet_runs_beside_a_photo_and_a_finished_output(snippet: str, dataset: Path) -> None:
    """A reader copies these first; the class is tried on every row as well."""
    if "class Masks" in snippet:
        snippet += (
            "\n\ndata = Masks('out/scenes/data')\nshapes = [getattr(data[i][1], 'shape', None) for i in range(2)]"
        )
        snippet += "\nassert len(data) == 2 and shapes == [(4, 6, 2), None], shapes\n"
    environment = {**os.environ, "HF_HOME": str(dataset / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=dataset, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_every_make_target_that_the_readme_names_exists() -> None:
    """A renamed target leaves its old name behind in prose."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^(?:\$ )?make ([a-z-]+)", README, re.MULTILINE)) | set(
        re.findall(r"`make ([a-z-]+)", README)
    )
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", ["README.md", "docs/generator.md"])
def test_the_thresholds_of_the_default_model_are_on_the_pages_with_the_recipes(page: str) -> None:
    """`recipe=sam` alone does not use the released thresholds, and a reader of its table must learn that there."""
    thresholds = yaml.safe_load((ROOT / "conf" / "model" / "tiny.yaml").read_text())["recipe"]
    text = (ROOT / page).read_text()
    assert set(thresholds) == {"pred_iou_thresh", "stability_score_thresh"}
    for own, released in zip(thresholds.values(), (Recipe.pred_iou_thresh, Recipe.stability_score_thresh), strict=True):
        assert str(own) in text
        assert str(released) in text


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them: `With real weights` is with-real-weights."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_the_repository_leads_to_a_file_and_a_heading(page: Path) -> None:
    """A page that was moved, or a heading that was renamed, leaves links behind."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
    assert links
    for path, _, heading in (link.partition("#") for link in links):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not heading or heading in headings(target), heading


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_place_in_the_code_that_a_page_names_exists(page: Path) -> None:
    """A file or a folder that was moved or renamed leaves its old name behind in prose."""
    named = re.findall(r"`((?:model|pipeline|jobs|conf|benchmarks|tests)/[\w./]*)`", page.read_text())
    assert [place for place in named if not (ROOT / place).exists()] == []


def test_the_readme_lists_every_room() -> None:
    """A room that is missing from the layout is not found."""
    rooms = {f"pipeline/{path.parent.name}/" for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert [room for room in sorted(rooms) if f"| `{room}` |" not in README] == []


def test_the_readme_links_every_page() -> None:
    """A page that nothing leads to is not read."""
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name}" not in README] == []
