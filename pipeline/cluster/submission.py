"""A command handed to a cluster through Ray's jobs API, and followed to its end.

Owns the HTTP conversation with the cluster's head. Does not know what the command does, and starts no Ray here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import Any

import aiohttp
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.errors import ConfigError, RunError
from pipeline.texts import one_line, printable

POLL_S = (0.5, 16.0)
"""Seconds between two questions: at first, and at most; each pause is twice the last."""
PATIENCE_S = 300.0
"""Seconds for which a head that does not answer is asked again."""
STOPPED = 130
NEVER_BEGAN = 3

Write = Callable[[str], object]
NOT_ANSWERING = (RuntimeError, OSError, aiohttp.ClientError)
"""What Ray's client raises when a request fails; requests' own errors are OSErrors."""


@dataclass(frozen=True)
class Submission:
    """A job that the cluster has."""

    id: str
    client: Any

    def follow(self, write: Write) -> int:
        """Write its log as it grows; returns its exit code once it has ended.

        0 and others  the command's own; 128 + n if signal n ended it
        130           it was stopped (`ray job stop`)
        3             it never began
        raises  RunError if the head has not answered for PATIENCE_S; the job may be running nevertheless
        """
        written, pause = asyncio.run(self._tail(write)), POLL_S[0]
        while True:
            # The stream may break or end before the log does. The state comes first: what has ended has all its log.
            info = self._asked(lambda: self.client.get_job_info(self.id))
            log = self._asked(lambda: self.client.get_job_logs(self.id))
            write(log[written:])
            written = max(written, len(log))
            if info.status.is_terminal():
                return _exit_code(info, write)
            time.sleep(pause)
            pause = min(2 * pause, POLL_S[1])

    async def _tail(self, write: Write) -> int:
        """Characters written until the stream ended or broke."""
        written = 0
        try:
            async for text in self.client.tail_job_logs(self.id):
                write(text)
                written += len(text)
        except NOT_ANSWERING:
            pass
        return written

    def _asked(self, question: Callable[[], Any]) -> Any:
        """The answer, asked for again while the head does not give one."""
        silent_since: float | None = None
        while True:
            try:
                return question()
            except NOT_ANSWERING as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > PATIENCE_S:
                    raise RunError(
                        f"the cluster's head does not answer ({one_line(error)}); job {self.id} goes on if it lives"
                    ) from error
                time.sleep(POLL_S[0])


def _exit_code(info: Any, write: Write) -> int:
    if info.status is JobStatus.STOPPED:
        return STOPPED
    code = info.driver_exit_code
    if code is None:
        write(f"the job never began: {printable(str(info.message))}\n")
        return NEVER_BEGAN
    return code if code >= 0 else 128 - code


def _handed_over(client: Any, **job: Any) -> str:
    """The job's id. A head that has just come up answers before it can take a job, and says to try again later."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.submit_job(**job)
        except RuntimeError as error:
            if "try again later" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S[0])


def submit(command: Sequence[str], *, address: str, package: Path, env: Mapping[str, str]) -> Submission:
    """Hand `command` over, to be run on the head in a copy of `package` (less what its .rayignore names), with `env`
    set there and in its workers.

    raises  ConfigError if no jobs API answers at `address`, or it refuses
    """
    runtime_env = {"working_dir": str(package), "env_vars": dict(env)}
    try:
        client: Any = JobSubmissionClient(address)
        # `exec`: the shell that Ray puts around a command would be one more process between it and a signal.
        job_id = _handed_over(client, entrypoint=f"exec {join(command)}", runtime_env=runtime_env)
    except (*NOT_ANSWERING, ValueError) as error:
        raise ConfigError(
            f"no Ray jobs API takes this job at submit.address={address} ({one_line(error)}); it is the address of the "
            "cluster's dashboard, such as http://127.0.0.1:8265"
        ) from error
    return Submission(job_id, client)
