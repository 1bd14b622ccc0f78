"""One run from settings to result: plan, work, recount.

Owns the order of the steps, so that everything that can be refused is refused before Ray starts. Does not print.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import ConfigError, DeniedError, NotFoundError, RunError
from pipeline.plan.plan import Plan, Shape
from pipeline.plan.planning import Planned, create_or_load_plan
from pipeline.records import ChunkReport
from pipeline.run.checks import check_settings
from pipeline.run.driver import Driver, Ending
from pipeline.run.ledger import GivenUp, Ledger
from pipeline.run.manifest import Manifest, find_manifest, find_parts, publish, recount
from pipeline.run.preflight import creation_at, only_run
from pipeline.run.progress import Progress
from pipeline.run.ray_session import ray_session
from pipeline.run.signals import StopFlag
from pipeline.run.worker import LoadSegmenter, WorkerSpec, checkpoint_sha256, segmenter_loader
from pipeline.settings import Settings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from pipeline.storage.uris import absolute


@dataclass(frozen=True)
class Weights:
    """What the model is (`sha256`, part of the plan) and how a worker gets it."""

    sha256: str
    load: LoadSegmenter


FindWeights = Callable[[Settings, Store], Weights]


def weights_from_settings(settings: Settings, store: Store) -> Weights:
    """raises ConfigError if the model is unknown or its checkpoint cannot be read"""
    sha256 = checkpoint_sha256(settings.model, store)
    return Weights(sha256=sha256, load=segmenter_loader(settings.model, sha256))


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
    worked_s: float = 0.0
    """Seconds for which this command's workers were ready to work, summed over all of them."""
    avoided: tuple[str, ...] = ()
    """Sentences: machines on which workers kept failing."""
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


def run_settings(settings: Settings, *, progress: Progress, find_weights: FindWeights, stop: StopFlag) -> Outcome:
    """Do, or finish, the run that `settings` describes.

    stop    what its signals do while the driver works; before and after, they do what the caller has set up

    raises  ConfigError before a model is loaded, or when a worker finds the checkpoint wrong;
            StorageError, RunError if the work cannot go on
    """
    check_settings(settings)
    store, out = connect(settings.store), absolute(settings.out)
    weights = find_weights(settings, store)
    with only_run(out, store, creation_at(out, store), say=progress.say):
        return _plan_and_work(settings, out, store, weights, progress, stop)


def _plan_and_work(
    settings: Settings, out: str, store: Store, weights: Weights, progress: Progress, stop: StopFlag
) -> Outcome:
    shape = Shape.of(settings, weights_sha256=weights.sha256)
    try:
        planned = create_or_load_plan(shape, out=out, store=store, say=progress.say)
    except (NotFoundError, DeniedError) as error:
        raise ConfigError(str(error)) from error
    plan = planned.plan
    manifest = find_manifest(plan, out=out, store=store)
    if manifest is not None and len(find_parts(plan, out=out, store=store).committed) == plan.chunk_count:
        return Outcome(
            out=out,
            plan=plan,
            manifest=manifest,
            found_chunks=plan.chunk_count,
            committed_chunks=plan.chunk_count,
            max_failed_fraction=settings.run.max_failed_fraction,
        )
    return _Work(settings, planned, weights, out, store, progress).run(stop)


@dataclass(frozen=True)
class _Drive:
    """How the driver's loop ended; the fields are those of `Outcome`."""

    ending: Ending
    work_s: float = 0.0
    worked_s: float = 0.0
    avoided: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Work:
    """A run that is not finished yet."""

    settings: Settings
    planned: Planned
    weights: Weights
    out: str
    store: Store
    progress: Progress

    def run(self, stop: StopFlag) -> Outcome:
        plan, settings = self.planned.plan, self.settings.run
        ledger = Ledger.open(
            plan,
            committed=self._look_around(),
            attempts_allowed=settings.chunk_attempts,
            from_the_start=self.planned.created,
        )
        found = len(ledger.committed)
        drive = _Drive(Ending.DONE) if ledger.is_complete else self._drive(ledger, stop)
        left = plan.chunk_count - len(ledger.committed)
        if drive.ending is Ending.DONE and left > len(ledger.given_up):
            raise RunError(f"{self.out}: {left} chunks are not committed, and {len(ledger.given_up)} were given up")
        return Outcome(
            out=self.out,
            plan=plan,
            manifest=self._finish() if ledger.is_complete else None,
            found_chunks=found,
            committed_chunks=len(ledger.committed),
            given_up=tuple(ledger.given_up.values()),
            stopped=drive.ending is Ending.STOPPED,
            reports=tuple(ledger.reports),
            work_s=drive.work_s,
            worked_s=drive.worked_s,
            avoided=drive.avoided,
            max_failed_fraction=settings.max_failed_fraction,
        )

    def _drive(self, ledger: Ledger, stop: StopFlag) -> _Drive:
        plan, settings = self.planned.plan, self.settings
        spec = WorkerSpec(
            out=self.out,
            plan=plan,
            store=settings.store,
            load=self.weights.load,
            threads=settings.run.threads_per_worker,
        )
        self.progress.say(
            f"{plan.image_count} images in {plan.chunk_count} chunks, {len(ledger.committed)} of them already committed"
        )
        with ray_session(settings.run.address), stop.flagging():
            begun = time.monotonic()
            driver = Driver(
                ledger,
                spec,
                settings.run,
                device=settings.model.device,
                look_around=self._look_around,
                progress=self.progress,
            )
            ending = driver.run(stop)
            drive = _Drive(ending, time.monotonic() - begun, driver.crew.worked_s, driver.crew.avoided)
        if ending is Ending.DONE:
            # What others committed meanwhile counts as well. A stopped process has no time for a slow store.
            ledger.note_committed(self._look_around())
        return drive

    def _look_around(self) -> set[str]:
        return find_parts(self.planned.plan, out=self.out, store=self.store).committed

    def _finish(self) -> Manifest:
        manifest = recount(self.planned.plan, out=self.out, store=self.store)
        publish(manifest, out=self.out, store=self.store)
        return manifest
