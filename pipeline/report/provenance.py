"""What an output was made with, by its plan and by what its parts say."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pipeline.plan.plan import Plan
from pipeline.plan.versions import differing

_FIRST = (
    *("model.name", "model.family", "model.precision", "model.weights_sha256"),
    *("model.checkpoint_layout", "model.checkpoint_notes"),
)


def provenance(plan: Plan, made_by: Mapping[str, int]) -> dict[str, str]:
    """Names and values in the order in which they are shown: the model, the recipe, the other settings, the versions.

    made_by  the versions that parts say, in the spelling of their metadata -> how many parts
    """
    named = plan.settings.named(version=plan.version)
    order = [*_FIRST, *(name for name in named if name.startswith("recipe.")), *named]
    said = {name: _word(named[name]) for name in dict.fromkeys(order) if name in named}
    said |= {f"version of {name}": version for name, version in plan.versions}
    others = _others(plan, made_by)
    if others:
        said["parts of other versions"] = others
    return said | {"settings sha256": plan.settings_sha256, "plan sha256": plan.sha256}


def _word(value: object) -> str:
    return "none" if value is None else str(value)


def _others(plan: Plan, made_by: Mapping[str, int]) -> str:
    """Parts of which at least a row was made by versions that are not the plan's; empty if there are none."""
    if not plan.versions:
        return ""
    told: dict[str, int] = {}
    for spelling, parts in made_by.items():
        try:
            sets: list[dict[str, str]] = [dict(each) for each in json.loads(spelling)]
        except (ValueError, TypeError):
            sets = [{}]
        for versions in sets:
            if versions != dict(plan.versions):
                what = differing(dict(plan.versions), versions)
                told[what] = told.get(what, 0) + parts
    return "; ".join(f"{count:,} ({what})" for what, count in sorted(told.items()))
