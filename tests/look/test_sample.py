"""Which images are shown, and how little is read to find them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.look.sample import PARTS_PER_IMAGE, SPREAD, Sample, sample_images
from pipeline.records import Status
from pipeline.settings import Format, Settings, StoreSettings
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext
from tests.fakes_run import ReadsNoted, drawn_image, write_folder
from tests.output.test_verify import run_without_a_cluster
from tests.small_runs import rows_at, small_run, with_run


def names(sample: Sample) -> list[str]:
    return [sampled.row.file_name for sampled in sample.images]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Forty images in twenty parts."""
    folder = tmp_path_factory.mktemp("many")
    write_folder(folder / "in", {f"im{number:02}.png": drawn_image(number) for number in range(40)})
    settings = with_run(small_run(folder / "in", folder / "out"), images_per_chunk=2)
    run_without_a_cluster(settings, ReadsNoted(StoreSettings()), chunks=20)
    return settings


@pytest.mark.parametrize("format", list(Format))
def test_of_a_small_output_every_image_with_masks_is_shown_in_the_order_of_the_plan(
    looked_at: Settings, store: Store, format: Format
) -> None:
    """And with it the place of its bytes; the one that failed has nothing to show."""
    run_without_a_cluster(replace(looked_at, format=format), store)
    sample = sample_images(looked_at.out, store, images=12, seed=0)
    assert len(sample.images) == 7
    assert names(sample) == sorted(names(sample))
    for sampled in sample.images:
        assert sampled.row.masks
        assert sampled.place is not None
        assert Path(sampled.place.uri).name == sampled.row.file_name


def test_few_parts_are_read_spread_over_the_output(many: Settings) -> None:
    """An output of a million images must not be read to show twelve."""
    store = ReadsNoted(StoreSettings())
    sample = sample_images(many.out, store, images=6, seed=0)
    assert len(sample.images) == 6
    assert sample.read == len(store.parts_read) == len(set(store.parts_read)) == SPREAD
    quarters = {int(name.partition(".")[0].rpartition("-")[2]) * SPREAD // 20 for name in store.parts_read}
    assert quarters == set(range(SPREAD))


def test_the_seed_alone_decides_what_is_shown(many: Settings, store: Store) -> None:
    """A page that somebody describes can be made again."""
    first, again, other = (names(sample_images(many.out, store, images=5, seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert len(set(first)) == 5


def test_where_few_images_have_masks_the_search_for_them_ends(tmp_path: Path, store: Store) -> None:
    """A run on thousands of parts in which everything failed: reading all of them would take hours."""
    write_folder(tmp_path / "in", {f"im{number}.png": b"no image" for number in range(9)})
    settings = with_run(small_run(tmp_path / "in", tmp_path / "out"), images_per_chunk=1)
    run_without_a_cluster(settings, store, chunks=9)
    assert {row.status for row in rows_at(settings.out)} == {Status.UNREADABLE}
    noted = ReadsNoted(StoreSettings())
    with pytest.raises(ConfigError, match=r"no image in the 4 parts read has masks.*of 9.*seed="):
        sample_images(settings.out, noted, images=2, seed=0)
    assert len(noted.parts_read) == PARTS_PER_IMAGE * 2


def test_of_an_unfinished_run_what_is_committed_is_shown(looked_at: Settings, store: Store) -> None:
    """Who looks early wants to know whether the rest is worth its time."""
    run_without_a_cluster(looked_at, store, chunks=1)
    sample = sample_images(looked_at.out, store, images=12, seed=0)
    assert (sample.committed, sample.plan.chunk_count) == (1, 3)
    assert 0 < len(sample.images) <= 3


def test_broken_parts_are_named_and_the_rest_is_shown(context: WorkerContext, store: Store) -> None:
    """One that was cut, and one that is another chunk's."""
    first, second, third = sorted((Path(context.out) / "data").iterdir())
    whole = sample_images(context.out, store, images=12, seed=0)
    first.write_bytes(first.read_bytes()[:100])
    third.write_bytes(second.read_bytes())
    sample = sample_images(context.out, store, images=12, seed=0)
    assert 0 < len(sample.images) < len(whole.images)
    assert first.name in "".join(sample.broken)
    assert f"{third.name} holds 3 rows" in "".join(sample.broken)
    second.write_bytes(b"")
    with pytest.raises(ConfigError, match=f"none of the 3 parts read can be used.*{second.name}"):
        sample_images(context.out, store, images=12, seed=0)


def test_images_whose_place_cannot_be_looked_up_are_shown_without_it(context: WorkerContext, store: Store) -> None:
    """The masks are there; only where the pixels lie is not known any more."""
    for piece in (Path(context.out) / "_job" / "members").iterdir():
        piece.unlink()
    sample = sample_images(context.out, store, images=12, seed=0)
    assert len(sample.images) == 7
    assert all(sampled.place is None and "cannot be looked up" in sampled.why for sampled in sample.images)


def test_rows_of_another_chunk_are_not_taken_for_images_that_have_changed(context: WorkerContext, store: Store) -> None:
    """A part under the name of another is a fault of the output, not of the source."""
    first, second, _ = sorted((Path(context.out) / "data").iterdir())
    second.write_bytes(first.read_bytes())
    images = sample_images(context.out, store, images=12, seed=0).images
    wrong = [sampled.why for sampled in images if sampled.place is None]
    assert 0 < len(wrong) < len(images)
    assert all(why.startswith(f"{second.name} has it where image ") for why in wrong)
