"""What the cluster has room for, and which of its machines are lost.

Owns what Ray says of the nodes: whether a worker takes a GPU or CPUs, how many workers fit, how many are worth asking
for.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import ray as typed_ray
from ray.exceptions import ActorUnavailableError, RayError

from pipeline.errors import ConfigError
from pipeline.settings import RunSettings

ray: Any = typed_ray  # its annotations are partial and partly wrong

LOOK_S = 1.0
"""Seconds for which the list of nodes is not asked for again."""
SPARE_AT_MOST = 16
"""Workers asked for beyond the room there is, on a cluster that may grow."""


class Capacity:
    """device  model.device

    raises  ConfigError if no node has room for a single worker, and none may still come
    """

    def __init__(self, settings: RunSettings, *, device: str) -> None:
        uses_gpu = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
        self.gpus_each = 1 if uses_gpu else 0
        self.cpus_each = 1 if uses_gpu else settings.threads_per_worker
        self._may_grow = settings.address != "local"
        self._seen: list[dict[str, Any]] = []
        self._seen_at = 0.0
        # Where nodes may still come, a worker that waits for them is what brings them.
        if not self.workers_that_fit() and (settings.address == "local" or settings.max_workers is None):
            raise ConfigError(f"{self._why_none()}, or, on a cluster that grows on demand, set run.max_workers")

    @property
    def each_has(self) -> str:
        """What one worker has to itself, in words."""
        if self.gpus_each:
            return "a GPU"
        return "a CPU core" if self.cpus_each == 1 else f"{self.cpus_each} CPU cores"

    def workers_that_fit(self, without: Collection[str] = ()) -> int:
        """Workers that would fit on the nodes that are there now, but for some; more nodes may join."""
        nodes = [node["Resources"] for node in self._nodes() if node["Alive"] and node["NodeID"] not in without]
        if self.gpus_each:
            return sum(int(node.get("GPU", 0)) for node in nodes)
        return sum(int(node.get("CPU", 0) // self.cpus_each) for node in nodes)

    def worth_asking_for(self, avoided: Collection[str]) -> int:
        """Workers to ask for where no number is set.

        Nothing tells whether a cluster grows on demand. So more are asked for than fit: as many again, up to
        SPARE_AT_MOST. Those that wait are demand for the autoscaler, which may double the cluster with each of its
        steps. On a cluster that does not grow they wait, and take nothing.
        """
        fit = max(1, self.workers_that_fit(without=avoided))
        return fit + min(fit, SPARE_AT_MOST) if self._may_grow else fit

    def alive(self) -> set[str]:
        """Ids of the nodes that are there now."""
        return {node["NodeID"] for node in self._nodes() if node["Alive"]}

    def name_of(self, node_id: str) -> str:
        """The node's address and id, for messages."""
        node = next((node for node in self._nodes() if node["NodeID"] == node_id), None)
        return f"node {node['NodeManagerAddress']} ({node_id[:8]})" if node else "no node yet"

    def _nodes(self) -> list[dict[str, Any]]:
        now = time.monotonic()
        if not self._seen or now - self._seen_at > LOOK_S:
            self._seen, self._seen_at = ray.nodes(), now
        return self._seen

    def _why_none(self) -> str:
        if self.gpus_each:
            return "model.device=cuda, but Ray sees no GPU; use model.device=auto or cpu"
        return f"run.threads_per_worker={self.cpus_each}, but no node has that many CPUs; lower it"


def machine_is_lost(error: RayError, node_id: str) -> bool:
    """Whether `error`, which a worker's call ended with, is the end of its machine and not of the worker alone.

    node_id  where the worker was; "" if that was not known yet
    """
    # The actors of a lost machine are unavailable at first; the cluster finds out later that the node is dead.
    if isinstance(error, ActorUnavailableError) or getattr(error, "preempted", False):
        return True
    return bool(node_id) and not any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())
