"""The recount: what is whole passes, and every way in which an output can be wrong is found and named."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.verify import main
from pipeline.errors import ConfigError
from pipeline.output.finish import count_parts
from pipeline.output.manifest import find_parts, publish
from pipeline.output.verify import SHOWN_PER_PART, Verification, verify_output
from pipeline.plan.layout import members_uri, plan_uri
from pipeline.plan.plan import plan_to_json
from pipeline.progress import Lines
from pipeline.records import Attempt, ImageRow, Status
from pipeline.settings import Format, Settings
from pipeline.storage.parts import read_part, write_part
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext, process_chunk
from tests.fakes_run import Notes, drawn_image, write_folder
from tests.small_runs import context_of, parts_of, small_run


def run_without_a_cluster(settings: Settings, store: Store, *, chunks: int | None = None) -> WorkerContext:
    """A real output; finished and published unless only some `chunks` are asked for."""
    context = context_of(settings, store)
    for chunk in list(context.plan.chunks())[:chunks]:
        process_chunk(Attempt(chunk), context)
    if chunks is None:
        publish(
            count_parts(context.plan, out=settings.out, store=store, progress=Notes()), out=settings.out, store=store
        )
    return context


def verified(out: str, store: Store) -> Verification:
    return verify_output(out, store, Lines(io.StringIO()))


def whats(found: Verification) -> str:
    return "\n".join(f"{problem.where}: {problem.what}" for problem in found.problems)


@pytest.mark.parametrize("format", list(Format))
def test_a_finished_run_is_complete_and_sound(settings: Settings, store: Store, format: Format):
    """With an image that cannot be decoded: a failure that has its row is no problem of the output."""
    write_folder(Path(settings.out).parent / "own", {"a.png": drawn_image(1), "b.png": b"no image", "c.png": b""})
    settings = replace(settings, source=str(Path(settings.out).parent / "own"), format=format)
    context = run_without_a_cluster(settings, store)
    found = verified(settings.out, store)
    assert whats(found) == ""
    assert found.finished
    assert found.parts == context.plan.chunk_count
    assert found.images == {"ok": 1, "unreadable": 2}
    assert found.masks > 0


def test_a_run_that_goes_on_is_sound_but_not_finished(settings: Settings, store: Store):
    """Parts that are not there yet are no problem before _SUCCESS says that they are."""
    run_without_a_cluster(settings, store, chunks=2)
    found = verified(settings.out, store)
    assert whats(found) == ""
    assert not found.finished
    assert (found.parts, found.images.total()) == (2, 6)


def rewritten(context: WorkerContext, change: Callable[[Sequence[ImageRow]], Sequence[ImageRow]]) -> str:
    """Replace the first part by a whole one with other rows, as a bug would; returns its name."""
    name = next(iter(parts_of(context.out)))
    path = Path(context.out) / "data" / name
    part = read_part(path.read_bytes(), format=Format.PARQUET)
    path.write_bytes(write_part(change(part.rows), format=Format.PARQUET, metadata=part.metadata))
    return name


def with_masks(row: ImageRow, **changes: object) -> ImageRow:
    first = replace(row.masks[0], **changes)  # type: ignore[arg-type]
    return replace(row, masks=(first, *row.masks[1:]))


def runs_of_another_frame(row: ImageRow) -> ImageRow:
    return replace(row, height=row.height + 1)


CHANGES: dict[str, tuple[Callable[[ImageRow], ImageRow], str]] = {
    "area": (lambda row: with_masks(row, area=row.masks[0].area + 1), "area"),
    "box": (lambda row: with_masks(row, bbox_xywh=(0.0, 0.0, 1.0, 1.0)), "box"),
    "frame": (runs_of_another_frame, "pixels"),
    "counts": (lambda row: with_masks(row, counts="\x7f\x7f"), "run lengths"),
    "image id": (lambda row: replace(row, image_id=12345), "was planned"),
    "source": (lambda row: replace(row, source=row.source + "x"), "was planned"),
    "file name": (lambda row: replace(row, file_name="other.png"), "was planned"),
    "annotation ids": (lambda row: replace(row, first_annotation_id=row.first_annotation_id + 1), "annotation ids"),
    "status": (lambda row: replace(row, status=Status.MISSING), "missing with"),
    "reason": (lambda row: replace(row, status=Status.MISSING, masks=(), error=""), "missing with 0 masks"),
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_rows_that_are_not_what_they_should_be_are_named(settings: Settings, store: Store, what: str):
    """Each is a bug that a checksum of the part would not see, for the part was written like that."""
    change, said = CHANGES[what]
    context = run_without_a_cluster(settings, store, chunks=2)
    name = rewritten(context, lambda rows: [change(rows[0]), *rows[1:]])
    found = verified(settings.out, store)
    assert name in whats(found)
    assert said in whats(found)


def test_of_many_problems_of_one_part_five_are_told_and_the_rest_is_counted(settings: Settings, store: Store):
    """A thousand lines of the same hide the one of another part; none at all would hide how bad it is."""
    context = run_without_a_cluster(settings, store, chunks=1)
    masks = 0

    def all_larger(rows: Sequence[ImageRow]) -> Sequence[ImageRow]:
        nonlocal masks
        masks = sum(len(row.masks) for row in rows)
        return [replace(row, masks=tuple(replace(mask, area=mask.area + 1) for mask in row.masks)) for row in rows]

    rewritten(context, all_larger)
    found = verified(settings.out, store)
    assert masks > SHOWN_PER_PART
    assert len(found.problems) == SHOWN_PER_PART + 1
    assert found.problems[-1].what == f"and {masks - SHOWN_PER_PART} more of the kind"


def test_image_ids_that_occur_twice_are_found(settings: Settings, store: Store):
    """A planner's bug: every row is as planned, and readers that join by id mix two images."""
    plan = context_of(settings, store).plan
    Path(plan_uri(settings.out)).write_bytes(plan_to_json(replace(plan, id_base=0)))
    assert "5 image ids occur twice: [0, 1, 2, 3, 4]" in whats(verified(settings.out, store))


def test_lost_and_doubled_rows_are_found(settings: Settings, store: Store):
    """The promise of the product: every image in exactly one row."""
    context = run_without_a_cluster(settings, store, chunks=2)
    rewritten(context, lambda rows: rows[1:])
    assert "2 rows, but 3 images were planned" in whats(verified(settings.out, store))
    rewritten(context, lambda rows: [*rows, rows[0]])
    assert "a row of image" in whats(verified(settings.out, store))


def test_every_flipped_bit_of_a_published_part_is_found(settings: Settings, store: Store):
    """Some flips hide in bytes that no reader looks at; the manifest's checksum sees them all."""
    run_without_a_cluster(settings, store)
    path = next((Path(settings.out) / "data").iterdir())
    whole = path.read_bytes()
    for position in range(3, len(whole), len(whole) // 12):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        assert path.name in whats(verified(settings.out, store)), position


def test_files_of_no_run_gone_parts_and_a_changed_index_are_found(settings: Settings, store: Store):
    """A glob over data/ reads whatever lies there."""
    context = run_without_a_cluster(settings, store)
    data = Path(settings.out) / "data"
    name = next(iter(parts_of(settings.out)))
    (data / "old").mkdir()
    shutil.copy(data / name, data / "old" / name)
    os.rename(data / name, data / "copy.parquet")
    found = verified(settings.out, store)
    assert "data/copy.parquet: no part of this run" in whats(found)
    assert f"data/old/{name}: no part of this run" in whats(found)
    assert len(find_parts(context.plan, out=settings.out, store=store).committed) == 4
    assert f"{name}: planned and published, but gone" in whats(found)
    assert not found.finished
    planned = context.plan.shards[0]
    index = Path(members_uri(settings.out, planned.shard.name, *planned.members_sha256))
    index.write_bytes(index.read_bytes() + b" ")
    assert f"{index} is not the member index that was planned" in whats(verified(settings.out, store))
    index.unlink()
    assert f"{index} does not exist" in whats(verified(settings.out, store))


def test_a_place_without_a_run_is_refused(store: Store, tmp_path: Path):
    """Nothing found must not look like nothing wrong."""
    with pytest.raises(ConfigError, match="holds no run"):
        verified(str(tmp_path), store)


def test_the_command_ends_with_a_code_that_scripts_can_use(
    source: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """0 complete and sound, 3 not finished, 4 something wrong, 2 no such run."""
    settings = small_run(source, tmp_path / "out")

    def command(out: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["verify", f"out={out}"])
        return main(), capsys.readouterr().out

    context = run_without_a_cluster(settings, store, chunks=1)
    assert command(settings.out)[0] == 3
    for chunk in context.plan.chunks():
        process_chunk(Attempt(chunk), context)
    publish(count_parts(context.plan, out=settings.out, store=store, progress=Notes()), out=settings.out, store=store)
    code, said = command(settings.out)
    assert code == 0, said
    assert "sound, complete: 5 of 5 parts" in said
    rewritten(context, lambda rows: rows[1:])
    assert command(str(tmp_path / "nowhere"))[0] == 2
    as_typed = [sys.executable, "-m", "jobs.verify", f"out={settings.out}"]
    ended = subprocess.run(as_typed, capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "but 3 images were planned" in ended.stdout
