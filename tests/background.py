"""Long commands in processes of their own, which run beside the rest of the suite: they wait more than they compute.

`@pytest.mark.background(name, *arguments)` on a test has `python -m name arguments` started when the first test begins,
one such command after the other; the test comes last and takes its `Ended` from the fixture `ended`.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 420

Command = tuple[str, ...]
Ended = subprocess.CompletedProcess[str]


class Background:
    """The plugin, one of a session."""

    def __init__(self) -> None:
        self._ended: dict[Command, Future[Ended]] = {}
        self._waiting: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._process: subprocess.Popen[str] | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """They come last, so that their commands have had the time of all the others."""
        items.sort(key=lambda item: command_of(item) is not None)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            command = command_of(item)
            if command is not None and command not in self._ended:
                self._ended[command] = Future()
                self._waiting.put(command)
        if self._ended and not session.config.option.collectonly:
            threading.Thread(target=self._run_all, name="background", daemon=True).start()

    def pytest_sessionfinish(self) -> None:
        """A suite that was stopped leaves nothing running."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def ended(self, item: pytest.Item) -> Ended:
        """What became of the command of this test; waits for its end."""
        command = command_of(item)
        assert command is not None, "the fixture is for tests marked as background"
        return self._ended[command].result(2 * TIMEOUT_S)

    def _run_all(self) -> None:
        while True:
            command = self._waiting.get()
            try:
                self._ended[command].set_result(self._run(command))
            except BaseException as error:  # noqa: BLE001  # handed to the test, whole
                self._ended[command].set_exception(error)

    def _run(self, command: Command) -> Ended:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said, _ = self._process.communicate(timeout=TIMEOUT_S)
            return subprocess.CompletedProcess(command, self._process.returncode, said)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process = None


def command_of(item: pytest.Item) -> Command | None:
    marker = item.get_closest_marker("background")
    return tuple(marker.args) if marker is not None else None
