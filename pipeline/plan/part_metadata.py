"""What a part says of its own making, as strings by name.

Owns the names. Nothing of time, place or who made it: the same plan gives the same words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from pipeline import __version__
from pipeline.plan.plan import OutputSettings, Plan, canonical_json
from pipeline.plan.versions import Versions
from pipeline.records import Funnel


def part_metadata(plan: Plan, versions: Versions, funnel: Funnel, earlier: Sequence[Versions] = ()) -> dict[str, str]:
    """Of a part with this funnel. `earlier` are the versions that made rows which were kept."""
    named = plan.settings.named(version=plan.version)
    recipe = {name.removeprefix("recipe."): value for name, value in named.items() if name.startswith("recipe.")}
    return {
        "code_version": __version__,
        "recipe": canonical_json(recipe).decode(),
        "settings_sha256": plan.settings_sha256,
        "model_name": plan.settings.model_name,
        "model_precision": str(plan.settings.precision),
        "weights_sha256": plan.settings.weights_sha256,
        **_of_the_checkpoint(plan.settings),
        "plan_sha256": plan.sha256,
        "funnel": json.dumps(asdict(funnel), separators=(",", ":")),
        **_versions(plan, versions, earlier),
    }


def _of_the_checkpoint(settings: OutputSettings) -> dict[str, str]:
    """What is known of it. Most are used as they are, and their parts have no notes."""
    notes = canonical_json(settings.checkpoint_notes).decode() if settings.checkpoint_notes else ""
    said = {"model_family": settings.model_family, "checkpoint_layout": settings.checkpoint_layout}
    return {name: value for name, value in (said | {"checkpoint_notes": notes}).items() if value}


def _versions(plan: Plan, versions: Versions, earlier: Sequence[Versions]) -> dict[str, str]:
    """Of all that made rows of this part, each set once. A plan without versions has parts without."""
    if not plan.versions:
        return {}
    sets = [*map(dict, earlier), dict(versions)]
    once = [each for number, each in enumerate(sets) if each not in sets[:number]]
    return {"versions": canonical_json(once).decode()}
