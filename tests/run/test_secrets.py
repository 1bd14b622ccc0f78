"""Secrets that were planted wherever a user may put one, looked for in everything that a command leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.command import run_command
from jobs.generate import generate
from jobs.submit import submit_job
from jobs.verify import VerifyJob, verify
from pipeline.errors import ConfigError
from pipeline.plan.plan import FROZEN
from pipeline.settings import Settings, StoreSettings, SubmitJob
from pipeline.storage.connect import connect
from pipeline.texts import printable, redacted
from tests.cluster.test_submission import Client
from tests.fakes_run import drawn_image, fake_weights, write_folder

PLANTED = "hunter2/Zx+9"
SIGNED = f"X-Amz-Algorithm=AWS4&X-Amz-Credential={PLANTED}&X-Amz-Security-Token={PLANTED}&X-Amz-Signature={PLANTED}"


def told(monkeypatch: pytest.MonkeyPatch, command: str, *overrides: str, entrypoints: list[str] | None = None) -> int:
    """The exit code of a command. Of `submit`, the entrypoints go to a head that takes every job."""
    monkeypatch.setattr("sys.argv", [command, *overrides])
    if command == "generate":
        return run_command("generate", Settings, partial(generate, find_weights=fake_weights), frozen=FROZEN)
    if command == "verify":
        return run_command("verify", VerifyJob, verify)

    class Head(Client):
        def submit_job(self, entrypoint: str, **rest: Any) -> str:
            (entrypoints if entrypoints is not None else []).append(f"{entrypoint} {rest}")
            return "job"

    monkeypatch.setattr("pipeline.cluster.submission.JobSubmissionClient", lambda _address: Head())
    return run_command("submit", SubmitJob, submit_job, frozen=FROZEN)


def everything_below(out: Path) -> str:
    """Names and contents; Parquet, which is compressed, as its values and metadata."""
    texts: list[str] = []
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        texts += [str(path.relative_to(out)), path.read_bytes().decode("latin-1")]
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            texts += [json.dumps(file.read().to_pylist()), str(file.metadata.metadata)]
    return "\n".join(texts)


LINES = [
    f"https://bucket.s3.amazonaws.com/a.jpg?{SIGNED}",
    f"https://bucket.s3.amazonaws.com/with a blank.jpg?token={PLANTED}",
    f"https://me:{PLANTED}@host/b.jpg",
    f"HTTP://me:{PLANTED}@host/b.jpg?{PLANTED}",
    f"s3://bucket/c.jpg?{SIGNED}",
    f"s3://key:{PLANTED}@bucket/d.jpg",
    f"e.jpg?{SIGNED}",
    f"# from https://bucket.s3.amazonaws.com/?{SIGNED}",
    "good.png",
    "gone.png",
]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("kind", "log"), [("txt", "text"), ("jsonl", "json")])
def test_a_failing_run_shows_no_secret_of_its_list(
    kind: str, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Presigned lines went whole into a row's name, source and reason; whoever reads the dataset could use them."""
    folder = write_folder(tmp_path / "in", {"good.png": drawn_image(1), f"w.jpg?{SIGNED.replace('/', '-')}": b""})
    names = LINES if kind == "txt" else [json.dumps({"uri": line}) for line in LINES if not line.startswith("#")]
    (folder / f"list.{kind}").write_text("\n".join(names))
    out = tmp_path / "out"
    settings = (
        "recipe=sam",
        "recipe.points_per_side=4",
        "run.images_per_chunk=3",
        "run.max_workers=1",
        f"run.log={log}",
    )
    assert told(monkeypatch, "generate", f"source={folder}/list.{kind}", f"out={out}", *settings) == 3
    assert told(monkeypatch, "verify", f"out={out}") == 0
    said = capfd.readouterr()
    left = everything_below(out)
    for text in (said.out, said.err, left):
        assert "hunter2" not in text
    assert "7 unreadable" in said.out
    assert "https://bucket.s3.amazonaws.com/a.jpg?***" in left
    assert "e.jpg?X-Amz-Algorithm=AWS4&X-Amz-Credential=***" in left


@pytest.mark.usefixtures("cluster")
def test_a_failing_run_shows_no_secret_of_a_files_name_or_of_its_environment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    s3_endpoint: str,
    s3_client: Any,
    s3_bucket: str,
):
    """`wget` names a file after the whole address. What is ignored is named in the plan."""
    name = SIGNED.replace(PLANTED, "hunter2")
    for key, data in {
        "in/a.png": drawn_image(1),
        "in/b.png": b"none",
        f"in/w.jpg?{name}": b"",
        f"in/{name}": b"",
    }.items():
        s3_client.put_object(Bucket=s3_bucket, Key=key, Body=data)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
    monkeypatch.setenv("PLANTED_URL", s3_endpoint)
    settings = ("recipe=sam", "recipe.points_per_side=4", "store.endpoint_url=${oc.env:PLANTED_URL}")
    places = (f"source=s3://{s3_bucket}/in", f"out={tmp_path}/out")
    assert told(monkeypatch, "generate", *places, *settings, "run.max_workers=1") == 3
    said = capfd.readouterr()
    assert "  ignored  " in said.out
    assert "(first: w.jpg?X-Amz-Algorithm=AWS4&X-Amz-Credential=***&" in said.out
    for text in (said.out, said.err, everything_below(tmp_path / "out")):
        assert "hunter2" not in text


ENVIRONMENT = "${oc.env:PLANTED}"
REFUSED = {
    "userinfo": (f"store.endpoint_url=https://me:{PLANTED}@host:9000", "give credentials by AWS_ACCESS_KEY_ID"),
    "userinfo from the environment": (f"store.endpoint_url=https://me:{ENVIRONMENT}@host", "give credentials by"),
    "query": (f'store.endpoint_url="https://host/?{SIGNED}"', "give credentials by AWS_ACCESS_KEY_ID"),
    "unreadable": (f"store.endpoint_url=https://me:'{PLANTED}@host", "cannot read the override"),
    "presigned source": (f'source="https://host/a.jpg?{SIGNED}"', "source carries a password or a signature"),
    "signed object": (f'source="s3://bucket/a.jpg?{SIGNED}"', "source carries a password or a signature"),
    "checkpoint": (f'model.checkpoint="https://host/a.pth?{SIGNED}"', "model.checkpoint carries a password"),
    "out": (f'out="s3://key:{PLANTED}@bucket/out"', "out carries a password"),
    "source from the environment": (f"source=s3://bucket/{ENVIRONMENT}", "the plan keeps this setting"),
    "source from another setting": ("source=${store.region}", "the plan keeps this setting"),
    "recipe from the environment": (f"recipe.points_per_side={ENVIRONMENT}", "the plan keeps this setting"),
    "word from the environment": (f"model.device={ENVIRONMENT}", "model.device=${oc.env:PLANTED} must be one of"),
    "number from the environment": (f"run.max_workers={ENVIRONMENT}", "run.max_workers=${oc.env:PLANTED} must be"),
}


@pytest.mark.parametrize("command", ["generate", "generate run.log=json", "submit"])
@pytest.mark.parametrize("planted", list(REFUSED))
def test_a_secret_in_a_setting_is_refused_without_being_told(
    command: str, planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Settings stand in commands, logs and plans; boto3's own chain of credentials stands in none."""
    override, reason = REFUSED[planted]
    monkeypatch.setenv("PLANTED", PLANTED)
    places = {"source": "s3://bucket/in", "out": f"{tmp_path}/out", "store.region": ENVIRONMENT}
    places = {key: f"{key}={value}" for key, value in places.items()} | {override.partition("=")[0]: override}
    sent: list[str] = []
    command, *options = command.split()
    assert told(monkeypatch, command, *places.values(), *options, entrypoints=sent) == 2
    said = capfd.readouterr()
    assert reason in said.err
    assert "hunter2" not in said.out + said.err
    assert sent == []
    assert not (tmp_path / "out").exists()


def test_what_is_submitted_names_the_environment_and_does_not_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Everybody who reaches the dashboard reads the entrypoint."""
    monkeypatch.setenv("PLANTED", PLANTED)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
    sent: list[str] = []
    overrides = ("source=s3://bucket/in", "out=s3://bucket/out", f"store.region={ENVIRONMENT}")
    assert told(monkeypatch, "submit", *overrides, entrypoints=sent) == 0
    assert ENVIRONMENT in sent[0]
    said = capfd.readouterr()
    assert "hunter2" not in sent[0] + said.out + said.err


def test_verify_refuses_an_endpoint_that_carries_a_password() -> None:
    """So does every command: all of them connect to a store."""
    with pytest.raises(ConfigError, match="carries a user, a password or a query") as refused:
        connect(StoreSettings(endpoint_url=f"https://me:{PLANTED}@host"))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "s3://bucket/a:b@c.jpg?x=1&y=2#d",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/a@b.jpg",
        "/photos/me@home/what? a:b.jpg",
        "file:///a/b@c%20d.jpg",
        "http://127.0.0.1:8265",
        "mail me@host about it: 100 %?",
    ],
)
@pytest.mark.parametrize("shown", [printable, redacted])
def test_names_that_carry_no_secret_stay_as_they_are(shown: Callable[[str], str], name: str):
    """Colons, at signs and question marks are letters of keys and file names."""
    assert shown(name) == name
