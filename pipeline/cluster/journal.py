"""Which image every worker is at, kept outside the worker, so that it is known after the worker's death.

Owns an actor on each node that has workers, which ends with the driver, and the driver's handles of them. A mark stays
on its node, so that a thousand workers cost the driver no more than its looks. If a node is lost its journal is too,
but then nobody is blamed in any case. A worker goes on when its mark is acknowledged, after 0.6 ms. In the kills that
were tried no such mark was lost, and half of those not waited for.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import ray as typed_ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import MaskmillError
from pipeline.records import JournalEntry

ray: Any = typed_ray  # its annotations are partial and partly wrong

READ_TIMEOUT_S = 10.0
NODES_AT_ONCE = 100
"""Nodes whose journals are asked in one look. More nodes take turns, so that a look costs the driver some 20 ms."""
ANSWER_S = 0.05
"""Seconds that a look waits for answers; those that come later are taken by the next one."""


class JournalLostError(MaskmillError):
    """The journal does not answer, because something killed it. No chunk is to blame for that."""


class Journal:
    """The actor. Keys are those of attempts; times are read from this process's clock."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[int | None, int, float]] = {}

    def mark(self, key: str, ordinal: int | None) -> None:
        """An attempt is about to begin with this image, or with none."""
        images = self._marks[key][1] if key in self._marks else 0
        self._marks[key] = (ordinal, images + (ordinal is not None), time.monotonic())

    def read(self, keys: Iterable[str]) -> dict[str, JournalEntry]:
        """Those of the keys that have begun."""
        now = time.monotonic()
        known = {key: self._marks[key] for key in keys if key in self._marks}
        return {key: JournalEntry(ordinal, images, now - then) for key, (ordinal, images, then) in known.items()}

    def look(self, keys: Iterable[str], ended: Iterable[str]) -> dict[str, JournalEntry]:
        """As `read`; the marks of attempts that have ended are dropped."""
        for key in ended:
            self._marks.pop(key, None)
        return self.read(keys)


def mark_in(journal: Any, key: str, ordinal: int | None) -> None:
    """Called by a worker; returns when the mark is kept. Raises JournalLostError."""
    try:
        ray.get(journal.mark.remote(key, ordinal))
    except RayError as error:
        raise JournalLostError(f"the journal of this run does not answer ({type(error).__name__})") from error


class JournalKeeper:
    """The driver's side: makes a journal on each node that has workers, reads them, makes another when one is lost."""

    def __init__(self) -> None:
        self._actors: dict[str, Any] = {}
        self._asked: dict[Any, str] = {}
        """Answers that are awaited, and the nodes that are to give them."""
        self._known: dict[str, set[str]] = {}
        """Node -> the attempts that it was last asked about; those asked longest ago are first."""
        self._entries: dict[str, dict[str, JournalEntry]] = {}

    def on(self, node: str) -> Any:
        """The journal of a node."""
        if node not in self._actors:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            make: Any = ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=there)
            self._actors[node] = make(Journal).remote()
        return self._actors[node]

    def replace(self, lost: Any) -> None:
        """Another journal instead of `lost`, once: several workers may find the same one lost."""
        for node in [node for node, actor in self._actors.items() if actor is lost]:
            ray.kill(self._actors.pop(node))

    def read(self, node: str, keys: list[str]) -> dict[str, JournalEntry] | None:
        """What is known of these attempts on a node; None if its journal was lost, or takes too long."""
        actor = self.on(node)
        try:
            return ray.get(actor.read.remote(keys), timeout=READ_TIMEOUT_S)
        except GetTimeoutError:
            return None
        except RayError:
            self.replace(actor)
            return None

    def look(self, keys: Mapping[str, Collection[str]]) -> Mapping[str, JournalEntry]:
        """What is known of the attempts in flight, node by node: as last answered, for a node that takes its time.

        Asks NODES_AT_ONCE of the nodes, those that were asked longest ago; never waits longer than ANSWER_S.
        """
        pending = set(self._asked.values())
        never = [node for node in keys if node not in self._known]
        turn = [node for node in [*never, *self._known] if node in keys and node not in pending]
        for node in turn[:NODES_AT_ONCE]:
            now = set(keys[node])
            ended = self._known.pop(node, set()) - now
            self._known[node] = now
            self._asked[self.on(node).look.remote(list(now), list(ended))] = node
        if self._asked:
            self._take_answers()
        return {key: entry for node in keys for key, entry in self._entries.get(node, {}).items()}

    def _take_answers(self) -> None:
        asked = list(self._asked)
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_S, fetch_local=False)
        for ref in answered:
            node = self._asked.pop(ref)
            try:
                self._entries[node] = ray.get(ref)
            except RayError:
                self._entries.pop(node, None)
                self.replace(self._actors.get(node))

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)
