"""The command: where the page goes, what it needs, what it takes, and how it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jobs import report as job
from jobs.report import Asked, ReportJob, main
from pipeline.errors import ConfigError
from pipeline.plan.layout import part_uri
from pipeline.plan.member_index import MemberIndex
from pipeline.records import Funnel, ImageRow, Status
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.parts import write_part
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext
from tests.commands import Command, command_of, snapshot, without_torch_and_ray
from tests.fault_proxy import Answer, fault_proxy
from tests.look.conftest import HOSTILE, context, looked_at, pictures
from tests.output.test_verify import run_without_a_cluster
from tests.report.samples import HEIGHT, WIDTH, rectangle
from tests.report.test_page import words
from tests.small_runs import context_of, small_run, with_run

__all__ = ["context", "looked_at", "pictures"]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def make_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command with these overrides: its exit code and what it said."""
    return command_of("report", main, monkeypatch, capsys)


def test_the_page_lies_beside_the_output_which_stays_as_it_is(context: WorkerContext, make_report: Command) -> None:
    """An output is data that others read. The next report replaces the page, and is the same."""
    before = snapshot(Path(context.out))
    code, said, errors = make_report(f"out={context.out}")
    path = Path(f"{context.out}-report.html")
    assert (code, errors) == (0, "")
    assert re.fullmatch(rf"Maskmill: report of \d+ masks, from 3 of 3 parts: {path}\n", said)
    first = path.read_text()
    text = words(first)
    assert "Finished 3 parts of 8 planned images." in text
    assert "7 images with masks, sampled with seed 0 from 3 parts." in text
    assert HOSTILE in text
    assert HOSTILE not in first
    assert re.search(r"1 image of the sampled parts failed, by reason\. .* unreadable 1 .* broken\.png", text)
    assert make_report(f"out={context.out}")[0] == 0
    assert path.read_text() == first
    assert snapshot(Path(context.out)) == before
    assert [each.name for each in path.parent.glob("*.part")] == []


def test_groups_images_and_the_place_of_the_page_are_settings(
    context: WorkerContext, make_report: Command, tmp_path: Path
) -> None:
    """Under one name each. A table of groups is the user's own."""
    table, path = tmp_path / "countries.csv", tmp_path / "elsewhere.html"
    table.write_text("file_name,country\nim0.png,NL\nim1.png,NL\nim2.png,<b>US</b>\nnowhere.png,US\n")
    settings = (f"report.groups={table}", "report.gallery=2", "report.images=2", "report.seed=4")
    code, said, _ = make_report(f"out={context.out}", f"report.page={path}", *settings)
    assert code == 0
    assert said.endswith(f"{path}\n")
    text = words(path.read_text())
    assert "NL 2 " in text
    assert "<b>US</b> 1 " in text
    assert "1 row of the table name no image of it" in text
    assert path.read_text().count('class="card"') == 2
    assert "of 1 of 3 committed parts, sampled with seed 4" in text
    assert not Path(f"{context.out}-report.html").exists()


def test_neither_torch_nor_ray_is_needed(context: WorkerContext) -> None:
    """Whoever reads a report may sit at a laptop that cannot run a model."""
    done = without_torch_and_ray("jobs.report", f"out={context.out}")
    assert done.returncode == 0, done.stderr
    assert Path(f"{context.out}-report.html").exists()


def test_what_cannot_be_reported_is_one_sentence_and_writes_nothing(
    looked_at: Settings, make_report: Command, tmp_path: Path, store: Store
) -> None:
    """No output, a run without a part, wrong values, a page inside the output, a table that is not there."""
    run_without_a_cluster(looked_at, store, chunks=1)
    run_without_a_cluster(replace(looked_at, out=str(tmp_path / "begun")), store, chunks=0)
    before, out = snapshot(tmp_path), looked_at.out
    refusals = {
        ReportJob(): "say which output",
        ReportJob(f"{tmp_path}/nowhere"): "holds no run",
        ReportJob(f"{tmp_path}/begun"): "has no committed part yet (0 of 3)",
        ReportJob(out, Asked(page=f"{out}/a.html")): "report.page=",
        ReportJob(out, Asked(page=f"{tmp_path}/a.jpg")): "ends in .html",
        ReportJob(out, Asked(page=f"{tmp_path}/none/a.html")): "report.page=PATH.html",
        ReportJob(out, Asked(groups=f"{tmp_path}/none.csv")): "none.csv",
    }
    for refused, sentence in refusals.items():
        with pytest.raises(ConfigError, match=re.escape(sentence)):
            job.report(refused)
    for setting in ("report.gallery=101", "report.gallery=-1", "report.images=0", "report.imgaes=3", "report.seed=x"):
        code, said, errors = make_report(f"out={out}", setting)
        assert (code, said) == (2, ""), setting
        assert setting.partition("=")[0] in errors
        assert errors.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_an_unfinished_run_with_a_broken_part_says_so_on_the_page_and_on_stderr(
    looked_at: Settings, make_report: Command, store: Store
) -> None:
    """A report of what is there must not pass for one of the whole."""
    run_without_a_cluster(looked_at, store, chunks=2)
    part = min((Path(looked_at.out) / "data").iterdir())
    part.write_bytes(b"")
    code, said, errors = make_report(f"out={looked_at.out}")
    assert code == 0
    assert "from 1 of 3 parts" in said
    assert errors.startswith("Maskmill: left out: ")
    assert part.name in errors
    text = words(Path(f"{looked_at.out}-report.html").read_text())
    assert "Not finished 2 of 3 parts are committed" in text
    assert "1 part could not be read" in text
    assert part.name in text


def test_a_run_whose_images_all_failed_has_a_report_without_pictures(
    tmp_path: Path, make_report: Command, store: Store
) -> None:
    """It is the run that needs a report most."""
    folder = tmp_path / "bad"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(b"")
    run_without_a_cluster(small_run(folder, tmp_path / "out"), store)
    assert make_report(f"out={tmp_path}/out")[0] == 0
    text = words((tmp_path / "out-report.html").read_text())
    assert "4 images of the sampled parts failed, by reason." in text
    assert "No image is shown" in text
    assert "There is nothing to draw." in text


def test_an_output_of_two_thousand_rows_has_a_page_of_a_few_pictures(
    tmp_path: Path, make_report: Command, store: Store
) -> None:
    """Every tenth image failed. All rows are in the totals, and the page does not grow with them."""
    settings = _two_thousand_rows(tmp_path, store)
    code, said, errors = make_report(f"out={settings.out}", "report.overlap_images=40")
    assert (code, errors) == (0, "")
    assert "report of 5,400 masks, from 20 of 20 parts" in said
    page = (tmp_path / "out-report.html").read_text()
    text = words(page)
    assert "Images 1,800 without a failure" in text
    assert "Failed images 200 10.00% of 2,000 images" in text
    assert "24 images with masks, sampled with seed 0 from 4 parts." in text
    assert page.count('class="card"') == 24
    assert len(page) < 1_500_000


def _two_thousand_rows(folder: Path, store: Store) -> Settings:
    """Parts that no worker made. Their images are names alone."""
    source = folder / "source"
    source.mkdir()
    for number in range(2_000):
        (source / f"{number:04}.jpg").touch()
    settings = with_run(small_run(source, folder / "out"), images_per_chunk=100)
    plan = context_of(settings, store).plan
    index = MemberIndex(plan, out=settings.out, store=store)
    masks = tuple(rectangle((9 * each, 5, 20, 20), 0.9, 0.95, each) for each in range(3))
    metadata = {"plan_sha256": plan.sha256, "funnel": json.dumps(asdict(Funnel(candidates=300, kept=300)))}
    for chunk in plan.chunks():
        rows = [
            ImageRow(member.image_id, member.key, member.uri, Status.UNREADABLE, "the file is empty")
            if member.ordinal % 10 == 0
            else ImageRow(
                member.image_id,
                member.key,
                member.uri,
                Status.OK,
                width=WIDTH,
                height=HEIGHT,
                masks=masks,
                first_annotation_id=3 * member.ordinal,
            )
            for member in index.read(chunk.shard, chunk.start, chunk.stop)
        ]
        part = write_part(rows, format=settings.format, metadata=metadata)
        store.put_if_absent(part_uri(settings.out, plan, chunk), part)
    return settings


def test_an_output_in_a_bucket_has_a_report_and_a_refusal_is_one_sentence(
    pictures: Path,
    s3_bucket: str,
    s3_endpoint: str,
    make_report: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page goes into the current folder. Refused credentials write none."""
    monkeypatch.chdir(tmp_path)
    store = StoreSettings(endpoint_url=s3_endpoint, retry_deadline_s=1.0)
    settings = replace(small_run(pictures, Path("unused")), out=f"s3://{s3_bucket}/masks", store=store)
    run_without_a_cluster(settings, connect(store))
    code, said, errors = make_report(f"out={settings.out}", f'store.endpoint_url="{s3_endpoint}"')
    assert (code, errors) == (0, "")
    page = tmp_path / "masks-report.html"
    assert said.endswith(f"{page}\n")
    assert "7 images with masks" in words(page.read_text())
    page.unlink()
    with fault_proxy(s3_endpoint) as proxy:
        proxy.harm("GET", Answer(403, "AccessDenied"))
        code, said, errors = make_report(f"out={settings.out}", f'store.endpoint_url="{proxy.url}"')
    assert (code, said) == (2, "")
    assert errors.startswith(f"Maskmill: {settings.out} cannot be read: ")
    assert list(tmp_path.glob("*.html")) == []
