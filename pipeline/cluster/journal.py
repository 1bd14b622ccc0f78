"""Which image every worker is at, kept outside the worker, so that it is known after the worker's death.

Owns an actor on the driver's machine, which ends with the driver, and the driver's handle of it. A worker goes on when
its mark is acknowledged, after 0.6 ms. In the kills that were tried no such mark was lost, and half of those not waited
for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import ray as typed_ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import MaskmillError
from pipeline.records import JournalEntry

ray: Any = typed_ray  # its annotations are partial and partly wrong

READ_TIMEOUT_S = 10.0


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

    def forget_all_but(self, keys: Iterable[str]) -> None:
        """Drop the marks of attempts that have ended."""
        self._marks = {key: self._marks[key] for key in keys if key in self._marks}


def mark_in(journal: Any, key: str, ordinal: int | None) -> None:
    """Called by a worker; returns when the mark is kept. Raises JournalLostError."""
    try:
        ray.get(journal.mark.remote(key, ordinal))
    except RayError as error:
        raise JournalLostError(f"the journal of this run does not answer ({type(error).__name__})") from error


class JournalKeeper:
    """The driver's side: makes the actor, reads it, makes another when it is lost."""

    def __init__(self) -> None:
        self.actor = self._made()

    def _made(self) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        make: Any = ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=here)
        return make(Journal).remote()

    def replace(self, lost: Any) -> None:
        """Another journal instead of `lost`, once: several workers may find the same one lost."""
        if lost is self.actor:
            self.close()
            self.actor = self._made()

    def read(self, keys: list[str]) -> dict[str, JournalEntry] | None:
        """What is known of these attempts; None if the journal was lost, or takes too long."""
        try:
            return ray.get(self.actor.read.remote(keys), timeout=READ_TIMEOUT_S)
        except GetTimeoutError:
            return None
        except RayError:
            self.replace(self.actor)
            return None

    def read_only(self, keys: list[str]) -> dict[str, JournalEntry]:
        """As `read`, for all attempts in flight; the others are forgotten."""
        self.actor.forget_all_but.remote(keys)
        return self.read(keys) or {}

    def close(self) -> None:
        ray.kill(self.actor)
