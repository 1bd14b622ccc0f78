"""The command as a process: killed, stopped, started twice, on S3, and typed by make."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.command import run_command
from jobs.look import LookJob
from jobs.verify import VerifyJob
from pipeline.cluster.crew import CHUNKS_IN_FLIGHT
from pipeline.records import ImageRow
from pipeline.run.session import run_settings
from pipeline.settings import Format, Settings, StoreSettings, SubmitJob
from pipeline.signals import StopFlag
from pipeline.storage.connect import connect
from pipeline.storage.parts import read_part
from tests.fakes_run import Notes, drawn_image, fake_weights, write_folder, write_tar
from tests.small_runs import context_of, recipe_overrides, with_run, work

ROOT = Path(__file__).parent.parent.parent
JOBS = {"generate": Settings, "submit": SubmitJob, "verify": VerifyJob, "look": LookJob}
IMAGES = 12
PATIENCE_S = 200
"""On a machine that does ten things at once."""


def start(overrides: Sequence[str], *, seconds: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fake_generate", *overrides],
        cwd=ROOT,
        env={**os.environ, "FAKE_SECONDS": str(seconds), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        output, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, output, errors


def overrides_of(settings: Settings) -> list[str]:
    run = settings.run
    return [
        f'source="{settings.source}"',
        f'out="{settings.out}"',
        "recipe=sam",
        *recipe_overrides(settings.recipe),
        f"run.images_per_chunk={run.images_per_chunk}",
        f"run.max_workers={run.max_workers}",
        f"run.address={run.address}",
        f"run.grace_s={run.grace_s}",
        f"run.max_failed_fraction={run.max_failed_fraction}",
        *([f'store.endpoint_url="{settings.store.endpoint_url}"'] if settings.store.endpoint_url else []),
    ]


def parts_in(settings: Settings) -> dict[str, bytes]:
    """Name -> content, by the store that the settings name."""
    store = connect(settings.store)
    return {info.uri.rpartition("/")[2]: store.read(info.uri) for info in store.list(f"{settings.out}/data")}


def wait_for_parts(settings: Settings, count: int, process: subprocess.Popen[str]) -> int:
    """How many there are, once there are `count` or more."""
    store, deadline = connect(settings.store), time.monotonic() + PATIENCE_S
    while (there := sum(1 for _ in store.list(f"{settings.out}/data"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no parts"
        time.sleep(0.1)  # a look costs the S3 server more than it costs us
    return there


def names_of(settings: Settings) -> Counter[str]:
    parts = (read_part(data, format=settings.format) for data in parts_in(settings).values())
    return Counter(row.file_name for part in parts for row in part.rows)


@pytest.fixture
def slow(request: pytest.FixtureRequest, settings: Settings, cluster: str, tmp_path: Path) -> Settings:
    """Twelve chunks of one image each, on the shared Ray session, by two workers; on disk or, if asked, on S3."""
    images = {f"im{number:02d}.png": drawn_image(number) for number in range(IMAGES)}
    settings = with_run(settings, images_per_chunk=1, max_workers=2, address=cluster)
    if getattr(request, "param", "disk") == "disk":
        return replace(settings, source=str(write_folder(tmp_path / "slow", images)))
    bucket = request.getfixturevalue("s3_bucket")
    for name, data in images.items():
        request.getfixturevalue("s3_client").put_object(Bucket=bucket, Key=f"slow/{name}", Body=data)
    return replace(
        settings,
        source=f"s3://{bucket}/slow",
        out=f"s3://{bucket}/out",
        store=StoreSettings(endpoint_url=request.getfixturevalue("s3_endpoint")),
    )


on_s3 = pytest.mark.parametrize("slow", ["s3"], indirect=True)


@pytest.fixture
def every_image() -> Counter[str]:
    return Counter(f"im{number:02d}.png" for number in range(IMAGES))


def test_run_goes_on_after_its_driver_is_killed_with_every_image_once(slow: Settings, every_image: Counter[str]):
    """SIGKILL leaves no time for anything: what is in the store must be enough."""
    process = start(overrides_of(slow), seconds=0.3)
    wait_for_parts(slow, 2, process)
    process.kill()
    finish(process)
    before = parts_in(slow)
    assert 2 <= len(before) < IMAGES
    rest = with_run(slow, max_workers=1)
    outcome = run_settings(rest, progress=Notes(), find_weights=fake_weights, stop=StopFlag())
    assert outcome.exit_code == 0
    assert outcome.found_chunks >= len(before)
    assert names_of(slow) == every_image
    after = parts_in(slow)
    assert {name: after[name] for name in before} == before
    # One may be left by each worker that died in the middle of a write; names with a dot are no reader's.
    assert len(list(Path(slow.out).rglob(".tmp-*"))) <= 2


@on_s3
def test_two_drivers_on_one_out_finish_one_run(slow: Settings, every_image: Counter[str]):
    """A scheduler that starts a job twice must not get a dataset with doubles, nor a failed job.

    The first driver is frozen in mid-run until the second has committed: its worker can end what it has, not more. One
    worker each: there are two.
    """
    slow = with_run(slow, max_workers=1)
    first = start(overrides_of(slow), seconds=0.2)
    wait_for_parts(slow, 1, first)
    first.send_signal(signal.SIGSTOP)
    second = start(overrides_of(slow), seconds=0.2)
    try:
        firsts_at_most = wait_for_parts(slow, 1, second) + CHUNKS_IN_FLIGHT
        assert firsts_at_most < IMAGES, "the first driver was too fast to be met"
        wait_for_parts(slow, firsts_at_most + 1, second)
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGCONT)
    results = [finish(process) for process in (first, second)]
    assert [code for code, _, _ in results] == [0, 0], results
    assert names_of(slow) == every_image
    assert all(f"finished, all {IMAGES} chunks committed" in output for _, output, _ in results)


def test_signals_finish_what_is_in_flight_and_exit_130_and_the_same_command_goes_on(
    slow: Settings, every_image: Counter[str]
):
    """Preemption gives some seconds: they are used, and nothing is lost. One run is stopped by either signal in turn;
    by one worker, so that neither stop comes near its end."""
    slow = with_run(slow, max_workers=1)
    for number in (signal.SIGTERM, signal.SIGINT):
        before = len(parts_in(slow))
        process = start(overrides_of(slow), seconds=0.4)
        wait_for_parts(slow, before + 1, process)
        process.send_signal(number)
        code, output, errors = finish(process)
        assert code == 130, (output, errors)
        assert "stopped by a signal" in output
        assert "repeat the same command" in output
        assert before < len(parts_in(slow)) < IMAGES
        assert list((Path(slow.out) / "_job" / "summaries").iterdir()), "what was done is to be read again"
    assert run_settings(slow, progress=Notes(), find_weights=fake_weights, stop=StopFlag()).exit_code == 0
    assert names_of(slow) == every_image


def test_run_on_s3_gives_the_rows_of_work_on_disk(
    settings: Settings, cluster: str, s3_endpoint: str, s3_client: Any, s3_bucket: str, tmp_path: Path
):
    """By a command of its own, over HTTP, input and output; the part's own bytes come back from the bucket. On disk in
    this process."""
    images = {f"im{number}.png": drawn_image(number) for number in range(5)} | {"bad.jpg": b"bad"}
    write_folder(tmp_path / "disk" / "a", images)
    write_tar(tmp_path / "disk" / "b.tar", {"sa_7.png": drawn_image(50), "note.txt": b"x"})
    for path in sorted((tmp_path / "disk").rglob("*.*")):
        key = f"in/{path.relative_to(tmp_path / 'disk').as_posix()}"
        s3_client.put_object(Bucket=s3_bucket, Key=key, Body=path.read_bytes())
    settings = with_run(settings, max_failed_fraction=0.5, max_workers=1, address=cluster)
    disk = replace(settings, source=str(tmp_path / "disk"))
    remote = replace(disk, source=f"s3://{s3_bucket}/in", out=f"s3://{s3_bucket}/out")
    code, output, errors = finish(start([*overrides_of(remote), f'store.endpoint_url="{s3_endpoint}"']))
    assert code == 0, errors
    assert "6 ok, 1 failed (1 unreadable)" in output
    work(context_of(disk, connect(StoreSettings())))
    on_s3 = rows_in(f"s3://{s3_bucket}/out", StoreSettings(endpoint_url=s3_endpoint))
    on_disk = rows_in(disk.out, StoreSettings())
    assert len(on_s3) == 7
    assert [replace(row, source="", error="") for row in on_s3] == [
        replace(row, source="", error="") for row in on_disk
    ]
    assert s3_client.head_object(Bucket=s3_bucket, Key="out/_SUCCESS")


def rows_in(out: str, settings: StoreSettings) -> list[ImageRow]:
    """By file name: shards are ordered by URI, and the two sources have other roots."""
    store = connect(settings)
    rows = [
        row for info in store.list(f"{out}/data") for row in read_part(store.read(info.uri), format=Format.PARQUET).rows
    ]
    return sorted(rows, key=lambda row: row.file_name)


ODD_NAME = "we ird, b=c d ünï[1] 日本 (x) $e $$ ${f} $(g) 'h' \"i\" #j %"
"""make, the shell and Hydra each have their own idea of most of these characters."""


def typed(folder: Path, *words: str) -> list[str]:
    """What the Python of the project would get if somebody typed `make WORDS`, by make and a shell as they are."""
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], sys.stdout)\n")
    python.chmod(0o755)
    # The tests themselves are run by a make, which would pass its own flags on.
    env = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    made = ["make", "-s", "-o", ".venv/.run-ready", f"BIN={python.parent}", *words]
    return json.loads(subprocess.run(made, cwd=ROOT, env=env, capture_output=True, check=True).stdout)


@pytest.mark.parametrize("target", ["generate", "submit", "verify", "look"])
@pytest.mark.parametrize(
    "place", ["a$e.tar", ODD_NAME, "$(shell touch pwned)", "$(error no) $@ $(", "s3://b/$k/${l}/m"]
)
def test_make_passes_every_place_as_it_is_given(
    target: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A dollar in a name is a dollar, of which make would make a variable, and Hydra a reference."""
    words = typed(tmp_path, target, f"SHARD={place}", f"OUT={place} out", f"ADDRESS={place} head", "N=3")
    assert not (ROOT / "pwned").exists()
    module, *overrides = words[1:]
    assert module == f"jobs.{target}"
    monkeypatch.setattr("sys.argv", [target, *overrides])
    got: list[Any] = []
    assert run_command(target, JOBS[target], lambda job: got.append(job) or 0) == 0
    assert got[0].out == f"{place} out"
    if target == "look":
        assert got[0].n == 3
    if target in ("generate", "submit"):
        assert got[0].source == place
    if target == "submit":
        assert got[0].submit.address == f"{place} head"


def test_default_out_is_named_after_a_shard_with_a_dollar(tmp_path: Path):
    """It is computed from the name, of which no character may be lost on the way."""
    assert typed(tmp_path, "generate", "SHARD=/x/a$e.tar")[3] == 'out="out/a$e"'


def test_make_passes_any_path_to_the_job(cluster: str, tmp_path: Path):
    """make, the shell and Hydra each have their own idea of special characters."""
    name = ODD_NAME
    folder = write_folder(tmp_path / name, {"im.png": drawn_image(1)})
    args = f"recipe=sam recipe.points_per_side=4 run.address={cluster}"
    words = typed(tmp_path, "generate", f"SHARD={folder}", f"OUT={tmp_path / name} out", f"ARGS={args}")
    assert words[:2] == ["-m", "jobs.generate"]
    code, output, errors = finish(start(words[2:]))
    assert code == 0, errors
    assert "1 ok, 0 failed" in output
    rows = pq.read_table(f"{tmp_path / name} out/data", columns=["file_name"])
    assert rows["file_name"].to_pylist() == ["im.png"]
    assert "\r" not in errors, "a bar in a log file cannot be read"
    assert "1 image in 1 chunk, 0 of them already committed" in errors
