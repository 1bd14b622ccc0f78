"""How a command ended, and its exit code. Needs neither Ray nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import INTERRUPTED, UNFINISHED
from pipeline.output.manifest import Manifest
from pipeline.plan.plan import Plan
from pipeline.records import ChunkReport, Ending, GivenUp


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `manifest` is there if, and only if, every chunk is committed."""

    out: str
    plan: Plan
    manifest: Manifest | None
    found_chunks: int
    """Committed before this command began."""
    committed_chunks: int
    given_up: tuple[GivenUp, ...] = ()
    ending: Ending = Ending.DONE
    reports: tuple[ChunkReport, ...] = ()
    """Of this command's own workers."""
    work_s: float = 0.0
    """Wall seconds of the driver: from before the first worker is asked for until its loop has ended."""
    worked_s: float = 0.0
    """Seconds for which this command's workers were ready to work, summed over all of them."""
    avoided: tuple[str, ...] = ()
    """One sentence for each machine on which workers kept failing."""
    max_failed_fraction: float = 0.0
    frozen_at: datetime | None = None
    """When the plan was made, if that was before this command."""

    @property
    def too_many_failed(self) -> bool:
        if self.manifest is None:
            return False
        return sum(self.manifest.failures.values()) > self.max_failed_fraction * self.manifest.images

    @property
    def exit_code(self) -> int:
        """0 all committed, 3 chunks missing or too many images failed, 130 stopped by a signal before all was."""
        if self.manifest is not None:
            return UNFINISHED if self.too_many_failed else 0
        return INTERRUPTED if self.ending is Ending.STOPPED else UNFINISHED
