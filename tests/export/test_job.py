"""The command: what it says, what it refuses, and that it needs neither torch nor Ray."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs import export as job
from jobs.export import ExportJob, main
from pipeline.errors import ConfigError
from pipeline.export.records import Form
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.work.chunk import WorkerContext
from tests.commands import Command, command_of, snapshot, without_torch_and_ray
from tests.export.making import exported, make_output, picture, write_source
from tests.fakes_run import write_folder
from tests.fault_proxy import Answer, fault_proxy

STORE = connect(StoreSettings())


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command_of("export", main, monkeypatch, capsys)


def test_the_summary_says_what_is_there_and_what_is_not(output: WorkerContext, export: Command, tmp_path: Path) -> None:
    """Failed images and images without masks are counted; nothing is left out without a word."""
    before = snapshot(Path(output.out))
    code, said, errors = export(f"out={output.out}", f"to={tmp_path}/to", "form=sa1b")
    assert (code, errors) == (0, "")
    assert re.fullmatch(
        rf"Maskmill: [0-9]+ masks of 11 images as sa1b: {tmp_path}/to\n"
        r"  parts       3 of 3 parts\n"
        r"  no masks    1 image\n"
        r"  failed      1 image left out: 1 unreadable\n",
        said,
    )
    code, said, _ = export(f"out={output.out}", f"to={tmp_path}/to", "form=sa1b")
    assert code == 0
    assert "3 of 3 parts (3 of them before)" in said
    assert snapshot(Path(output.out)) == before


def test_what_is_unfinished_or_broken_is_said(export: Command, tmp_path: Path) -> None:
    """An unfinished run is no error; a part that cannot be used is, for a script that waits."""
    context = make_output(write_source(tmp_path / "in.tar"), str(tmp_path / "out"), STORE, chunks=2)
    code, said, _ = export(f"out={context.out}", f"to={tmp_path}/to", "form=sa1b")
    assert code == 0
    assert "2 of 3 parts\n" in said
    assert "repeat this command when more parts are committed" in said
    part = min((tmp_path / "out" / "data").iterdir())
    part.write_bytes(b"")
    code, said, errors = export(f"out={context.out}", f"to={tmp_path}/other", "form=sa1b")
    assert code == 3
    assert errors.startswith(f"Maskmill: left out: {part.name}")
    assert "1 of 3 parts" in said


def test_neither_torch_nor_ray_is_needed(output: WorkerContext, tmp_path: Path) -> None:
    """Whoever converts may sit at a laptop that cannot run a model."""
    done = without_torch_and_ray("jobs.export", f"out={output.out}", f"to={tmp_path}/to", "form=sa1b")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "to" / "sa_000000.tar").exists()


def test_what_cannot_be_exported_is_one_sentence_and_writes_nothing(
    output: WorkerContext, export: Command, tmp_path: Path
) -> None:
    """No output, another tool's, none of it committed yet; places that are taken, or inside of what is read."""
    make_output(write_source(tmp_path / "in.tar"), str(tmp_path / "planned"), STORE, chunks=0)
    photographs = write_folder(tmp_path / "photographs", {"a.png": picture(0)})
    of_folder = make_output(photographs, str(tmp_path / "of-folder"), STORE)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "_job").mkdir(parents=True)
    (tmp_path / "other" / "_job" / "plan.json").write_text('{"a": 1}')
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(output.out)
    exported(of_folder, tmp_path / "export", Form.SA1B)
    (tmp_path / "damaged" / "_export").mkdir(parents=True)
    (tmp_path / "damaged" / "_export" / "export.json").write_text("[1, 2")
    before = snapshot(tmp_path)
    out, to, form = output.out, str(tmp_path / "to"), Form.SA1B
    refusals = {
        ExportJob(): "say which output: out=",
        ExportJob(out): "say where the export goes: to=",
        ExportJob(out, to): "say which form: form= one of sa1b",
        ExportJob(f"{tmp_path}/nowhere", to, form): "holds no run",
        ExportJob(f"{tmp_path}/empty", to, form): "holds no run",
        ExportJob(f"{tmp_path}/file", to, form): "holds no run",
        ExportJob(f"{tmp_path}/other", to, form): "is not a plan of Maskmill",
        ExportJob(f"{tmp_path}/planned", to, form): "has no committed part yet (0 of 3)",
        ExportJob(out, out, form): "is inside the output",
        ExportJob(out, f"{out}/data", form): "is inside the output",
        ExportJob(out, f"{out}/data/../new", form): "is inside the output",
        ExportJob(out, f"{tmp_path}/link/new", form): "is inside the output",
        ExportJob(out, str(Path(out).parent), form): "holds the output",
        ExportJob(of_folder.out, f"{photographs}/masks", form): "is inside the source",
        ExportJob(out, f"{tmp_path}/taken", form): "holds files that are no export of Maskmill",
        ExportJob(out, f"{tmp_path}/file", form): "is in the way",
        ExportJob(out, f"{tmp_path}/damaged", form): "export.json is damaged",
        ExportJob(out, f"{tmp_path}/export", form): "holds another export, of another run",
        ExportJob(of_folder.out, f"{tmp_path}/export", Form.COCO): "holds another export, form=sa1b",
        ExportJob(of_folder.out, f"{tmp_path}/export", form, job.ExportSettings(images=True)): (
            "holds another export, made with export.images=false"
        ),
    }
    for refused, sentence in refusals.items():
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            job.export_output(refused)
    code, said, errors = export(f"out={out}", f"to={to}", "form=cocoo")
    assert (code, said) == (2, "")
    assert errors.startswith("Maskmill: form=cocoo must be one of sa1b")
    assert errors.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_a_store_that_refuses_is_one_sentence(
    output: WorkerContext, export: Command, s3_bucket: str, s3_endpoint: str
) -> None:
    """Credentials without the right to write, and a bucket that is not there, are found out before any work."""
    with fault_proxy(s3_endpoint) as proxy:
        proxy.harm("PUT", Answer(403, "AccessDenied"))
        to = f"s3://{s3_bucket}/to"
        code, said, errors = export(f"out={output.out}", f"to={to}", "form=sa1b", f'store.endpoint_url="{proxy.url}"')
    assert (code, said) == (2, "")
    assert errors.startswith(f"Maskmill: to={to} cannot be written: ")
    assert errors.count("\n") == 1
    to = f"s3://no-{s3_bucket}/to"
    code, said, errors = export(f"out={output.out}", f"to={to}", "form=sa1b", f'store.endpoint_url="{s3_endpoint}"')
    assert (code, said) == (2, "")
    assert errors.startswith(f"Maskmill: to={to} cannot be written: ")
    assert "there is no bucket" in errors
