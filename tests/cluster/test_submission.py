"""Following a job whose cluster does not do what it should: a client that tells a story."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from ray.job_submission import JobStatus

from pipeline.cluster.submission import Submission, submit

LOG = "line 1\nline 2\nline 3\n"


@dataclass
class Client:
    """A jobs API: `streamed` characters of the log, then the stream breaks; `silent` questions without an answer."""

    status: Any = JobStatus.SUCCEEDED
    code: int | None = 0
    streamed: int = 0
    silent: int = 0
    running: int = 0

    async def tail_job_logs(self, _job: str) -> AsyncIterator[str]:
        yield LOG[: self.streamed]
        raise aiohttp.ClientError("the proxy has had enough")

    def get_job_info(self, _job: str) -> Any:
        if self.silent:
            self.silent -= 1
            raise ConnectionError("nobody there")
        if self.running:
            self.running -= 1
            return SimpleNamespace(status=JobStatus.RUNNING, driver_exit_code=None, message="")
        return SimpleNamespace(status=self.status, driver_exit_code=self.code, message="no such package")

    def get_job_logs(self, _job: str) -> str:
        return LOG[:14] if self.running else LOG

    def submit_job(self, entrypoint: str, **_rest: Any) -> str:
        if self.silent:
            self.silent -= 1
            raise RuntimeError("Request failed with status code 500: No available agent, please try again later..")
        return entrypoint


def test_a_head_that_cannot_take_a_job_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """It answers some seconds before it can; a script that starts a cluster and submits must not fail by that."""
    monkeypatch.setattr("pipeline.cluster.submission.JobSubmissionClient", lambda _address: Client(silent=2))
    assert submit(["python", "-V"], address="http://h", package=tmp_path, env={}).id == "exec python -V"


def followed(client: Client) -> tuple[int, str]:
    written: list[str] = []
    return Submission("job", client).follow(written.append), "".join(written)


def test_log_is_shown_once_and_whole_though_its_stream_breaks():
    """Proxies cut streams of hours; the summary stands at the end."""
    assert followed(Client(streamed=9, running=1, silent=1)) == (0, LOG)
    assert followed(Client(streamed=len(LOG))) == (0, LOG)


@pytest.mark.parametrize(
    ("status", "code", "passed_on"),
    [
        (JobStatus.FAILED, 3, 3),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, -9, 137),
        (JobStatus.STOPPED, None, 130),
    ],
)
def test_exit_code_is_the_jobs_own(status: Any, code: int | None, passed_on: int):
    """`ray job submit` knows 0 and 1, and calls a stopped job a success."""
    assert followed(Client(status=status, code=code)) == (passed_on, LOG)


def test_job_that_never_began_says_why():
    """A package that cannot be unpacked leaves no log."""
    code, written = followed(Client(status=JobStatus.FAILED, code=None))
    assert code == 3
    assert written.endswith("the job never began: no such package\n")
