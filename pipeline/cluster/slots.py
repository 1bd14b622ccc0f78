"""One worker of a crew as the driver sees it, and what its calls return.

Owns telling the end of a worker from that of its machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray as typed_ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from pipeline.cluster.capacity import machine_is_lost
from pipeline.cluster.metrics import Failure
from pipeline.records import Attempt
from pipeline.texts import one_line

ray: Any = typed_ray  # its annotations are partial and partly wrong


@dataclass(eq=False)
class WorkerSlot:
    """Asked for, then placed on a node, then ready."""

    actor: Any
    placing: Any
    """A call that returns the id of the node, once there is room on one."""
    starting: Any
    """A call that returns when the model is loaded."""
    node: str = ""
    ready: bool = False
    since: float = field(default_factory=time.monotonic)
    """When it was asked for, placed, or became ready."""
    in_flight: dict[Any, Attempt] = field(default_factory=dict[Any, Attempt])
    alone: bool = False
    """It works on a suspect chunk and gets no second one."""

    @property
    def keys(self) -> list[str]:
        """Of its attempts, in the journal of its machine."""
        return [attempt.key for attempt in self.in_flight.values()]

    @property
    def awaited(self) -> list[Any]:
        """The calls that it has not answered."""
        if self.ready:
            return list(self.in_flight)
        return [self.starting if self.node else self.placing]


class WorkerGoneError(Exception):
    """A call did not come back: its worker died, or its machine is lost or ran out of memory (`failure`)."""

    def __init__(self, failure: Failure, why: str) -> None:
        super().__init__(why)
        self.failure = failure


def answer_of(slot: WorkerSlot, ref: Any) -> Any:
    """What a call of this worker returned.

    raises  RayTaskError if the call itself failed, and the worker lives; WorkerGoneError
    """
    try:
        return ray.get(ref)
    except RayTaskError:
        raise
    # Ray's out-of-memory and actor errors are both RayErrors, and neither is a kind of the other.
    except OutOfMemoryError as error:
        raise WorkerGoneError(Failure.OUT_OF_MEMORY, one_line(error)) from error
    except RayError as error:
        lost = machine_is_lost(error, slot.node)
        raise WorkerGoneError(Failure.NODE_LOST if lost else Failure.WORKER_DIED, one_line(error)) from error
