"""One chunk without Ray: every member becomes one row, and the part is the commit."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from pipeline.errors import ContractError
from pipeline.masks.points import EVERYTHING, Prompts
from pipeline.plan.layout import part_uri
from pipeline.plan.part_metadata import part_metadata
from pipeline.plan.plan import Plan
from pipeline.records import Attempt, Funnel, ImageMasks, Stage
from pipeline.settings import Settings
from pipeline.storage.store import Store
from pipeline.work.chunk import process_chunk
from pipeline.work.device import Image_HW3
from pipeline.work.stopwatch import Stopwatch
from tests.fakes_run import drawn_image, write_folder
from tests.small_runs import context_of, generate, part_of, parts_of, rows_of, work


def test_rows_are_the_members_in_order_with_masks_and_hashes(settings: Settings, store: Store, source: Path):
    """The plan says which rows there are; the part says what became of them."""
    context = context_of(settings, store)
    reports = work(context)
    rows = rows_of(context)
    assert [row.file_name for row in rows[:8]] == [f"im{number}.png" for number in range(8)]
    assert {str(row.status) for row in rows} == {"ok"}
    data = (source / "im3.png").read_bytes()
    with Image.open(source / "im3.png") as image:
        assert (rows[3].width, rows[3].height) == image.size
    assert rows[3].sha256 == hashlib.sha256(data).hexdigest()
    assert rows[3].source == str(source / "im3.png")
    assert sum(report.masks for report in reports) == sum(len(row.masks) for row in rows) > 13
    assert all(report.won for report in reports)
    assert set(reports[0].seconds) == set(Stage)


def test_the_report_has_the_bytes_that_were_read_and_written_whatever_became_of_the_images(
    settings: Settings, store: Store, tmp_path: Path
):
    """Bad images cost their traffic too."""
    images = {"a.png": drawn_image(1), "b.png": b"no image at all", "c.jpg": b""}
    context = context_of(replace(settings, source=str(write_folder(tmp_path / "in", images))), store)
    [report] = work(context)
    assert report.images == {"ok": 1, "unreadable": 2}
    assert report.bytes_read == sum(map(len, images.values()))
    assert [report.bytes_written] == [len(part) for part in parts_of(context.out).values()]


def test_a_turned_image_is_a_row_of_its_upright_size_with_the_orientation_that_was_undone(
    settings: Settings, store: Store, tmp_path: Path
):
    """Masks are in the frame that the row's width and height say; the file has another."""
    sink, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (60, 40), (200, 10, 10)).save(sink, "JPEG", exif=exif)
    folder = write_folder(tmp_path / "in", {"a.jpg": sink.getvalue()})
    context = context_of(replace(settings, source=str(folder)), store)
    work(context)
    [row] = rows_of(context)
    assert (row.width, row.height, row.exif_orientation) == (40, 60, 6)


def test_annotation_ids_are_ordinal_times_stride(settings: Settings, store: Store):
    """Unique over the run, whatever any other chunk holds."""
    context = context_of(settings, store)
    work(context)
    stride = context.plan.annotation_stride
    assert stride == 64
    assert [row.first_annotation_id for row in rows_of(context)] == [ordinal * stride + 1 for ordinal in range(13)]


def test_metadata_says_how_and_not_where_or_when(settings: Settings, store: Store):
    """A part must explain itself, and be the same wherever it was made."""
    context = context_of(settings, store)
    report = process_chunk(Attempt(next(context.plan.chunks())), context)
    metadata = part_of(context).metadata
    assert json.loads(metadata["recipe"])["points_per_side"] == 4
    assert (metadata["model_name"], metadata["model_precision"]) == ("small", "fp32")
    assert metadata["plan_sha256"] == context.plan.sha256
    assert metadata["settings_sha256"] == context.plan.settings_sha256
    funnel = json.loads(metadata["funnel"])
    assert funnel["kept"] == report.masks
    assert funnel["candidates"] == 48
    assert not any(str(settings.out) in value for value in metadata.values())
    assert not {"checkpoint_notes", "model_family", "checkpoint_layout"} & metadata.keys()
    known = {"checkpoint_notes": ("one", "two"), "model_family": "sam2", "checkpoint_layout": "released"}
    told = part_metadata(replace(context.plan, settings=replace(context.plan.settings, **known)), {}, Funnel())
    assert (told["model_family"], told["checkpoint_layout"]) == ("sam2", "released")
    assert json.loads(told["checkpoint_notes"]) == ["one", "two"]


def test_the_second_writer_of_a_chunk_changes_nothing(settings: Settings, store: Store):
    """First wins: what a reader has seen stays."""
    context = context_of(settings, store)
    chunk = next(context.plan.chunks())
    assert process_chunk(Attempt(chunk), context).won
    before = store.read(part_uri(context.out, context.plan, chunk))
    assert not process_chunk(Attempt(chunk), context).won
    assert store.read(part_uri(context.out, context.plan, chunk)) == before


def test_more_masks_than_ids_is_a_broken_promise(settings: Settings, store: Store):
    """Overflowing ids would collide with the next image's."""
    context = context_of(settings, store)

    def too_many(image_HW3: Image_HW3, watch: Stopwatch, _prompts: Prompts = EVERYTHING, /) -> ImageMasks:
        result = generate(image_HW3, watch)
        return replace(result, masks=result.masks * 64)

    with pytest.raises(ContractError, match="annotation ids"):
        process_chunk(Attempt(next(context.plan.chunks())), replace(context, generate=too_many))


def test_plan_and_members_agree_on_counts_or_the_chunk_fails(settings: Settings, store: Store):
    """rows in = rows out starts with the right number of members."""
    context = context_of(settings, store)
    first = context.plan.shards[0]
    longer = replace(first, shard=replace(first.shard, member_count=9))
    plan = Plan(settings=context.plan.settings, shards=(longer, *context.plan.shards[1:]))
    with pytest.raises(ContractError, match="3 images planned, but its index holds 2"):
        process_chunk(Attempt(list(plan.chunks())[2]), replace(context, plan=plan))


def test_a_careful_chunk_marks_each_image_when_its_bytes_are_there(settings: Settings, store: Store):
    """After a death the last mark is all that is known. Decoding can kill; waiting for a store is no image's fault."""
    context = context_of(settings, store)
    seen: list[object] = []

    class Watched:
        def read(self, uri: str, **how: object) -> bytes:
            seen.append(uri.rpartition("/")[2])
            return store.read(uri, **how)  # type: ignore[arg-type]

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

    chunk = next(context.plan.chunks())
    context = replace(context, store=Watched())  # type: ignore[arg-type]
    process_chunk(Attempt(chunk, careful=True), context, mark=seen.append)
    assert seen[0] is None
    assert seen[2:] == [None, "im0.png", 0, None, "im1.png", 1, None, "im2.png", 2, None]


def test_a_careful_chunk_has_the_bytes_of_any_other(settings: Settings, store: Store, tmp_path: Path):
    """How often a chunk was tried must not show in its part."""
    context = context_of(settings, store)
    process_chunk(Attempt(next(context.plan.chunks())), context)
    other = context_of(replace(settings, out=str(tmp_path / "other")), store)
    process_chunk(Attempt(next(other.plan.chunks()), number=7, careful=True), other)
    assert parts_of(context.out) == parts_of(other.out)


def test_an_image_that_is_known_to_crash_is_a_row_and_is_not_touched(settings: Settings, store: Store):
    """Not even read: the reader may be what dies."""
    context = context_of(settings, store)
    Path(settings.source, "im1.png").rename(Path(settings.source, "im1.moved"))
    try:
        process_chunk(Attempt(next(context.plan.chunks()), careful=True, crashed={1: "it died"}), context)
    finally:
        Path(settings.source, "im1.moved").rename(Path(settings.source, "im1.png"))
    rows = part_of(context).rows
    assert [row.status for row in rows] == ["ok", "crashed", "ok"]
    assert (rows[1].error, rows[1].file_name, rows[1].masks) == ("it died", "im1.png", ())
