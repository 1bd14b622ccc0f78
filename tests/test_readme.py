"""What the README tells a reader to type, and where it and the pages in docs/ lead."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pipeline.settings import Format, Recipe, StoreSettings
from pipeline.storage.connect import connect
from tests.fakes_run import drawn_image, write_folder
from tests.output.test_verify import run_without_a_cluster
from tests.small_runs import small_run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = {
    f"{page}:{number}": snippet
    for page in ("README.md", "docs/python.md", "docs/loading.md")
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
}
"""The snippets of Python that a reader copies."""
RUN_ALL = """
import json, sys, traceback

failed = 0
for name, snippet in json.load(sys.stdin).items():
    try:
        exec(compile(snippet, name, "exec"), {"__name__": name})
    except BaseException:
        failed += 1
        print(name, file=sys.stderr)
        traceback.print_exc()
sys.exit(failed)
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder with a photo, and two finished outputs where the pages have them: of tables and of tars."""
    pictures = {f"im{number}.png": drawn_image(number) for number in range(3)}
    source = write_folder(tmp_path / "scenes", {**pictures, "broken.png": b"no image"})
    for out, format in (("scenes", Format.PARQUET), ("tars", Format.COCO_RLE)):
        settings = replace(small_run(source, tmp_path / "out" / out), format=format)
        run_without_a_cluster(settings, connect(StoreSettings()))
    Image.new("RGB", (48, 32)).save(tmp_path / "photo.jpg")
    return tmp_path


def test_there_are_snippets_for_every_reader_named() -> None:
    """The test below must not pass because a heading or a fence changed."""
    joined = "\n".join(SNIPPETS.values())
    for reader in (
        *("MaskGenerator", "MaskDataset", "pyarrow", "pandas", "polars", "duckdb", "load_dataset", "streaming=True"),
        *("webdataset", "pycocotools"),
    ):
        assert reader in joined


def test_every_snippet_runs_beside_a_photo_and_two_outputs(dataset: Path) -> None:
    """As a reader copies it, with nothing of the others; in one process, since what they import takes long."""
    environment = {
        **os.environ,
        "HF_HOME": str(dataset / "hf"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(SNIPPETS),
        cwd=dataset,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
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
    thresholds = yaml.safe_load((ROOT / "conf" / "model" / "small.yaml").read_text())["recipe"]
    text = (ROOT / page).read_text()
    assert thresholds
    for name, own in thresholds.items():
        assert str(own) in text
        assert str(getattr(Recipe, name)) in text


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
