"""The command: where the page goes, what it needs, and how it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import look as job
from jobs.look import LookJob, main
from jobs.pages import page_path
from pipeline.errors import ConfigError
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext
from tests.commands import Command, command_of, snapshot, without_torch_and_ray
from tests.fakes_run import drawn_image
from tests.fault_proxy import Answer, fault_proxy
from tests.output.test_verify import run_without_a_cluster
from tests.small_runs import small_run

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command with these overrides: its exit code and what it said."""
    return command_of("look", main, monkeypatch, capsys)


def test_the_page_lies_beside_the_output_which_stays_as_it_is(context: WorkerContext, look: Command) -> None:
    """An output is data that others read. The next look replaces the page."""
    before = snapshot(Path(context.out))
    code, said, errors = look(f"out={context.out}", "n=2")
    path = Path(f"{context.out}-look.html")
    assert (code, errors) == (0, "")
    assert said == f"Maskmill: 2 images with their masks, from 3 of 3 parts: {path}\n"
    first = path.read_bytes()
    assert look(f"out={context.out}", "n=3")[0] == 0
    assert path.read_bytes().count(b"<figure>") == first.count(b"<figure>") + 1 == 3
    assert snapshot(Path(context.out)) == before
    assert [each.name for each in path.parent.glob("*.part")] == []


def test_neither_torch_nor_ray_is_needed(context: WorkerContext) -> None:
    """Whoever looks may sit at a laptop that cannot run a model."""
    done = without_torch_and_ray("jobs.look", f"out={context.out}")
    assert done.returncode == 0, done.stderr
    assert Path(f"{context.out}-look.html").exists()


@pytest.mark.parametrize(
    ("out", "asked", "expected"),
    [
        ("/data/out", "", "/data/out-look.html"),
        ("s3://bucket/masks/may", "", "may-look.html"),
        ("s3://bucket", "", "bucket-look.html"),
        ("s3://bucket/.. <b>", "", "__b_-look.html"),
        ("/data/out", "/data/page.html", "/data/page.html"),
        ("/data/out", "/data/out-2/page.html", "/data/out-2/page.html"),
    ],
)
def test_where_the_page_goes(out: str, asked: str, expected: str) -> None:
    """Beside a local output, into the current folder for a bucket, or where somebody wants it."""
    assert page_path(out, asked, setting="look", kind="look") == Path.cwd() / expected


def test_what_cannot_be_looked_at_is_one_sentence_and_writes_nothing(
    looked_at: Settings, look: Command, tmp_path: Path, store: Store
) -> None:
    """No output, an empty folder, a file, a run without a part, one that is not planned yet, wrong values."""
    run_without_a_cluster(looked_at, store, chunks=0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "half" / "_job" / "members").mkdir(parents=True)
    (tmp_path / "other" / "_job").mkdir(parents=True)
    (tmp_path / "other" / "_job" / "plan.json").write_text('{"a": 1}')
    (tmp_path / "file").write_bytes(drawn_image(1))
    before = snapshot(tmp_path)
    out = looked_at.out
    refusals = {
        LookJob(): "say which output",
        LookJob(f"{tmp_path}/empty"): "holds no run",
        LookJob(f"{tmp_path}/half"): "holds no run",
        LookJob(f"{tmp_path}/file"): "holds no run",
        LookJob(f"{tmp_path}/other"): "is not a plan of Maskmill",
        LookJob(out): "has no committed part yet (0 of 3)",
        LookJob(out, n=0): "n=0 must be from 1 to 100",
        LookJob(out, n=101): "n=101 must be from 1 to 100",
        LookJob(out, look=f"{out}/a.html"): "is inside the output",
        LookJob(out, look="s3://bucket/a.html"): "must be a local path",
        LookJob(out, look=f"{tmp_path}/a.jpg"): "ends in .html",
    }
    for refused, sentence in refusals.items():
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            job.look(refused)
    code, said, errors = look(f"out={tmp_path}/nowhere")
    assert (code, said) == (2, "")
    assert "holds no run" in errors
    assert errors.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_a_page_that_cannot_be_written_is_one_sentence(context: WorkerContext, look: Command, tmp_path: Path) -> None:
    """A folder that is not there, and one in the place of the page."""
    (tmp_path / "folder.html").mkdir()
    for place in ("nowhere/a.html", "folder.html"):
        code, _, errors = look(f"out={context.out}", f"look={tmp_path}/{place}")
        assert code == 2
        assert "cannot write" in errors
        assert "look=PATH.html" in errors
    assert list(tmp_path.glob("*.part")) == []


def test_a_broken_part_is_named_and_the_rest_is_shown(context: WorkerContext, look: Command) -> None:
    """On stderr as well as on the page: who writes a script sees it."""
    part = min((Path(context.out) / "data").iterdir())
    part.write_bytes(b"")
    code, said, errors = look(f"out={context.out}")
    assert code == 0
    assert "images with their masks, from 3 of 3 parts" in said
    assert errors.startswith("Maskmill: left out: ")
    assert part.name in errors
    assert part.name in Path(f"{context.out}-look.html").read_text()


def test_an_output_in_a_bucket_is_looked_at_and_a_refusal_is_one_sentence(
    pictures: Path, s3_bucket: str, s3_endpoint: str, look: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page goes into the current folder. Refused credentials, and a bucket that is not there, write none."""
    monkeypatch.chdir(tmp_path)
    store = StoreSettings(endpoint_url=s3_endpoint, retry_deadline_s=1.0)
    settings = replace(small_run(pictures, Path("unused")), out=f"s3://{s3_bucket}/masks", store=store)
    run_without_a_cluster(settings, connect(store))
    code, said, errors = look(f"out={settings.out}", f'store.endpoint_url="{s3_endpoint}"')
    assert (code, errors) == (0, "")
    page = tmp_path / "masks-look.html"
    assert said.endswith(f"{page}\n")
    assert page.read_text().count("<img ") == 14
    page.unlink()
    code, _, errors = look(f"out=s3://no-{s3_bucket}/masks", f'store.endpoint_url="{s3_endpoint}"')
    assert code == 2
    assert "holds no run" in errors
    with fault_proxy(s3_endpoint) as proxy:
        proxy.harm("GET", Answer(403, "AccessDenied"))
        code, said, errors = look(f"out={settings.out}", f'store.endpoint_url="{proxy.url}"')
    assert (code, said) == (2, "")
    assert errors.startswith(f"Maskmill: {settings.out} cannot be read: ")
    assert errors.count("\n") == 1
    assert list(tmp_path.glob("*.html")) == []
