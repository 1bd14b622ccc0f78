"""One run from settings to result: plan, work, recount.

Owns the order of the steps, so that everything that can be refused is refused before Ray starts. Does not print.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import ConfigError, DeniedError, NotFoundError, RunError
from pipeline.records import ChunkReport
from pipeline.run.checks import check_settings
from pipeline.run.driver import Driver, Ending, ray_session
from pipeline.run.ledger import GivenUp, Ledger
from pipeline.run.manifest import Manifest, committed_chunks, find_manifest, publish, recount
from pipeline.run.plan import Plan, Shape
from pipeline.run.planning import Planned, create_or_load_plan
from pipeline.run.progress import Progress
from pipeline.run.signals import stop_on_signals
from pipeline.run.worker import LoadSegmenter, WorkerSpec, checkpoint_sha256, segmenter_loader
from pipeline.settings import Settings
from pipeline.storage.store import Store, connect
from pipeline.storage.uris import absolute


@dataclass(frozen=True)
class Weights:
    """What the model is (`sha256`, part of the plan) and how a worker gets it."""

    sha256: str
    load: LoadSegmenter


FindWeights = Callable[[Settings, Store], Weights]


def weights_from_settings(settings: Settings, store: Store) -> Weights:
    """raises ConfigError if the model is unknown or its checkpoint cannot be read"""
    return Weights(sha256=checkpoint_sha256(settings.model, store), load=segmenter_loader(settings.model))


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
    stopped: bool = False
    reports: tuple[ChunkReport, ...] = ()
    """Of this command's own workers."""
    work_s: float = 0.0
    """Wall seconds from the first worker's request to the last report."""
    max_failed_fraction: float = 0.0

    @property
    def too_many_failed(self) -> bool:
        if self.manifest is None:
            return False
        return sum(self.manifest.failures.values()) > self.max_failed_fraction * self.manifest.images

    @property
    def exit_code(self) -> int:
        """0 all committed, 3 chunks missing or too many images failed, 130 stopped by a signal."""
        if self.manifest is not None:
            return 3 if self.too_many_failed else 0
        return 130 if self.stopped else 3


def run_settings(settings: Settings, *, progress: Progress, find_weights: FindWeights) -> Outcome:
    """Do, or finish, the run that `settings` describes.

    raises  ConfigError before a model is loaded, or when a worker finds the checkpoint wrong;
            StorageError, RunError if the work cannot go on
    """
    check_settings(settings)
    store, out = connect(settings.store), absolute(settings.out)
    weights = find_weights(settings, store)
    shape = Shape.of(settings, weights_sha256=weights.sha256)
    try:
        planned = create_or_load_plan(shape, out=out, store=store)
    except (NotFoundError, DeniedError) as error:
        raise ConfigError(str(error)) from error
    plan = planned.plan
    manifest = find_manifest(plan, out=out, store=store)
    if manifest is not None:
        return Outcome(
            out=out,
            plan=plan,
            manifest=manifest,
            found_chunks=plan.chunk_count,
            committed_chunks=plan.chunk_count,
            max_failed_fraction=settings.run.max_failed_fraction,
        )
    return _work(settings, planned, weights, out=out, store=store, progress=progress)


def _work(
    settings: Settings, planned: Planned, weights: Weights, *, out: str, store: Store, progress: Progress
) -> Outcome:
    plan = planned.plan

    def look_around() -> set[str]:
        return committed_chunks(plan, out=out, store=store)

    ledger = Ledger.open(
        plan,
        committed=look_around(),
        attempts_allowed=settings.run.chunk_attempts,
        from_the_start=planned.created,
    )
    found = len(ledger.committed)
    spec = WorkerSpec(
        out=out, plan=plan, store=settings.store, load=weights.load, threads=settings.run.threads_per_worker
    )
    begun = time.monotonic()
    ending = Ending.DONE
    if not ledger.is_complete:
        progress.say(f"{plan.image_count} images in {plan.chunk_count} chunks, {found} of them already committed")
        with ray_session(settings.run.address), stop_on_signals() as stop:
            driver = Driver(
                ledger, spec, settings.run, device=settings.model.device, look_around=look_around, progress=progress
            )
            begun = time.monotonic()
            ending = driver.run(stop)
        ledger.note_committed(look_around())
    work_s = time.monotonic() - begun
    if ending is Ending.DONE and not ledger.is_complete and not ledger.given_up:
        raise RunError(f"{out}: {plan.chunk_count - len(ledger.committed)} chunks were neither committed nor given up")
    return Outcome(
        out=out,
        plan=plan,
        manifest=_finish(plan, out=out, store=store) if ledger.is_complete else None,
        found_chunks=found,
        committed_chunks=len(ledger.committed),
        given_up=tuple(ledger.given_up.values()),
        stopped=ending is Ending.STOPPED,
        reports=tuple(ledger.reports),
        work_s=work_s,
        max_failed_fraction=settings.run.max_failed_fraction,
    )


def _finish(plan: Plan, *, out: str, store: Store) -> Manifest:
    manifest = recount(plan, out=out, store=store)
    publish(manifest, out=out, store=store)
    return manifest
