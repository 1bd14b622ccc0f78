"""A recipe from its name, the model's own thresholds and a caller's overrides, without Hydra.

The presets are those of the commands: the files in conf/recipe and conf/model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import yaml

from pipeline.errors import ConfigError
from pipeline.masks.ranges import not_finite_numbers, out_of_range
from pipeline.plain_values import to_settings
from pipeline.settings import Recipe

_NOT_HERE = {
    "point_grid": "give arrays as point_grids=[...], one a crop layer",
    "roi": "give the region of an image to generate(image, roi=...)",
}


def recipe_named(name: str, *, model: str, overrides: Mapping[str, Any]) -> Recipe:
    """As `recipe=NAME model=MODEL recipe.KEY=VALUE` on a command line.

    raises  ConfigError for a recipe that is not there, an unknown override, and a value of a wrong type or range
    """
    presets = sorted(_names("recipe"))
    if name not in presets:
        raise ConfigError(f"there is no recipe {name!r}; choose one of {', '.join(presets)}")
    for key, instead in _NOT_HERE.items():
        if overrides.get(key) is not None:
            raise ConfigError(f"{key}= is of runs; {instead}")
    values: dict[str, Any] = {**_preset("recipe", name)}
    if model in _names("model"):
        values |= _preset("model", model).get("recipe", {})
    recipe = to_settings(Recipe, {**values, **overrides})
    problems = [*not_finite_numbers(recipe)] or [*out_of_range(recipe)]
    if problems:
        raise ConfigError("; ".join(problems))
    return recipe


def _names(group: str) -> Iterator[str]:
    return (path.name.removesuffix(".yaml") for path in (files("conf") / group).iterdir() if path.name.endswith("yaml"))


def _preset(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((files("conf") / group / f"{name}.yaml").read_text(encoding="utf-8")) or {}
