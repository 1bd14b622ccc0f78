"""What one command did, for programs: OUT/_job/reports/<time>-<id>.json, written at its end however it ends.

Owns the fields. What a person reads is report.py. Nothing here is read by a later run, and a store that does not take
the file costs nobody the run.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pipeline.cluster.ledger import Ledger
from pipeline.errors import StorageError, exit_code_of
from pipeline.plan.layout import run_report_uri
from pipeline.plan.plan import Plan
from pipeline.plan.versions import versions_here
from pipeline.progress import Say
from pipeline.run.outcome import Outcome
from pipeline.settings import Settings
from pipeline.storage.store import Store
from pipeline.texts import redacted


def new_run_id() -> str:
    """Sorts by time, and no two commands have the same."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"


@dataclass
class RunRecord:
    """What is known of a command and, as it works, of what it has done."""

    run_id: str
    settings: Settings
    plan: Plan
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    ledger: Ledger | None = None
    avoided: tuple[str, ...] = ()
    outcome: Outcome | None = None


@contextmanager
def reported(settings: Settings, plan: Plan, *, run_id: str, out: str, store: Store, say: Say) -> Generator[RunRecord]:
    """Writes the report when the work ends, or is ended by an error, which goes on."""
    record = RunRecord(run_id, settings, plan)
    error: BaseException | None = None
    try:
        yield record
    except BaseException as raised:
        error = raised
        raise
    finally:
        text = json.dumps(_fields(record, error), indent=1)
        try:
            store.put_if_absent(run_report_uri(out, run_id), redacted(text).encode())
        except StorageError as refused:
            say(f"the report of this command is not written: {refused}")


def _fields(record: RunRecord, error: BaseException | None) -> Mapping[str, Any]:
    ended, outcome, ledger = datetime.now(UTC), record.outcome, record.ledger
    given_up = ledger.given_up if ledger is not None else {}
    return {
        "run": record.run_id,
        "begun": record.begun.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "seconds": round((ended - record.begun).total_seconds(), 1),
        "exit_code": exit_code_of(error) if error is not None else outcome and outcome.exit_code,
        "ending": str(outcome.ending) if outcome is not None else None,
        "error": f"{type(error).__name__}: {error}" if error is not None else None,
        "chunks": {
            "planned": record.plan.chunk_count,
            "committed": len(ledger.committed) if ledger is not None else None,
            "done_by_this_command": len(ledger.reports) if ledger is not None else 0,
        },
        "images": dict(ledger.statuses) if ledger is not None else {},
        "masks": ledger.masks if ledger is not None else 0,
        "given_up": [{"chunk": chunk_id, "why": each.why} for chunk_id, each in given_up.items()],
        "avoided": list(record.avoided),
        "who": {"user": _user(), "host": socket.gethostname(), "process": os.getpid()},
        "versions": versions(record.plan.settings.model_family),
        "settings": asdict(record.settings),
    }


def versions(family: str = "") -> dict[str, str]:
    """Of what shapes the output of such models, and of what runs it."""
    running = {"python": platform.python_version(), "ray": version("ray"), "boto3": version("boto3")}
    return {**versions_here(family), **running}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return str(os.getuid())
