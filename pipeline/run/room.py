"""What the cluster has room for.

Owns the question whether a worker takes a GPU or CPU slots, and how many of them there could be now.
"""

from __future__ import annotations

from typing import Any

import ray as typed_ray

from pipeline.errors import ConfigError
from pipeline.settings import RunSettings

ray: Any = typed_ray  # its annotations are partial and partly wrong


class Room:
    """device  model.device

    raises  ConfigError if no node has room for a single worker, and none may still come
    """

    def __init__(self, settings: RunSettings, *, device: str) -> None:
        uses_gpu = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
        self.gpus_each = 1 if uses_gpu else 0
        self.cpus_each = 1 if uses_gpu else settings.threads_per_worker
        # Where nodes may still come, a worker that waits for them is what brings them.
        if not self.slots() and (settings.address == "local" or settings.max_workers is None):
            raise ConfigError(f"{self._why_none()}, or, on a cluster that grows on demand, set run.max_workers")

    def slots(self) -> int:
        """Workers that would fit on the nodes that are there now; more may join."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if self.gpus_each:
            return sum(int(node.get("GPU", 0)) for node in nodes)
        return sum(int(node.get("CPU", 0) // self.cpus_each) for node in nodes)

    def _why_none(self) -> str:
        if self.gpus_each:
            return "model.device=cuda, but Ray sees no GPU; use model.device=auto or cpu"
        return f"run.threads_per_worker={self.cpus_each}, but no node has that many CPUs; lower it"


def is_alive(node_id: str) -> bool:
    """The node is part of the cluster."""
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())
