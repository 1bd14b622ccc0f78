"""A peer's process as seen from the comparison: started, asked, given up.

The requests and answers are described in worker.py.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.peers import Peer, Setup
from pipeline.settings import Recipe


class PeerError(RuntimeError):
    """The peer cannot be built, failed, or took too long; the message is for its row."""


class PeerProcess:
    """One peer, loaded once, alive until closed.

    raises  PeerError from the constructor and from `run`; the process is over after a failure to build or a time-out
    """

    def __init__(self, peer: Peer, setup: Setup, *, threads: int, limit_wall_s: float) -> None:
        self._limit_wall_s = limit_wall_s
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 # closed in `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": _path()} | peer.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._ask({"peer": asdict(peer), "setup": asdict(setup), "threads": threads})
        except PeerError:
            self.close()
            raise

    def run(self, image: Path, recipe: Recipe) -> dict[str, Any]:
        """One measured image. The answers of all these are in worker.py."""
        return self._do("run", image, recipe)

    def stages(self, image: Path, recipe: Recipe) -> dict[str, Any]:
        """One image by stage."""
        return self._do("stages", image, recipe)

    def ceilings(self) -> dict[str, Any]:
        """What the device reaches at best, in this process."""
        return self._ask({"do": "ceilings"})

    def trace(self, image: Path, recipe: Recipe, file: Path) -> dict[str, Any]:
        """One image under torch's profiler, its trace in `file`."""
        return self._do("trace", image, recipe, file=str(file.resolve()))

    def _do(self, what: str, image: Path, recipe: Recipe, **more: str) -> dict[str, Any]:
        return self._ask({"image": str(image), "recipe": asdict(recipe), "do": what} | more)

    def _read(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put("")

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.poll() is not None:
            raise PeerError("its process is over")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=self._limit_wall_s)
        except queue.Empty:
            self.close()
            raise PeerError(f"given up after {self._limit_wall_s:.0f} s") from None
        if not line:
            raise PeerError(f"its process ended with code {self._process.wait()}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        return (self._log.read().strip().splitlines() or ["no message"])[-1][:300]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _path() -> str:
    """Where a peer imports from: this project first, and wherever this process was told to."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
