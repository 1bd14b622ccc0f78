"""Values that no run can work with, said before anything is read.

Owns the ranges; masks/ranges.py has those of a recipe. Types are checked where settings are read, the model and the
source where they are opened.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import ConfigError
from pipeline.masks.ranges import not_finite_numbers, out_of_range
from pipeline.settings import RunSettings, Settings
from pipeline.storage.connect import endpoint_problem
from pipeline.texts import redacted

DEVICES = ("auto", "cpu", "cuda")


def check_settings(settings: Settings) -> None:
    """raises ConfigError naming every setting that is out of range, its value and what it may be"""
    # A nan would also fail the ranges below, or slip through them.
    groups = {"recipe": settings.recipe, "run": settings.run, "store": settings.store}
    not_finite = [f"{name}.{problem}" for name, group in groups.items() for problem in not_finite_numbers(group)]
    if not_finite:
        raise ConfigError("; ".join(not_finite))
    of_recipe = (f"recipe.{problem}" for problem in out_of_range(settings.recipe))
    problems = [*_required(settings), *of_recipe, *_run(settings.run)]
    for name, at_least in (("retry_deadline_s", 0.0), ("answer_timeout_s", 0.001)):
        if getattr(settings.store, name) < at_least:
            problems.append(f"store.{name}={getattr(settings.store, name)} must be {at_least:g} or more")
    if settings.store.anonymous and settings.store.requester_pays:
        problems.append("store.anonymous=true and store.requester_pays=true: nobody can be billed who is not named")
    problems += _secrets(settings)
    device = settings.model.device
    if device not in DEVICES:
        problems.append(f"model.device={device} must be one of {', '.join(DEVICES)}")
    if problems:
        raise ConfigError("; ".join(problems))


def _secrets(settings: Settings) -> Iterator[str]:
    """They would stand in commands, logs and plans. The values are not told."""
    problem = endpoint_problem(settings.store.endpoint_url)
    if problem:
        yield problem
    places = {"source": settings.source, "out": settings.out, "model.checkpoint": settings.model.checkpoint or ""}
    for key, place in places.items():
        if redacted(place) != place:
            yield (
                f"{key} carries a password or a signature; write s3://bucket/key, and give credentials by "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE"
            )


def _required(settings: Settings) -> Iterator[str]:
    if not settings.source.strip():
        yield "source= is missing: a folder or s3:// prefix, a .tar(.gz), .zip, .parquet, or a list (.txt, .jsonl)"
    if not settings.out.strip():
        yield "out= is missing: the folder or s3:// prefix that the dataset is written to"


def _run(run: RunSettings) -> Iterator[str]:
    counts = ("images_per_chunk", "threads_per_worker", "max_pixels", "max_bytes", "chunk_attempts", "dry_images")
    for name in (*counts, "image_timeout_s"):
        if getattr(run, name) < 1:
            yield f"run.{name}={getattr(run, name)} must be 1 or more"
    if run.max_workers is not None and run.max_workers < 1:
        yield f"run.max_workers={run.max_workers} must be 1 or more, or null for all there is"
    if not 0 <= run.max_failed_fraction <= 1:
        yield f"run.max_failed_fraction={run.max_failed_fraction} must be in [0, 1]"
    if run.deadline_s is not None and run.deadline_s <= 0:
        yield f"run.deadline_s={run.deadline_s} must be above 0, or null for no limit"
    share = run.stop_after_failed_fraction
    if share is not None and not 0 <= share < 1:
        yield f"run.stop_after_failed_fraction={share} must be in [0, 1), or null"
    if run.price_per_hour is not None and run.price_per_hour < 0:
        yield f"run.price_per_hour={run.price_per_hour} must be 0 or more, or null"
    if run.grace_s < 0:
        yield f"run.grace_s={run.grace_s} must be 0 or more"
