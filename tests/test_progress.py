"""What a run shows while it works: lines in a log, a bar on a terminal."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from pipeline.progress import Bar, Event, Lines, Standing, duration, progress_on
from pipeline.settings import Log
from tests.fakes_run import Terminal

STANDING = Standing(
    images_done=100, images_total=400, counted=100, masks=7000, failed=0, workers_ready=1, workers_wanted=3
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the module takes for the time."""
    clock = Clock()
    monkeypatch.setattr("pipeline.progress.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def sentences(log: io.StringIO) -> list[str]:
    """What was said, without the time of it, which must be there and be now."""
    said: list[str] = []
    for line in log.getvalue().splitlines():
        at, _, sentence = line.partition(" ")
        assert abs(datetime.now(UTC) - datetime.fromisoformat(at)) < timedelta(minutes=5)
        said.append(sentence)
    return said


def test_a_log_gets_a_line_every_ten_seconds_however_often_it_is_shown(clock: Clock):
    """The driver shows twice a second; a log of a week must stay readable."""
    log = io.StringIO()
    lines = Lines(log)
    for tick in range(100):
        clock.now = 1000.0 + tick / 2
        lines.show(replace(STANDING, images_done=100 + tick))
    said = sentences(log)
    assert len(said) == 4
    assert said[0] == (
        "120/400 images (30%), 7000 masks (70.0 per image), 1 of 3 workers ready, 2.00 images/s, 2 min 20 s left"
    )


def test_speed_is_of_what_was_done_since_it_was_first_shown(clock: Clock):
    """A resumed run finds a million images done; they took no time of this command."""
    log = io.StringIO()
    lines = Lines(log)
    lines.show(replace(STANDING, images_done=390))
    clock.now += 20
    lines.show(replace(STANDING, images_done=400))
    assert sentences(log)[-1].endswith(", 0.50 images/s, 0 s left")


def test_nobody_guesses_the_end_before_an_image_is_done(clock: Clock):
    """A model may load for minutes."""
    log = io.StringIO()
    lines = Lines(log)
    lines.show(replace(STANDING, images_done=0))
    clock.now += 20
    lines.show(replace(STANDING, images_done=0, failed=3))
    assert sentences(log)[-1].startswith("0/400 images (0%), 3 failed, 7000 masks")
    assert sentences(log)[-1].endswith(", 0.00 images/s")


def test_a_recount_has_no_workers(clock: Clock):
    """`make verify` said that two of two workers were ready, on a machine without Ray."""
    log, screen = io.StringIO(), io.StringIO()
    lines, bar = Lines(log), Bar(screen)
    clock.now += 20
    for shown in (lines, bar):
        shown.show(replace(STANDING, workers_ready=0, workers_wanted=0))
    bar.close()
    assert sentences(log)[0] == "100/400 images (25%), 7000 masks (70.0 per image), 0.00 images/s"
    assert "70 masks/img]" in screen.getvalue()


def test_nobody_says_how_many_masks_there_are_before_a_chunk_is_finished(clock: Clock):
    """A folder of four photographs is one chunk, and `0 masks` beside `3/4 images` is untrue."""
    log, screen = io.StringIO(), io.StringIO()
    lines, bar = Lines(log), Bar(screen)
    clock.now += 20
    for shown in (lines, bar):
        shown.show(replace(STANDING, images_done=3, counted=0, masks=0, workers_wanted=1))
    bar.close()
    assert sentences(log)[0].startswith("3/400 images (1%), 1 of 1 worker ready, ")
    assert ", 1/1 workers" in screen.getvalue()
    assert "masks" not in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59.6, "1 min"), (75, "1 min 15 s"), (7200, "2 h"), (93_784, "1 d 2 h"), (86_430, "1 d")],
)
def test_a_duration_has_two_units_at_most(seconds: float, said: str):
    """Nobody needs the seconds of a day."""
    assert duration(seconds) == said


def test_events_are_said_at_once(clock: Clock):
    """That a worker died is news, whenever the last line was."""
    log = io.StringIO()
    lines = Lines(log)
    for sentence in ("one", "two"):
        lines.say(sentence)
    assert sentences(log) == ["one", "two"]


def test_a_run_without_images_is_all_done(clock: Clock):
    """Nothing to do is no division by nothing."""
    log = io.StringIO()
    lines = Lines(log)
    clock.now += 20
    lines.show(Standing(0, 0, 0, 0, 0, 0, 0))
    assert sentences(log)[0].startswith("0/0 images (100%)")


def test_a_log_is_told_of_parts_that_are_counted_at_the_same_pace(clock: Clock):
    """At the end of a run they can take minutes in which no image is done."""
    log = io.StringIO()
    lines = Lines(log)
    for counted in range(11_991, 12_012):
        clock.now += 1
        lines.show_finish(counted, 44_000)
    assert sentences(log) == [
        "counting: 12,000 of 44,000 parts",
        "counting: 12,010 of 44,000 parts",
    ]


def test_a_bar_of_parts_and_a_bar_of_images_take_turns():
    """Parts are counted at the end, and with run.retry_failed at the beginning as well."""
    screen = io.StringIO()
    bar = Bar(screen)
    for _ in range(2):
        bar.show_finish(1, 3)
        bar.show(STANDING)
    bar.close()
    shown = screen.getvalue()
    assert shown.count("counting: 1 of 3 parts |") >= 2
    assert shown.count("100/400") >= 2
    assert "img" not in shown.partition("100/400")[0]


def test_a_bar_begins_at_what_was_done_before_and_events_stand_above_it():
    """tqdm's own speed is of the difference; a sentence in the middle of a bar cannot be read."""
    screen = io.StringIO()
    bar = Bar(screen)
    bar.say("before there is a bar")
    bar.show(STANDING)
    assert "100/400" in screen.getvalue()
    assert "70 masks/img, 1/3 workers" in screen.getvalue()
    bar.show(replace(STANDING, images_done=200, counted=102, failed=2, workers_ready=3))
    bar.say("a worker died")
    bar.close()
    shown = screen.getvalue()
    assert "200/400" in shown
    assert "70 masks/img, 2 failed, 3/3 workers" in shown
    assert "before there is a bar\n" in shown
    assert "\ra worker died\n" in shown


def test_programs_get_one_json_object_a_line_with_what_and_where():
    """Also on a terminal. No name can break the line or forge a field."""
    log = Terminal()
    progress = progress_on(log, Log.JSON, run_id="r1")
    progress.say("it failed:\n", Event.CHUNK_FAILED, chunk="a-00001", node="n")
    progress.say('"level": "none"', Event.FAILED)
    first, second = map(json.loads, log.getvalue().splitlines())
    assert abs(datetime.now(UTC) - datetime.fromisoformat(first.pop("time"))) < timedelta(minutes=5)
    assert first == {
        "level": "warning",
        "run": "r1",
        "event": "chunk_failed",
        "chunk": "a-00001",
        "node": "n",
        "message": "it failed:\n",
    }
    assert (second["level"], second["message"]) == ("error", '"level": "none"')
    assert not second.keys() & {"chunk", "node"}


def test_a_file_and_a_pipe_get_lines():
    """A bar's carriage returns in a log file cannot be read."""
    assert isinstance(progress_on(io.StringIO()), Lines)


ON_A_TERMINAL = """
import sys
from pipeline.progress import Standing, progress_on
progress = progress_on(sys.stderr)
of = dict(images_total=16, workers_wanted=2)
progress.show(Standing(images_done=3, counted=3, masks=210, failed=0, workers_ready=1, **of))
progress.say("a worker died")
progress.show(Standing(images_done=8, counted=8, masks=560, failed=1, workers_ready=2, **of))
progress.show_finish(12_000, 44_000)
progress.close()
"""


def on_a_terminal(script: str, *, columns: int) -> str:
    """What a process writes to stderr if that is a terminal."""
    terminal, line = pty.openpty()
    fcntl.ioctl(line, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen([sys.executable, "-c", script], stderr=line) as process:
        os.close(line)
        written = b""
        with suppress(OSError):  # how a terminal says that nobody holds it any more
            while data := os.read(terminal, 4096):
                written += data
    os.close(terminal)
    assert process.returncode == 0, written.decode()
    return written.decode()


def test_on_a_terminal_a_user_sees_images_masks_failures_and_workers():
    """The first thing that anybody sees of a run, on a real terminal of a usual width."""
    shown = on_a_terminal(ON_A_TERMINAL, columns=80)
    frames = [frame for line in shown.splitlines() for frame in line.split("\r") if frame.strip()]
    event = frames.index("a worker died")
    before, (*_, last) = frames[event - 1], (frame for frame in frames if "img" in frame)
    assert "3/16" in before
    assert "70 masks/img, 1/2 workers" in before
    assert " 50%|" in last
    assert "8/16" in last
    assert "80 masks/img, 1 failed, 2/2 workers" in last
    assert "counting: 12,000 of 44,000 parts |" in frames[-1]
    assert max(map(len, frames)) <= 80, "a longer one leaves a line behind at every step"
