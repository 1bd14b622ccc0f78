"""A real cluster of two nodes, started with the commands of docs/cluster.md, on 127.0.0.1."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cluster.private_ray import private_environment
from tests.compiled import compile_here, lend

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "cluster.md").read_text()
TOKEN = "0123456789abcdef" * 4
SMALL = ["--node-ip-address=127.0.0.1", f"--object-store-memory={100 * 2**20}", "--include-log-monitor=false"]
"""Nobody here reads workers' lines on a terminal; a job's own output comes another way."""


@dataclass(frozen=True)
class TwoNodes:
    """What a user of it knows, and where Ray keeps its files."""

    address: str
    metrics_ports: tuple[int, int]
    """Of the head, where the driver is, and of the node."""
    env: dict[str, str]
    folder: Path

    def packages(self) -> list[Path]:
        """What jobs have brought along, unpacked on each node."""
        unpacked = self.folder.glob("*/session_latest/runtime_resources/working_dir_files/*")
        return [path for path in unpacked if path.is_dir()]

    def workers(self) -> Iterator[tuple[int, str, Path]]:
        """Process id, what Ray calls it (`ray::Worker`, and `ray::Worker.run` while it is at work), its folder."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended since
                title = process.joinpath("cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
                folder = process.joinpath("cwd").readlink()
                if title.startswith("ray::Worker") and folder.is_relative_to(self.folder):
                    yield int(process.name), title, folder

    def kill_a_worker(self) -> None:
        """SIGKILL for the first one that is at work."""
        os.kill(self._at_work(), signal.SIGKILL)

    @contextmanager
    def worker_held(self) -> Iterator[None]:
        """The one that is at work does nothing meanwhile."""
        held = self._at_work()
        os.kill(held, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(held, signal.SIGCONT)

    def _at_work(self) -> int:
        deadline = time.monotonic() + 30
        while not (at_work := [pid for pid, title, _ in self.workers() if title == "ray::Worker.run"]):
            assert time.monotonic() < deadline, list(self.workers())
            time.sleep(0.05)
        return at_work[0]

    def lend_compiled(self) -> None:
        """To the packages, as soon as a node has one."""
        for package in self.packages():
            with suppress(OSError):  # it is not unpacked yet
                lend(package)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    # Ray puts sockets into this folder, whose paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    gcs, dashboard, metrics, node_metrics, agent, node_agent = free_ports(6)
    # Not what keeps this process's own sessions to themselves: these nodes are several machines.
    unwanted = {"PYTHONPATH", "RAY_ADDRESS", *private_environment()}
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    env["RAY_worker_niceness"] = "0"  # Ray's own is 15, which on a busy machine is next to nothing
    there = TwoNodes(f"http://127.0.0.1:{dashboard}", (metrics, node_metrics), env, folder)
    head_line, node_line = re.findall(r"^ray start .*$", PAGE, re.MULTILINE)
    # Neither an autoscaler: no test here waits for a node that it does not start itself.
    head = [*shlex.split(head_line), *SMALL, "--no-monitor", f"--port={gcs}", f"--dashboard-port={dashboard}"]
    node = [*shlex.split(node_line.replace("HEAD:6379", f"127.0.0.1:{gcs}")), *SMALL, "--num-cpus=2"]
    # Agents of two clusters on one machine would want the same port, and a head without its agent takes no job.
    head += [f"--temp-dir={folder}/head", f"--metrics-export-port={metrics}", f"--dashboard-agent-listen-port={agent}"]
    node += [f"--temp-dir={folder}/node", f"--metrics-export-port={node_metrics}"]
    node += [f"--dashboard-agent-listen-port={node_agent}"]
    compile_here()
    with ThreadPoolExecutor() as threads:
        # A job may come before the node: that it is used when it joins is part of what is tested.
        head_up = threads.submit(start, head, env)
        node_up = threads.submit(start, node, env, after=head_up)
        try:
            head_up.result()
            wait_for_the_jobs_api(there)
            yield there
        finally:
            processes = [up.result() for up in (node_up, head_up) if up.exception() is None]
            for process in processes:
                process.terminate()
            for process in processes:
                process.communicate(timeout=90)
            shutil.rmtree(folder, ignore_errors=True)


def start(
    command: list[str], env: dict[str, str], *, after: Future[subprocess.Popen[str]] | None = None
) -> subprocess.Popen[str]:
    """The process of `ray start --block`, once its node is up. Ray gives up after 30 s, too soon on a busy machine."""
    if after is not None:
        after.result()
    said = ""
    for _ in range(4):
        process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if "block forever" in line:
                return process
        process.communicate()
    raise AssertionError(f"no node came up: {said}")


def wait_for_the_jobs_api(there: TwoNodes) -> None:
    """The dashboard's parts come up one by one, after the node."""
    request = urllib.request.Request(f"{there.address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(request, timeout=20).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "no jobs API"
            time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
