"""A Ray cluster of several nodes on this machine, and the ways to hurt it. Every blow is a SIGKILL.

Importing this sets the environment that Ray reads when it is imported; use it from the main thread alone.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# A lost node is noticed after a few seconds instead of twelve or more; until then nobody takes its workers' place.
os.environ.update(
    {
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "3",
    }
)

from ray.cluster_utils import Cluster

STORE_BYTES = 80 * 2**20
STARTS = 4
"""Attempts at starting a node."""


class Nodes:
    """A head without room for workers, where drivers live, and `count` nodes for the workers and their journals."""

    def __init__(self, *, count: int, cpus: int) -> None:
        self._cpus = cpus
        # Neither an autoscaler nor lines of workers on a terminal: processes that nobody here would listen to.
        unheard = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
        head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, **unheard}
        self._cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.gcs_address)

    def add(self, **environment: str) -> Any:
        """A node that joins late is used like any other; `environment` is that of its workers."""
        how = {"num_cpus": self._cpus, "object_store_memory": STORE_BYTES, "env_vars": environment}
        return _patiently(lambda: self._cluster.add_node(**how))

    def kill_worker(self, dice: random.Random) -> bool:
        """One worker, at any moment of its life after it was made; False if there is none."""
        return _kill_one([pid for node in self._cluster.worker_nodes for pid in _children(node, "ray::Worker")], dice)

    def kill_journal(self, dice: random.Random) -> bool:
        """What the workers of one node tell where they are."""
        return _kill_one([pid for node in self._cluster.worker_nodes for pid in _children(node, "ray::Journal")], dice)

    def kill_node(self, dice: random.Random) -> bool:
        """A node with at least one worker, at once with all its processes."""
        nodes = [node for node in self._cluster.worker_nodes if has_worker(node)]
        if not nodes:
            return False
        node = dice.choice(sorted(nodes, key=lambda node: node.unique_id))
        workers = list(_children(node, "ray::Worker"))
        self._cluster.remove_node(node, allow_graceful=False)
        for pid in workers:  # a machine that loses its power takes them along
            _kill(pid)
        return True

    def close(self) -> None:
        self._cluster.shutdown()


@contextmanager
def cluster(*, count: int, cpus: int) -> Iterator[Nodes]:
    nodes = Nodes(count=count, cpus=cpus)
    try:
        yield nodes
    finally:
        nodes.close()


def _patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a node 30 s to start, which a loaded machine may not keep; what did not start ends with the process."""
    for _ in range(STARTS - 1):
        try:
            return start()
        except Exception as error:  # Ray raises no more than that
            if "timed out during startup" not in str(error):
                raise
    return start()


def has_worker(node: Any) -> bool:
    return any(_children(node, "ray::Worker"))


def _kill_one(pids: list[int], dice: random.Random) -> bool:
    return bool(pids) and _kill(dice.choice(sorted(pids)))


def _kill(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _children(node: Any, title: str) -> Iterator[int]:
    """Processes of the node's raylet with this title."""
    [raylet] = node.all_processes["raylet"]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == raylet.process.pid and stat.with_name("cmdline").read_bytes().startswith(title.encode()):
                yield int(stat.parent.name)
