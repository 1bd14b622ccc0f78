"""A run on a cluster, from `make submit` to the exit code: stopped in the middle, submitted again, looked at."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import pytest

from jobs.submit import LEAVING_S, command, stop_wait, submit_job
from pipeline.cluster.metrics import BUSY, CATALOGUE, FAILURES, IMAGES, Failure, Metric
from pipeline.errors import ConfigError
from pipeline.settings import RunSettings, Settings, SubmitJob, SubmitSettings
from tests.cluster.conftest import PAGE, ROOT, TwoNodes, free_ports

SCENES = ROOT / "jobs" / "sample" / "scenes.tar"
IMAGES_IN_SHARD = 8
OPTIONS = ["recipe=fast", "recipe.points_per_side=8", "run.images_per_chunk=1", "run.max_workers=1"]
PATIENCE_S = 400
"""On a machine that does ten things at once."""

pytestmark = pytest.mark.timeout(3 * PATIENCE_S)


Scraped = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Name and labels of a series -> the last value that it had."""


@dataclass(frozen=True)
class Story:
    """What happened to one run: submitted, stopped by `ray job stop` after its first part, submitted again, and
    then its worker killed."""

    out: Path
    stopped: subprocess.CompletedProcess[str]
    seconds_to_stop: float
    parts_when_stopped: dict[str, bytes]
    finished: subprocess.CompletedProcess[str]
    scraped: Scraped


@pytest.fixture(scope="module")
def story(two_nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> Story:
    out = tmp_path_factory.mktemp("cluster") / "out"
    first = [
        sys.executable,
        "-m",
        "jobs.submit",
        f"submit.address={two_nodes.address}",
        f"source={SCENES}",
        f"out={out}",
    ]
    with running([*first, *OPTIONS], two_nodes.env) as process:
        assert process.stdout is not None
        advice = process.stdout.readline()
        wait_for_parts(1, out, process, two_nodes, said=advice)
        begun = time.monotonic()
        stop = shlex.split(re.findall("`(ray job stop .*)`", advice)[0])
        with two_nodes.worker_held():  # or it might have done everything before the driver hears of the stop
            stopping = subprocess.Popen(stop, env=two_nodes.env, stdout=subprocess.DEVNULL)
            said = advice + "".join(iter_until(process.stdout, "stopping: up to"))
        stopped = ended(process, said=said)
        assert stopping.wait(PATIENCE_S) == 0
    seconds, parts = time.monotonic() - begun, parts_in(out)
    again = ["make", "-o", ".venv/.run-ready", f"BIN={Path(sys.executable).parent}", "submit", f"SHARD={SCENES}"]
    again += [f"OUT={out}", f"ADDRESS={two_nodes.address}", f"ARGS={shlex.join(OPTIONS)}"]
    # The tests themselves are run by a make, which would pass its own flags on.
    env = {key: value for key, value in two_nodes.env.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    with running(again, env) as process:
        wait_for_parts(len(parts) + 1, out, process, two_nodes)
        two_nodes.kill_a_worker()
        scraped = scraped_until_the_end(process, two_nodes)
        finished = ended(process)
    return Story(out, stopped, seconds, parts, finished, scraped)


def iter_until(lines: IO[str], words: str) -> Iterator[str]:
    """Lines as they come, to the first one with these words."""
    for line in lines:
        yield line
        if words in line:
            return


@contextmanager
def running(command: list[str], env: dict[str, str]) -> Generator[subprocess.Popen[str]]:
    """The process, killed if the test does not wait for its end."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=pipe, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], *, said: str = "") -> subprocess.CompletedProcess[str]:
    """said  what was read of its output before"""
    output, _ = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, said + output)


def scraped_until_the_end(process: subprocess.Popen[str], two_nodes: TwoNodes) -> Scraped:
    """Ray forgets the gauges of a process soon after its end, and keeps its counters."""
    seen: Scraped = {}
    while True:
        is_last = process.poll() is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{two_nodes.metrics_ports[0]}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        for name, labels, value in re.findall(r"^(ray_maskmill_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            seen[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))] = float(value)
        if is_last:
            return seen
        time.sleep(1)


def wait_for_parts(
    count: int, out: Path, process: subprocess.Popen[str], two_nodes: TwoNodes, *, said: str = ""
) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len(list(out.glob("data/*.parquet"))) < count:
        assert process.poll() is None, (said, *process.communicate())
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no {count} parts: {process.communicate()}")
        two_nodes.lend_compiled()
        time.sleep(0.05)


def parts_in(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("data/*.parquet"))}


def test_stopped_job_commits_what_is_in_flight_within_the_grace_time(story: Story):
    """Ray kills a job three seconds after asking it to stop, unless it is told how long ours may take."""
    assert story.stopped.returncode == 130, story.stopped
    assert "stopped by a signal" in story.stopped.stdout
    assert "repeat the same command" in story.stopped.stdout
    assert 1 <= len(story.parts_when_stopped) < IMAGES_IN_SHARD
    assert story.seconds_to_stop < RunSettings().grace_s + LEAVING_S


def test_job_submitted_again_does_what_is_left(story: Story):
    """make submit, to the end: the log is shown, the output is whole, what was there is untouched."""
    assert story.finished.returncode == 0, story.finished
    kept = len(story.parts_when_stopped)
    assert f"finished, all {IMAGES_IN_SHARD} chunks committed ({kept} were already committed)" in story.finished.stdout
    after = parts_in(story.out)
    assert len(after) == IMAGES_IN_SHARD
    assert {name: after[name] for name in story.parts_when_stopped} == story.parts_when_stopped
    assert (story.out / "_SUCCESS").exists()


def test_job_takes_the_packages_and_nothing_else(story: Story, two_nodes: TwoNodes):
    """An environment, an output or a checkpoint in the folder would be gigabytes on every submission."""
    assert story.finished.returncode == 0
    on_head, on_node = two_nodes.packages()
    assert on_head.name == on_node.name, "one package, whoever sends it"
    for package in (on_head, on_node):
        assert {path.name for path in package.iterdir()} == {"pipeline", "model", "conf", "jobs"}
        assert {path.name for path in (package / "jobs").iterdir() if path.is_dir()} <= {"__pycache__"}


def test_prometheus_sees_every_metric_with_its_labels_and_the_true_sums(story: Story):
    """A name that Ray changes or drops makes an empty panel, and nobody hears of it."""
    labels = {name: dict(labels) for name, labels in story.scraped}
    assert set(labels) == {f"ray_{metric.name}" for metric in CATALOGUE}
    for metric in CATALOGUE:
        assert {"run", *metric.labels} <= set(labels[f"ray_{metric.name}"])
        assert labels[f"ray_{metric.name}"]["run"] == str(story.out)
    assert labels[f"ray_{FAILURES.name}"]["reason"] == Failure.WORKER_DIED
    assert labels[f"ray_{IMAGES.name}"]["status"] == "ok"
    # Two drivers, one series each; what is recorded last is not lost with its process.
    assert sum(values_of(IMAGES, story)) == IMAGES_IN_SHARD
    assert all(seconds > 0 for seconds in values_of(BUSY, story))


def values_of(metric: Metric, story: Story) -> list[float]:
    return [value for (name, _), value in story.scraped.items() if name == f"ray_{metric.name}"]


@pytest.mark.usefixtures("story")
def test_prometheus_finds_every_node_where_the_page_says(two_nodes: TwoNodes):
    """Ray has moved this file once."""
    [place] = re.findall(r"files: \[/tmp/ray/(.*)\]", PAGE)
    [group] = json.loads((two_nodes.folder / "head" / place).read_text())
    ports = {target.rpartition(":")[2] for target in group["targets"]}
    assert {str(port) for port in two_nodes.metrics_ports} <= ports


JOB = SubmitJob(source="s3://bucket/images", out="s3://bucket/masks", run=RunSettings(address="auto"))


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (replace(JOB, out="out/masks"), "out=out/masks is another place on every machine"),
        (replace(JOB, source="photos"), "source=photos is another place"),
        (replace(JOB, model=replace(JOB.model, checkpoint="~/h.pth")), "model.checkpoint=~/h.pth is another place"),
        (replace(JOB, run=RunSettings(address="local")), "run=local"),
        (replace(JOB, run=RunSettings(address="auto", images_per_chunk=0)), "run.images_per_chunk=0"),
    ],
)
def test_what_cannot_work_on_a_cluster_is_refused_before_anything_is_sent(job: SubmitJob, said: str):
    """A relative path would be taken in a temporary folder of the head, and the output vanish with it."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        submit_job(job)


def test_address_where_nobody_answers_is_named():
    """The most common mistake is the head's other port."""
    [port] = free_ports(1)
    with pytest.raises(ConfigError, match=f"submit.address=http://127.0.0.1:{port} "):
        submit_job(replace(JOB, submit=SubmitSettings(address=f"http://127.0.0.1:{port}")))


def test_overrides_reach_the_job_as_they_were_typed_but_for_the_submissions_own():
    """The job composes its settings itself; run=cluster is the default, not a must."""
    typed = ["submit.address=http://h:1", 'source="we ird, b"', "+recipe.points_per_side=4", "submit.follow=false"]
    assert command(typed)[:4] == ["python", "-m", "jobs.generate", "run=cluster"]
    assert command(typed)[4:] == ['source="we ird, b"', "+recipe.points_per_side=4"]
    assert command(["run=cluster", "run.grace_s=5"])[3:] == ["run=cluster", "run.grace_s=5"]


def test_ray_waits_longer_than_the_driver_may_take_to_stop():
    """A SIGKILL in the grace time loses the chunks that it is for. Ray reads whole seconds."""
    assert int(stop_wait(Settings(run=RunSettings(grace_s=0.5)))) >= 1 + LEAVING_S
    assert int(stop_wait(Settings(run=RunSettings(grace_s=90)))) >= 90 + LEAVING_S
