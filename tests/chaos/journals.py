"""What a thousand workers' marks cost the machine of the driver: nothing; and what the driver's looks cost it.

Journals are actors with the real class in them, asked by the driver's own code at its own pace. Many share a process,
so that a thousand fit one small machine. Each has the marks of one worker with two chunks. More marks would change
nothing: they stay on their node.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

NODES = 1000
PROCESSES = 8
LOOKS = 20
MOST = 0.5
"""Of a core, for the driver."""


class Journals:
    """Several journals in one process: each call names its own."""

    def __init__(self) -> None:
        from pipeline.cluster.journal import Journal

        self._journal = Journal()

    def mark(self, key: str, ordinal: int | None) -> None:
        self._journal.mark(key, ordinal)

    def look(self, keys: list[str], ended: list[str]) -> Any:
        return self._journal.look(keys, ended)


def journals() -> tuple[list[str], list[str]]:
    """Lines of a report, and what is wrong."""
    import ray

    from pipeline.cluster.driver import WATCH_S
    from pipeline.cluster.journal import JournalKeeper

    init: Any = ray.init
    remote: Any = ray.remote
    init(address="local", num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False)
    actors = [remote(num_cpus=1)(Journals).remote() for _ in range(PROCESSES)]
    nodes = [f"n{number}" for number in range(NODES)]
    keeper = JournalKeeper()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "on", lambda node: actors[int(node[1:]) % PROCESSES])
        keys = {node: [f"{node}#1", f"{node}#2"] for node in nodes}
        ray.get([actors[int(node[1:]) % PROCESSES].mark.remote(key, 1) for node in nodes for key in keys[node]])
        known = 0
        cpu, wall = time.process_time(), time.monotonic()
        for look in range(LOOKS):
            time.sleep(max(0.0, wall + look * WATCH_S - time.monotonic()))
            known = len(keeper.look(keys))
        seconds = LOOKS * WATCH_S
        share = (time.process_time() - cpu) / seconds
    ray.shutdown()
    lines = [
        f"chaos journals: {share:.1%} of a core for the looks into {NODES} journals, less than {MOST:.0%} is expected",
        f"  {LOOKS} looks in {seconds:.0f} s; {known} of {2 * NODES} attempts known at the end; marks cost the driver "
        "nothing",
    ]
    problems = [f"looks cost {share:.0%} of a core"] if share >= MOST else []
    return lines, problems + ([f"only {known} attempts are known"] if known < 2 * NODES else [])
