"""A run whose plan is there, be it a real one or a dry one: how it is planned, what is committed of it, and the driver
that works on it.

Owns what the two have in common. What is done with the driver, session.py and dry_run.py decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.cluster.crew import WorkerKind
from pipeline.cluster.driver import Driver
from pipeline.cluster.ledger import Ledger
from pipeline.cluster.metrics import RunMetrics
from pipeline.cluster.worker import WorkerSpec, worker_actor
from pipeline.errors import ConfigError, DeniedError, NotFoundError
from pipeline.output.manifest import find_parts
from pipeline.plan.other_versions import check_versions
from pipeline.plan.plan import OutputSettings
from pipeline.plan.planning import Planned, create_or_load_plan
from pipeline.plan.point_grid import PointGrid, read_point_grid
from pipeline.plan.versions import versions_here
from pipeline.progress import Progress
from pipeline.settings import Settings
from pipeline.storage.store import Store
from pipeline.work.loading import Weights
from pipeline.work.regions import check_regions


@dataclass(frozen=True)
class PlannedRun:
    """A run whose plan is there, made now or earlier."""

    settings: Settings
    planned: Planned
    weights: Weights
    point_grid: PointGrid | None
    out: str
    store: Store
    progress: Progress

    def committed_now(self) -> set[str]:
        """Ids of the chunks whose part is in the store."""
        return find_parts(self.planned.plan, out=self.out, store=self.store).committed

    def check_versions(self) -> None:
        """raises  ConfigError if other versions than those that are here have planned it"""
        plan, allowed, say = self.planned.plan, self.settings.run.allow_other_versions, self.progress.say
        here = versions_here(plan.settings.model_family)
        check_versions(plan, here, allowed=allowed, out=self.out, store=self.store, say=say)

    def driver(self, ledger: Ledger, *, committed_now: Callable[[], set[str]], dry: bool = False) -> Driver:
        """In a Ray session. Its workers write nothing if it is `dry`."""
        settings = self.settings
        spec = WorkerSpec(
            out=self.out,
            plan=self.planned.plan,
            store=settings.store,
            load=self.weights.load,
            point_grid=self.point_grid,
            threads=settings.run.threads_per_worker,
            dry=dry,
        )
        return Driver(
            ledger,
            WorkerKind(worker_actor, spec, settings.model.device),
            settings.run,
            committed_now=committed_now,
            progress=self.progress,
            metrics=RunMetrics(f"{self.out} (dry run)" if dry else self.out),
        )


def plan_run(settings: Settings, out: str, store: Store, weights: Weights, progress: Progress) -> PlannedRun:
    """Plan, or find the plan.

    raises  ConfigError if the source cannot be planned, the plan is another one's, or the recipe names what is not
            there; StorageError
    """
    point_grid = read_point_grid(settings.recipe.point_grid, store)
    output_settings = replace(
        OutputSettings.of(settings, weights_sha256=weights.sha256, point_grid=point_grid),
        checkpoint_notes=weights.notes,
        model_family=weights.family,
        checkpoint_layout=weights.layout,
    )
    if output_settings.recipe.roi is not None:
        check_regions(output_settings.recipe.roi, store)
    for note in weights.notes:
        progress.say(f"left out of the checkpoint: {note}")
    try:
        planned = create_or_load_plan(output_settings, out=out, store=store, say=progress.say)
    except (NotFoundError, DeniedError) as error:
        raise ConfigError(str(error)) from error
    return PlannedRun(settings, planned, weights, point_grid, out, store, progress)
