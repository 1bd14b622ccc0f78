"""Recount an output from its parts: `python -m jobs.verify out=...`.

Exit codes: 0 complete and sound; 2 wrong configuration; 3 not finished, but sound so far; 4 something is wrong.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from jobs.command import run_command
from pipeline.errors import ConfigError
from pipeline.output.verify import verify_output
from pipeline.progress import progress_on
from pipeline.run.report import verification_lines
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute
from pipeline.texts import printable

UNSOUND = 4


@dataclass(frozen=True)
class VerifyJob:
    """What the command takes."""

    out: str = ""
    """The place that `jobs.generate` was given as out=."""
    store: StoreSettings = field(default_factory=StoreSettings)


def verify(job: VerifyJob) -> int:
    """Count the parts, print what was found and what is wrong, return the exit code."""
    if not job.out:
        raise ConfigError("say which output: out=...")
    out, progress = absolute(job.out), progress_on(sys.stderr)
    try:
        found = verify_output(out, connect(job.store), progress)
    finally:
        progress.close()
    sys.stdout.write("\n".join(map(printable, verification_lines(found, out=out))) + "\n")
    if found.problems:
        return UNSOUND
    return 0 if found.finished else 3


def main() -> int:
    return run_command("verify", VerifyJob, verify)


if __name__ == "__main__":
    sys.exit(main())
