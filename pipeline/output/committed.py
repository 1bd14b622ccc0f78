"""An output as it is now, finished or not: its plan and the chunks whose parts are there.

Owns the sentences for an output that cannot be shown, and for a part that is not the one that was planned. What is made
of the parts is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import ChangedError, ConfigError, DamagedError, DeniedError, NotFoundError
from pipeline.output.manifest import list_data
from pipeline.plan.layout import part_name, part_uri, plan_uri
from pipeline.plan.plan import Plan
from pipeline.plan.planning import load_plan
from pipeline.records import Chunk
from pipeline.storage.parts import Part, read_part
from pipeline.storage.store import ObjectInfo, Store

OF_ONE_PART = (NotFoundError, DeniedError, ChangedError, DamagedError)
"""Errors of the store that say something of one part. After any other the next part would meet the same."""


@dataclass(frozen=True)
class Committed:
    """The chunks whose parts are there, in plan order, and what the listing says of each part, by its name."""

    out: str
    plan: Plan
    chunks: tuple[Chunk, ...]
    listed: Mapping[str, ObjectInfo]

    def info(self, chunk: Chunk) -> ObjectInfo:
        return self.listed[part_name(self.plan, chunk)]


def find_committed(out: str, store: Store) -> Committed:
    """By the plan and one listing.

    raises  ConfigError if there is no run, or none of its parts
            StorageError if the store cannot be read
    """
    plan = load_plan(out, store=store)
    if plan is None:
        raise ConfigError(f"{out} holds no run: there is no {plan_uri(out)}")
    listed = list_data(out, store)
    chunks = tuple(chunk for chunk in plan.chunks() if part_name(plan, chunk) in listed)
    if not chunks:
        raise ConfigError(
            f"{out} has no committed part yet (0 of {plan.chunk_count:,}); look again when its run has committed one"
        )
    return Committed(out, plan, chunks, listed)


def part_problem(chunk: Chunk, plan: Plan, *, rows: int, metadata: Mapping[str, str]) -> str:
    """What shows that this is not the part of this chunk; empty if it may be."""
    of_plan, planned = metadata.get("plan_sha256", "no plan"), chunk.stop - chunk.start
    if of_plan == plan.sha256 and rows == planned:
        return ""
    return (
        f"{part_name(plan, chunk)} holds {rows} rows of {of_plan[:12]}, "
        f"expected {planned} of this plan, {plan.sha256[:12]}"
    )


def planned_part(chunk: Chunk, plan: Plan, *, out: str, store: Store) -> Part | str:
    """The part of a chunk, or a sentence that says why it cannot be used.

    raises  StorageError if the store does not answer, which says nothing of the part
    """
    name = part_name(plan, chunk)
    try:
        part = read_part(store.read(part_uri(out, plan, chunk)), format=plan.settings.format, name=name)
    except OF_ONE_PART as error:
        return str(error)
    return part_problem(chunk, plan, rows=len(part.rows), metadata=part.metadata) or part


def told(sentences: Sequence[str], *, shown: int = 3) -> str:
    """The first of them, and how many more there are, as the end of a sentence; empty if there are none."""
    others = len(sentences) - shown
    first = [*sentences[:shown], *([f"and {others:,} more"] if others > 0 else [])]
    return f": {'; '.join(first)}" if first else ""
