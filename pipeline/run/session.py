"""One run from settings to result: plan, work, finish.

Owns the order of the steps, so that everything that can be refused is refused before Ray starts. Does not print.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial

from pipeline.cluster.ledger import Ledger
from pipeline.cluster.ray_session import ray_session
from pipeline.errors import RunError
from pipeline.output.finish import chunks_with_failures, count_parts
from pipeline.output.manifest import Manifest, find_manifest, publish, unpublish
from pipeline.output.summaries import kept, summary_of
from pipeline.progress import Progress
from pipeline.records import Ending
from pipeline.run.checks import check_settings
from pipeline.run.opening import PlannedRun, plan_run
from pipeline.run.outcome import Outcome
from pipeline.run.preflight import creation_at, only_run
from pipeline.run.progress_file import progress_file
from pipeline.run.run_report import RunRecord, new_run_id, reported
from pipeline.settings import Settings
from pipeline.signals import StopFlag
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute
from pipeline.texts import counted
from pipeline.work.loading import FindWeights


def run_settings(
    settings: Settings, *, progress: Progress, find_weights: FindWeights, stop: StopFlag, run_id: str = ""
) -> Outcome:
    """Do, or finish, the run that `settings` describes.

    run_id  names this command's report; empty makes one
    stop    what its signals do while the driver works; before and after, they do what the caller has set up

    raises  ConfigError before a model is loaded, or when a worker finds the checkpoint wrong;
            StorageError, RunError if the work cannot go on
    """
    begun = time.monotonic()
    check_settings(settings)
    store, out = connect(settings.store, out=settings.out), absolute(settings.out)
    weights = find_weights(settings, store)
    with only_run(out, store, creation_at(out, store), say=progress.say):
        run = plan_run(settings, out, store, weights, progress)
        found = _finished_or_work(run)
        if isinstance(found, Outcome):
            return found
        with reported(
            settings, run.planned.plan, run_id=run_id or new_run_id(), out=out, store=store, say=progress.say
        ) as record:
            deadline_s = settings.run.deadline_s
            until = math.inf if deadline_s is None else begun + deadline_s
            with progress_file(progress, record, out=out, store=store) as told:
                record.outcome = _Work(replace(run, progress=told), found.again).run(stop, record, until=until)
            return record.outcome


def _finished_or_work(run: PlannedRun) -> Outcome | _Work:
    """The outcome if the run is finished already, or else what works on."""
    plan, out, store, settings = run.planned.plan, run.out, run.store, run.settings.run
    manifest = find_manifest(plan, out=out, store=store)
    committed = run.committed_now()
    again = frozenset[str]()
    if settings.retry_failed:
        again = chunks_with_failures(plan, committed, manifest, out=out, store=store, progress=run.progress)
    if manifest is not None and len(committed) == plan.chunk_count and not again:
        return Outcome(
            out=out,
            plan=plan,
            manifest=manifest,
            found_chunks=plan.chunk_count,
            committed_chunks=plan.chunk_count,
            max_failed_fraction=settings.max_failed_fraction,
            frozen_at=run.planned.frozen_at,
        )
    run.check_versions()
    return _Work(run, again)


@dataclass(frozen=True)
class _Drive:
    """How the driver's loop ended; the fields are those of `Outcome`."""

    ending: Ending
    work_s: float = 0.0
    worked_s: float = 0.0


@dataclass(frozen=True)
class _Work:
    """A run that is not finished yet."""

    of: PlannedRun
    again: frozenset[str]
    """Ids of committed chunks whose failed rows are tried once more."""

    def run(self, stop: StopFlag, record: RunRecord, *, until: float) -> Outcome:
        plan, settings = self.of.planned.plan, self.of.settings.run
        ledger = Ledger.open(
            plan,
            committed=self.of.committed_now(),
            attempts_allowed=settings.chunk_attempts,
            from_the_start=self.of.planned.created,
            again=self.again,
        )
        record.ledger = ledger
        if self.again:
            unpublish(out=self.of.out, store=self.of.store)
            self.of.progress.say(f"failed rows of {counted(len(self.again), 'chunk')} are tried once more")
        found = len(ledger.committed)
        drive = _Drive(Ending.DONE) if ledger.is_complete else self._drive(ledger, stop, record, until)
        given_up = tuple(ledger.given_up.values())
        if drive.ending is Ending.DONE:
            # What others committed meanwhile counts, and so does an earlier part whose failed rows failed again.
            # A stopped process has no time for a slow store.
            ledger.again.clear()
            ledger.note_committed(self.of.committed_now())
        left = plan.chunk_count - len(ledger.committed)
        if drive.ending is Ending.DONE and left > len(ledger.given_up):
            raise RunError(f"{self.of.out}: {left} chunks are not committed, and {len(ledger.given_up)} were given up")
        return Outcome(
            out=self.of.out,
            plan=plan,
            manifest=self._finish(ledger) if ledger.is_complete else None,
            found_chunks=found,
            committed_chunks=len(ledger.committed),
            given_up=given_up,
            ending=drive.ending,
            reports=tuple(ledger.reports),
            work_s=drive.work_s,
            worked_s=drive.worked_s,
            avoided=record.avoided,
            max_failed_fraction=settings.max_failed_fraction,
            frozen_at=self.of.planned.frozen_at,
        )

    def _drive(self, ledger: Ledger, stop: StopFlag, record: RunRecord, until: float) -> _Drive:
        plan = self.of.planned.plan
        self.of.progress.say(
            f"{counted(plan.image_count, 'image')} in {counted(plan.chunk_count, 'chunk')}, "
            f"{len(ledger.committed):,} of them already committed"
        )
        with ray_session(self.of.settings.run.address), stop.flagging():
            begun = time.monotonic()
            driver = self.of.driver(ledger, committed_now=self.of.committed_now)
            to_summary = partial(summary_of, plan=plan)
            try:
                with kept(ledger.reports, to_summary, plan, out=self.of.out, store=self.of.store):
                    ending = driver.run(stop, until=until)
            finally:
                record.avoided = driver.crew.avoided
            return _Drive(ending, time.monotonic() - begun, driver.crew.worked_s)

    def _finish(self, ledger: Ledger) -> Manifest:
        run = self.of
        manifest = count_parts(
            run.planned.plan, out=run.out, store=run.store, progress=run.progress, reports=ledger.reports
        )
        publish(manifest, out=run.out, store=run.store)
        return manifest
