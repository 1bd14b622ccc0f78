"""A dry run: what it tries, what it reckons, and that it leaves nothing but a plan, which a run takes up."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, RunError
from pipeline.plan.plan import OutputSettings
from pipeline.plan.planning import create_or_load_plan
from pipeline.progress import Progress
from pipeline.records import Chunk, ChunkReport, Funnel, Stage
from pipeline.run.dry_run import dry_run, pieces_of, what_is_left
from pipeline.run.estimate import Estimate, ToDo, estimate_text
from pipeline.run.outcome import Outcome
from pipeline.settings import Settings
from pipeline.signals import StopFlag
from pipeline.storage.store import Store
from tests.fakes_run import Notes, drawn_image, fake_weights, write_folder
from tests.small_runs import context_of, parts_of, run, small_run, with_run


def tried(settings: Settings, progress: Progress | None = None) -> Estimate:
    return dry_run(settings, progress=progress or Notes(), find_weights=fake_weights, stop=StopFlag())


def files_in(out: str) -> set[str]:
    return {path.relative_to(out).parts[1] for path in Path(out).rglob("*") if path.is_file()}


def report(seconds: float, *, images: int = 2, masks: int = 20, written: int = 1200) -> ChunkReport:
    return ChunkReport(
        "a-00000",
        won=True,
        images={"ok": images},
        masks=masks,
        funnel=Funnel(),
        seconds={Stage.COMPUTE: seconds * images * 0.75, Stage.RLE: seconds * images * 0.25, Stage.READ: 9.0},
        bytes_written=written,
    )


TO_DO = ToDo(images_planned=1_100, images=1_000, chunks=250, reads=1_010, writes=250)
ESTIMATE = Estimate(
    to_do=TO_DO,
    reports=(report(1.0), report(3.0)),
    worked_s=8.0,
    start_s=20.0,
    workers=5,
    on="a GPU",
    empty_part=1_000,
    price_per_hour=3.6,
)


def test_the_whole_is_reckoned_from_what_the_workers_took_for_what_was_tried():
    """Two seconds of a worker an image; five workers at hand, though fewer may have tried."""
    assert ESTIMATE.images_per_s == pytest.approx(2.5)
    assert ESTIMATE.work_s == pytest.approx(400.0)
    assert ESTIMATE.device_hours == pytest.approx(2000 / 3600)
    assert ESTIMATE.output_bytes == 250 * 1_000 + 1_000 * 100
    error = 1.96 * (math.sqrt(2) / math.sqrt(2)) / 2.0
    assert ESTIMATE.spread == pytest.approx((2.5 / (1 + error), 2.5 / (1 - error)))


def test_what_is_told():
    """One line for each thing that somebody asks before a run."""
    lines = estimate_text(ESTIMATE).splitlines()
    assert lines[0] == "Maskmill: dry run, 4 of 1,000 images tried; nothing but the plan was written"
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[1:]}
    assert told["left"] == "1,000 images in 250 chunks, 100 images done"
    assert told["tried"] == "4 ok, 0 failed, 10.0 masks per image"
    assert told["speed"].startswith("2.50 images/s (1.26 to 125.00 with 95 % confidence) with the 5 workers at hand")
    assert told["time"] == "7 min, of which 20 s to start"
    assert told["device"] == "0.56 device-hours"
    assert told["output"] == "350 kB in 250 parts"
    assert told["requests"] == "1,010 reads and 250 writes of objects"
    assert told["price"] == "2.00 at run.price_per_hour=3.6"


@pytest.mark.parametrize("images", [1, 2, 7, 16, 33, 64, 1000])
@pytest.mark.parametrize("sizes", [[1], [5, 5, 3], [64] * 10, [1] * 40, [300, 1, 2]])
def test_pieces_lie_in_their_chunks_spread_over_all_and_none_twice(images: int, sizes: list[int]):
    """A shard that is unlike the others must be seen."""
    chunks = [Chunk("a", number, 100 * number, 100 * number + size) for number, size in enumerate(sizes)]
    chunks = [Chunk(f"s{number}", 3, 4, 4 + size) for number, size in enumerate(sizes)] if max(sizes) > 99 else chunks
    pieces = list(pieces_of(chunks, images=images, seed="s"))
    members = [(piece.shard, member) for piece in pieces for member in range(piece.start, piece.stop)]
    assert len(set(members)) == len(members) <= min(images, sum(sizes))
    assert set(members) <= {(chunk.shard, member) for chunk in chunks for member in range(chunk.start, chunk.stop)}
    assert all(piece.stop > piece.start for piece in pieces)
    assert len({piece.chunk_id for piece in pieces}) == len(pieces)
    if sizes == [64] * 10 and images >= 16:
        assert {piece.start // 100 for piece in pieces} == set(range(10))
    assert members == sorted(members, key=lambda each: (int(each[0][1:] or 0), each[1]))


def test_other_seeds_try_other_images():
    """And the same plan tries the same."""
    chunks = [Chunk("a", number, 64 * number, 64 * number + 64) for number in range(10)]
    first, again, other = (list(pieces_of(chunks, images=32, seed=seed)) for seed in ("s", "s", "t"))
    assert first == again != other
    assert all(one.stop <= two.start for one, two in pairwise(first))


def test_nothing_but_the_plan_is_written_and_a_run_takes_it_up(
    cluster: str, settings: Settings, finished: tuple[Settings, Outcome]
):
    """The parts are those of a run that nobody tried before."""
    notes = Notes()
    settings = with_run(settings, dry_images=6, max_workers=2)
    estimate = tried(settings, notes)
    assert files_in(settings.out) == {"plan.json", "members"}
    assert estimate.tried == 6
    assert estimate.to_do == ToDo(images_planned=13, images=13, chunks=5, reads=0, writes=0)
    assert estimate.workers == 2
    assert estimate.images_per_s > 0
    assert notes.standings[-1].images_total == 6
    outcome = run(settings)
    assert outcome.manifest is not None
    assert outcome.found_chunks == 0
    assert parts_of(settings.out) == parts_of(finished[0].out)
    with pytest.raises(ConfigError, match="nothing is left to estimate, all 5 chunks are committed"):
        tried(settings)


def test_requests_are_counted_where_they_are_paid_for(settings: Settings, store: Store):
    """Images on a disk, parts in S3: a read of each shard's index in each worker, a write a part. And the reverse."""
    plan = context_of(settings, store).plan
    chunks = list(plan.chunks())
    to_s3 = what_is_left(plan, chunks, out="s3://bucket/out", workers=2)
    assert (to_s3.reads, to_s3.writes) == (4, 5)
    shards = tuple(replace(each, shard=replace(each.shard, uri="s3://bucket/in")) for each in plan.shards)
    from_s3 = what_is_left(replace(plan, shards=shards), chunks[1:], out="/out", workers=2)
    assert (from_s3.images, from_s3.reads, from_s3.writes) == (10, 10, 0)


def test_a_source_that_cannot_be_tried_is_told(cluster: str, tmp_path: Path, store: Store):
    """It is no estimate of nothing."""
    pictures = write_folder(tmp_path / "pictures", {f"{number}.png": drawn_image(number) for number in range(4)})
    settings = small_run(pictures, tmp_path / "out")
    weights = fake_weights(settings, store)
    create_or_load_plan(OutputSettings.of(settings, weights_sha256=weights.sha256), out=settings.out, store=store)
    pictures.rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="none of the 4 images could be tried"):
        tried(settings)
