"""What holds of every form: what is done is not done again, what is half done never counts, nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, StorageError
from pipeline.export.records import ExportSettings, Form
from pipeline.export.target import part_key
from pipeline.plan.layout import part_uri
from pipeline.records import Attempt
from pipeline.settings import Format, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.parts import read_part, write_part
from pipeline.work.chunk import WorkerContext, process_chunk
from tests.export.making import FailingStore, exported, files_at, make_output, write_source

STORE = connect(StoreSettings())
NONE_FAILS = 10**9


def settings_of(form: Form) -> dict[str, bool]:
    """With everything that the form can be asked for."""
    return {name: True for name in ("images", "hierarchy") if _takes(form, name)}


def _takes(form: Form, name: str) -> bool:
    try:
        ExportSettings(**{name: True}).check(form)  # type: ignore[arg-type]
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("form", list(Form))
def test_a_command_that_was_cut_goes_on_and_ends_with_the_same_files(
    output: WorkerContext, tmp_path: Path, form: Form
) -> None:
    """Whichever write fails: no half file counts, parts with a receipt are not exported again, and the rest is."""
    asked = settings_of(form)
    counting = FailingStore(StoreSettings(), NONE_FAILS)
    whole = exported(output, tmp_path / "whole", form, store=counting, **asked)
    expected, writes = files_at(tmp_path / "whole"), len(counting.written)
    assert expected
    for fails_at in (2, writes // 2, writes):
        to = tmp_path / f"cut-{fails_at}"
        with pytest.raises(StorageError, match="the disk is full"):
            exported(output, to, form, store=FailingStore(StoreSettings(), fails_at), **asked)
        assert not (to / "_export" / "finished.json").exists()
        receipts = set((to / "_export" / "parts").glob("*"))
        again = FailingStore(StoreSettings(), NONE_FAILS)
        found = exported(output, to, form, store=again, **asked)
        assert found.total == whole.total
        assert found.before == len(receipts)
        assert not receipts & {Path(uri) for uri in again.written}
        assert files_at(to) == expected
        assert not list(to.rglob(".tmp-*"))


@pytest.mark.parametrize("form", [Form.SA1B, Form.COCO, Form.PNG])
def test_a_finished_export_is_not_touched_again(output: WorkerContext, tmp_path: Path, form: Form) -> None:
    """Repeating a command of hours by mistake must cost nothing."""
    first = exported(output, tmp_path / "to", form)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "to").rglob("*")}
    store = FailingStore(StoreSettings(), NONE_FAILS)
    again = exported(output, tmp_path / "to", form, store=store)
    assert store.written == []
    assert (again.total, again.before) == (first.total, 3)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "to").rglob("*")} == before


@pytest.mark.parametrize("form", [Form.SA1B, Form.COCO, Form.LABEL_MAP, Form.YOLO])
def test_an_output_that_grows_is_exported_to_the_same_files_as_at_once(tmp_path: Path, form: Form) -> None:
    """An export of an unfinished run takes in what is committed later, and names do not change for that."""
    context = make_output(write_source(tmp_path / "in.tar"), str(tmp_path / "out"), STORE, chunks=1)
    found = exported(context, tmp_path / "to", form)
    assert (found.parts, found.planned) == (1, 3)
    store = FailingStore(StoreSettings(), NONE_FAILS)
    for chunk in list(context.plan.chunks())[1:]:
        process_chunk(Attempt(chunk), context)
    found = exported(context, tmp_path / "to", form, store=store)
    assert (found.parts, found.before) == (3, 1)
    assert not [uri for uri in store.written if "/in-00000" in uri]
    exported(context, tmp_path / "at-once", form)
    assert files_at(tmp_path / "to") == files_at(tmp_path / "at-once")


def test_a_part_that_was_replaced_is_exported_again(tmp_path: Path) -> None:
    """run.retry_failed=true gives a part other rows; those exported before are not true any more."""
    context = make_output(write_source(tmp_path / "in.tar"), str(tmp_path / "out"), STORE)
    exported(context, tmp_path / "to", Form.SA1B)
    chunk = next(context.plan.chunks())
    uri = part_uri(context.out, context.plan, chunk)
    info = STORE.head(uri)
    part = read_part(STORE.read(uri), format=Format.PARQUET)
    rows = [replace(row, masks=row.masks[:1]) for row in part.rows]
    data = write_part(rows, format=Format.PARQUET, metadata=part.metadata)
    replaced = STORE.replace(uri, data, etag=info.etag)
    assert replaced is not None
    assert part_key(chunk.chunk_id, replaced) != part_key(chunk.chunk_id, info)
    found = exported(context, tmp_path / "to", Form.SA1B)
    assert found.before == 2
    exported(context, tmp_path / "anew", Form.SA1B)
    assert files_at(tmp_path / "to") == files_at(tmp_path / "anew")


def test_a_damaged_part_is_named_and_the_rest_is_exported(tmp_path: Path) -> None:
    """One bad disk block must not hold back a million masks; mended, the part follows."""
    context = make_output(write_source(tmp_path / "in.tar"), str(tmp_path / "out"), STORE)
    exported(context, tmp_path / "sound", Form.SA1B)
    part = Path(part_uri(context.out, context.plan, next(context.plan.chunks())))
    data = part.read_bytes()
    part.write_bytes(data[:-9])
    found = exported(context, tmp_path / "to", Form.SA1B)
    assert found.parts == 2
    assert part.name in found.broken[0]
    part.write_bytes(data)
    assert exported(context, tmp_path / "to", Form.SA1B).broken == ()
    assert files_at(tmp_path / "to") == files_at(tmp_path / "sound")
    for each in part.parent.iterdir():
        each.write_bytes(b"")
    with pytest.raises(ConfigError, match="none of its 3 parts can be used"):
        exported(context, tmp_path / "nothing", Form.SA1B)


@pytest.mark.parametrize("form", [Form.YOLO, Form.LABEL_MAP])
def test_a_part_with_a_damaged_mask_is_named_and_the_rest_is_exported(tmp_path: Path, form: Form) -> None:
    """Tars have no checksums: a mask that does not fill its image is found when it is painted."""
    context = make_output(write_source(tmp_path / "in.tar"), str(tmp_path / "out"), STORE, format=Format.COCO_RLE)
    uri = part_uri(context.out, context.plan, next(context.plan.chunks()))
    part = read_part(STORE.read(uri), format=Format.COCO_RLE)
    row = next(row for row in part.rows if row.masks)
    broken = replace(row, masks=(replace(row.masks[0], counts="11"), *row.masks[1:]))
    rows = [broken if each is row else each for each in part.rows]
    Path(uri).write_bytes(write_part(rows, format=Format.COCO_RLE, metadata=part.metadata))
    found = exported(context, tmp_path / "to", form)
    assert found.parts == 2
    assert "in-00000: a part is damaged" in found.broken[0]


@pytest.mark.parametrize("form", [Form.SA1B, Form.COCO])
def test_an_export_in_a_bucket_holds_the_same_files(
    output: WorkerContext, tmp_path: Path, form: Form, s3_bucket: str, s3_endpoint: str
) -> None:
    """From disk to S3, cut and gone on with; and then from S3 to S3."""
    settings = StoreSettings(endpoint_url=s3_endpoint, retry_deadline_s=1.0)
    exported(output, tmp_path / "to", form)
    to = f"s3://{s3_bucket}/exports/one"
    with pytest.raises(StorageError, match="the disk is full"):
        exported(output, to, form, store=FailingStore(settings, 5))
    store = connect(settings)
    exported(output, to, form, store=store)
    assert below(to, settings) == files_at(tmp_path / "to")
    copied = replace(output, out=f"s3://{s3_bucket}/out")
    for path in Path(output.out).rglob("*.*"):
        store.put_if_absent(f"{copied.out}/{path.relative_to(output.out)}", path.read_bytes())
    exported(copied, f"s3://{s3_bucket}/exports/two", form, store=store)
    assert below(f"s3://{s3_bucket}/exports/two", settings) == files_at(tmp_path / "to")


def below(to: str, settings: StoreSettings) -> dict[str, bytes]:
    store = connect(settings)
    found = {info.uri.removeprefix(f"{to}/"): store.read(info.uri) for info in store.list(to)}
    return {name: data for name, data in found.items() if not name.startswith("_export/")}
