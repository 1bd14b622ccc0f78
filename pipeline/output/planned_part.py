"""The part of one planned chunk, if it is there and of this plan; for whoever shows outputs that may be broken.

Owns what a part must be to be believed. A reader goes on without one that is not, and says so.
"""

from __future__ import annotations

from pipeline.errors import DeniedError, NotFoundError, StorageError
from pipeline.plan.layout import part_name, part_uri
from pipeline.plan.plan import Plan
from pipeline.records import Chunk
from pipeline.storage.parts import Part, read_part
from pipeline.storage.store import Store


def planned_part(chunk: Chunk, plan: Plan, *, out: str, store: Store) -> Part | str:
    """The part, or a sentence that says why it cannot be used.

    raises  StorageError if the store does not answer, which says nothing of the part
    """
    name, planned = part_name(plan, chunk), chunk.stop - chunk.start
    try:
        data = store.read(part_uri(out, plan, chunk))
    except (NotFoundError, DeniedError) as error:
        return str(error)
    try:
        part = read_part(data, format=plan.settings.format, name=name)
    except StorageError as error:
        return str(error)
    of_plan = part.metadata.get("plan_sha256", "no plan")
    if of_plan == plan.sha256 and len(part.rows) == planned:
        return part
    return f"{name} holds {len(part.rows)} rows of {of_plan[:12]}, expected {planned} of this plan, {plan.sha256[:12]}"
