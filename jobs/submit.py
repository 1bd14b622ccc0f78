"""A run on a cluster, started from outside of it: `python -m jobs.submit submit.address=... source=... out=...`.

Takes the settings of jobs.generate, checks them here, sends the code, and shows the job's log. The exit code is the
job's: 0 every chunk committed; 2 wrong configuration; 3 unfinished, or more images failed than allowed; 130 stopped,
resumable.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.command import run_command
from pipeline.cluster.submission import submit
from pipeline.errors import INTERRUPTED, ConfigError
from pipeline.plan.plan import FROZEN
from pipeline.run.checks import check_settings
from pipeline.settings import Settings, SubmitJob
from pipeline.storage.uris import is_s3
from pipeline.texts import printable, printable_lines
from pipeline.work.released import is_fetched, on_a_cluster

ROOT = Path(__file__).resolve().parent.parent
LEAVING_S = 15
"""Seconds after the grace time in which a driver that was told to stop ends its workers and leaves Ray."""


def submit_job(job: SubmitJob) -> int:
    """Check the settings, hand the job over and follow it."""
    check_settings(job)
    if job.run.address == "local":
        raise ConfigError("run=local would make a cluster of its own inside the job; leave run=cluster")
    if not (ROOT / ".rayignore").exists():
        raise ConfigError(f"{ROOT} is no checkout of the repository, which is where a job takes its code from")
    problems = list(_places_that_differ(job))
    if is_fetched(job.model):
        problems.append(on_a_cluster(job.model))
    if problems:
        raise ConfigError("; ".join(problems))
    submission = submit(
        command(sys.argv[1:]),
        address=job.submit.address,
        package=ROOT,
        env={"RAY_JOB_STOP_WAIT_TIME_S": stop_wait(job)},
    )
    about = f"--address {job.submit.address} {submission.id}"
    sys.stdout.write(printable(f"Maskmill: job {submission.id}; `ray job stop {about}` stops it, resumable") + "\n")
    if not job.submit.follow:
        return 0
    try:
        return submission.follow(_write)
    except KeyboardInterrupt:
        sys.stderr.write(printable(f"Maskmill: the job goes on; `ray job logs --follow {about}` shows it") + "\n")
        return INTERRUPTED


def command(overrides: Sequence[str]) -> list[str]:
    """The command that the head runs, for these overrides of this command."""
    passed = [argument for argument in overrides if not argument.lstrip("+").startswith("submit.")]
    run = [] if any(argument.startswith("run=") for argument in passed) else ["run=cluster"]
    return ["python", "-m", "jobs.generate", *run, *passed]


def stop_wait(settings: Settings) -> str:
    """Whole seconds between the SIGTERM and the SIGKILL of `ray job stop`; Ray's own default is 3."""
    return str(math.ceil(settings.run.grace_s) + LEAVING_S)


def _places_that_differ(settings: Settings) -> Iterator[str]:
    """A sentence for each relative path. It would be another place on every machine."""
    checkpoint = None if is_fetched(settings.model) else settings.model.checkpoint
    places = {"source": settings.source, "out": settings.out, "model.checkpoint": checkpoint}
    for key, uri in places.items():
        if uri and not (is_s3(uri) or uri.startswith("file://") or os.path.isabs(uri)):
            yield f"{key}={uri} is another place on every machine; write s3://... or the absolute path of a shared disk"


def _write(text: str) -> None:
    # The lines are the job's. What stands in them may come from anywhere, Ray's own lines among them.
    sys.stdout.write(printable_lines(text))
    sys.stdout.flush()


def main() -> int:
    return run_command("submit", SubmitJob, submit_job, frozen=FROZEN)


if __name__ == "__main__":
    sys.exit(main())
