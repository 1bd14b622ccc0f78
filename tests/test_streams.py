"""What reaches a terminal: no name of a file moves a cursor or forges a line of ours, and no character is an error."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from jobs.command import run_command
from jobs.evaluate import EvaluateJob
from jobs.look import LookJob
from jobs.submit import submit_job
from jobs.train import TrainJob, log_to_stderr
from jobs.verify import VerifyJob, verify
from pipeline.errors import ConfigError, StorageError
from pipeline.plan.plan import OutputSettings, Plan
from pipeline.progress import progress_on
from pipeline.records import Chunk, GivenUp
from pipeline.run.outcome import Outcome
from pipeline.run.report import summary
from pipeline.settings import RunSettings, Settings, SubmitJob, SubmitSettings
from pipeline.storage.store import Store
from pipeline.texts import printable, printable_lines
from tests.cluster.test_submission import Client
from tests.fakes_run import Terminal
from tests.output.test_verify import run_without_a_cluster
from tests.small_runs import small_run

FORGED = "Maskmill: sound, complete"
HOSTILE = f"a\n{FORGED}\r\x1b[31m\x9b2J\x7f\u202e\u2028ü日.jpg"
SPELLED = rf"a\x0a{FORGED}\x0d\x1b[31m\x9b2J\x7f\u202e\u2028ü日.jpg"

COMMANDS = {
    "look": LookJob,
    "generate": Settings,
    "submit": SubmitJob,
    "verify": VerifyJob,
    "evaluate": EvaluateJob,
    "train": TrainJob,
}
every_command = pytest.mark.parametrize("command", list(COMMANDS))


def assert_tame(text: str) -> None:
    """The name is there, spelled, and nothing in the text is a control character but for the ends of its lines."""
    assert SPELLED in text
    assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text) == []
    assert not any(line.startswith(FORGED) for line in text.split("\n"))


def run(command: str, action: Callable[[object], int], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", [command])
    return run_command(command, COMMANDS[command], action)


@pytest.mark.parametrize("text", ["", "a b.jpg", "ünï/日本 (1).jpg", "عربى", "👩\u200d🚀", r"a\x1b", "\xa0", "x\ue000"])
def test_what_a_terminal_prints_stays_as_it_is(text: str):
    """Names in any script are for reading, joined emoji as well."""
    assert printable(text) == printable_lines(text) == text


def test_what_moves_a_cursor_is_spelled():
    """The whole of C0, DEL and C1, whatever turns a line's direction, other ends of lines, and lone surrogates."""
    codes = [*range(0x20), *range(0x7F, 0xA0)]
    assert printable("".join(map(chr, codes))) == "".join(f"\\x{code:02x}" for code in codes)
    wide = "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ud800\udcff"
    assert printable(wide) == "".join(f"\\u{ord(character):04x}" for character in wide)
    assert printable(HOSTILE) == SPELLED
    assert printable_lines("a\x1b\nb\n") == "a\\x1b\nb\n"


@every_command
@pytest.mark.parametrize("error", [ConfigError(HOSTILE), StorageError(HOSTILE)])
def test_an_error_of_a_command_is_one_tame_line(
    command: str, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Most messages name a file."""

    def action(_job: object) -> int:
        raise error

    assert run(command, action, monkeypatch) in (2, 3)
    said = capsys.readouterr().err
    assert_tame(said)
    assert said.count("\n") == 1


@every_command
def test_a_stream_that_lacks_a_character_spells_it(command: str, monkeypatch: pytest.MonkeyPatch):
    """Everything is committed when the summary is written: it must not end in a traceback and exit code 1."""
    sinks = {"stdout": io.BytesIO(), "stderr": io.BytesIO()}
    for name, sink in sinks.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(sink, encoding="ascii", errors="strict"))

    def action(_job: object) -> int:
        for stream in (sys.stdout, sys.stderr):
            stream.write("ünï 日\n")
            stream.flush()
        return 0

    assert run(command, action, monkeypatch) == 0
    assert [sink.getvalue() for sink in sinks.values()] == [b"\\xfcn\\xef \\u65e5\n"] * 2


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["log", "terminal"])
def test_events_are_tame_in_a_log_and_beside_a_bar(stream: io.StringIO):
    """Reasons of failures come with names."""
    progress = progress_on(stream)
    progress.say(f"chunk x is tried again: {HOSTILE}")
    progress.close()
    assert_tame(stream.getvalue())


def test_the_summary_is_tame():
    """OUT, the machines' names and the reasons are data."""
    settings = OutputSettings.of(Settings(source=HOSTILE, out=HOSTILE), weights_sha256="w" * 64)
    outcome = Outcome(
        out=f"/{HOSTILE}",
        plan=Plan(settings, ()),
        manifest=None,
        found_chunks=0,
        committed_chunks=0,
        given_up=(GivenUp(Chunk(HOSTILE, 0, 0, 1), HOSTILE),),
        avoided=(HOSTILE,),
    )
    said = summary(outcome)
    assert_tame(said)
    assert said.count(SPELLED) == 4


def test_verify_is_tame(source: Path, tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]):
    """A file in data/ whose name says that all is well."""
    settings = small_run(source, tmp_path / HOSTILE)
    run_without_a_cluster(settings, store)
    (Path(settings.out) / "data" / HOSTILE).write_bytes(b"")
    assert verify(VerifyJob(out=settings.out)) == 4
    said = capsys.readouterr()
    assert_tame(said.out)
    assert f"  wrong    data/{SPELLED}: " in said.out
    assert said.err == ""


class HostileClient(Client):
    """A job whose log holds names, as a line that a command of another version wrote."""

    async def tail_job_logs(self, _job: str) -> AsyncIterator[str]:
        yield "line 1\n"
        yield f"{HOSTILE[:9]}"

    def get_job_logs(self, _job: str) -> str:
        return f"line 1\n{HOSTILE}\n"


def test_submit_is_tame_and_keeps_the_lines_of_the_jobs_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The log is passed through: its line breaks stay, whatever else moves a cursor is spelled."""
    monkeypatch.setattr("pipeline.cluster.submission.JobSubmissionClient", lambda _address: HostileClient())
    monkeypatch.setattr("sys.argv", ["submit", 'source="/in"', f'out="/{HOSTILE}"'])
    submit = SubmitSettings(address=f"http://{HOSTILE}")
    job = SubmitJob("/in", f"/{HOSTILE}", run=RunSettings(address="auto"), submit=submit)
    assert submit_job(job) == 0
    first, *log = capsys.readouterr().out.split("\n")
    assert SPELLED in first
    assert log == ["line 1", *SPELLED.split(r"\x0a"), ""]


def test_the_log_of_a_training_is_tame(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Images that are left out are named."""
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    log_to_stderr()
    logging.getLogger("tests.streams").warning("left out: %s", HOSTILE)
    said = capsys.readouterr().err
    assert_tame(said)
    assert said.count("\n") == 1
