"""The dataset card: an output is opened by the name of its folder, and what the card says is so."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import pipeline
from pipeline.output.card import CardCounts, card
from pipeline.output.finish import count_parts
from pipeline.output.manifest import publish, unpublish
from pipeline.settings import Format, ModelSettings, Settings
from pipeline.storage.store import Store
from tests.fakes_run import Notes, drawn_image, write_folder
from tests.output.test_verify import run_without_a_cluster, verified, whats
from tests.small_runs import context_of


@pytest.fixture
def published(settings: Settings, tmp_path: Path, store: Store) -> Path:
    """OUT of a finished run of four images, of which one is broken."""
    images = {f"{number}.png": drawn_image(number) for number in range(3)} | {"broken.png": b"no image"}
    source = write_folder(tmp_path / "four", images)
    run_without_a_cluster(replace(settings, source=str(source)), store)
    return Path(settings.out)


@pytest.fixture
def load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`datasets.load_dataset`, without the network or the user's cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    def load(path: Path) -> Any:
        return datasets.load_dataset(str(path), cache_dir=str(tmp_path / "cache"))

    return load


def test_an_output_opens_by_the_name_of_its_folder(published: Path, load_dataset: Any):
    """`_job/` holds Parquet and JSON as well, of other columns."""
    from datasets.exceptions import DatasetGenerationError

    splits = load_dataset(published)
    assert list(splits) == ["train"]
    expected = pq.read_table(published / "data")
    assert splits["train"].num_rows == 4
    assert splits["train"].column_names == expected.column_names
    assert splits["train"].to_list() == expected.to_pylist()
    (published / "README.md").unlink()
    with pytest.raises(DatasetGenerationError):  # so it is the card that does it
        load_dataset(published)


def test_the_card_says_what_the_output_is_and_verify_does_not_mind_it(published: Path, store: Store):
    """Its reader has nothing else at hand."""
    card = (published / "README.md").read_text(encoding="utf-8")
    _, header, text = card.split("---\n", 2)
    told = yaml.safe_load(header)
    assert told["configs"] == [{"config_name": "default", "data_files": "data/*.parquet"}]
    assert told["size_categories"] == ["n<1K"]
    assert "mask-generation" in told["task_categories"]
    rows = pq.read_table(published / "data")
    masks = sum(len(annotations) for annotations in rows["annotations"].to_pylist())
    assert masks > 0
    assert f"{masks:,} masks of 4 images" in text
    files = list((published / "data").iterdir())
    size = sum(path.stat().st_size for path in files)
    assert " ".join(f"{len(files)} Parquet files of {size:,} bytes".split()) in " ".join(text.split())
    assert text.count("Images that failed: 1 unreadable.") == 2
    assert all(f"`{column}`" in text for column in rows.column_names)
    assert all(f"`{field.name}`" in text for field in rows.schema.field("annotations").type.value_type)
    assert f"Maskmill {pipeline.__version__}" in text
    assert "| model | `small` |" in text
    assert f"| weights, sha256 | `{'w' * 64}` |" in text
    assert "| recipe.points_per_side | `4` |" in text
    assert whats(verified(str(published), store)) == ""


@pytest.mark.parametrize(
    ("images", "category"), [(999, "n<1K"), (1_000, "1K<n<10K"), (11_186_000, "10M<n<100M"), (2 * 10**9, "1B<n<10B")]
)
def test_the_hub_sorts_by_size(settings: Settings, store: Store, images: int, category: str):
    """Its words; SA-1B has 11 million images."""
    text = card(context_of(settings, store).plan, CardCounts(images, 5, 1, 1, {})).decode()
    assert yaml.safe_load(text.split("---\n")[1])["size_categories"] == [category]
    assert text.count("No image failed.") == 2


def test_the_card_says_what_the_checkpoint_is_and_what_was_left_out_of_it(settings: Settings, store: Store):
    """Whoever makes the masks again must know which part of the file the model was."""
    plan = context_of(settings, store).plan
    assert "left out of the checkpoint" not in card(plan, CardCounts(1, 5, 1, 1, {})).decode()
    known = {"checkpoint_notes": ("one", "two"), "model_family": "sam2", "checkpoint_layout": "hugging_face"}
    noted = replace(plan, settings=replace(plan.settings, **known))
    assert (
        "| family | `sam2` |\n| names in the checkpoint | `hugging_face` |"
        in card(noted, CardCounts(1, 5, 1, 1, {})).decode()
    )
    assert "| left out of the checkpoint | `one; two` |" in card(noted, CardCounts(1, 5, 1, 1, {})).decode()


def test_equal_runs_have_equal_cards(settings: Settings, tmp_path: Path, store: Store):
    """Nothing in it depends on where OUT is, or on the day."""
    cards: list[str] = []
    for name in ("one", "two"):
        out = tmp_path / name
        run_without_a_cluster(replace(settings, out=str(out)), store)
        cards.append(hashlib.sha256((out / "README.md").read_bytes()).hexdigest())
        assert str(tmp_path) not in (out / "README.md").read_text(encoding="utf-8")
    assert cards[0] == cards[1]


def test_an_edited_card_is_left_alone(settings: Settings, store: Store):
    """Whoever publishes a dataset writes more into it; repeating the command must not take that away."""
    context = run_without_a_cluster(settings, store)
    path = Path(settings.out) / "README.md"
    path.write_text("mine")
    (Path(settings.out) / "_SUCCESS").unlink()
    publish(count_parts(context.plan, out=settings.out, store=store, progress=Notes()), out=settings.out, store=store)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("edit", [b"", b"more\n"], ids=["as written", "edited"])
def test_a_run_that_goes_on_takes_back_its_own_card_and_no_edited_one(published: Path, store: Store, edit: bytes):
    """With run.retry_failed failed images may get masks: the old numbers would be untrue."""
    path = published / "README.md"
    path.write_bytes(path.read_bytes() + edit)
    unpublish(out=str(published), store=store)
    assert path.exists() == bool(edit)
    unpublish(out=str(published), store=store)  # by a command that was killed in the middle of it


def test_an_output_of_tars_has_no_card(settings: Settings, store: Store):
    """`datasets` does not read its annotations, and a header that says so would be untrue."""
    run_without_a_cluster(replace(settings, format=Format.COCO_RLE), store)
    assert not (Path(settings.out) / "README.md").exists()


def test_a_name_in_the_card_cannot_leave_its_line(settings: Settings, store: Store):
    """The model's name is free text for whoever brings a model of their own."""
    hostile = ModelSettings(name="x\n---\n\x1b[31m")
    run_without_a_cluster(replace(settings, model=hostile), store)
    card = (Path(settings.out) / "README.md").read_text(encoding="utf-8")
    assert r"| model | `x\x0a---\x0a\x1b[31m` |" in card
