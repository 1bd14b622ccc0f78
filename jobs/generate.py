"""Masks for image shards: `python -m jobs.generate source=... out=... [recipe=...] [model=...] [run=...]`.

Owns the process: environment, streams, exit code. Exit codes: 0 every chunk committed, or a dry run told; 2 wrong
configuration; 3 unfinished, or more images failed than allowed; 130 stopped by a signal, resumable.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from jobs.command import run_command, unresolved
from pipeline.cluster.private_ray import private_environment
from pipeline.errors import MaskmillError, exit_code_of
from pipeline.plan.plan import FROZEN
from pipeline.settings import Log, Settings

if TYPE_CHECKING:
    from pipeline.work.loading import FindWeights


def generate(settings: Settings, *, find_weights: FindWeights | None = None) -> int:
    """Run to the end and print the summary. Tests pass `find_weights` to use another segmenter."""
    # Ray reads the environment when it is imported: whoever has imported it before has decided.
    if settings.run.address == "local" and "ray" not in sys.modules:
        os.environ.update(private_environment())
    from pipeline.progress import Event, progress_on
    from pipeline.run.dry_run import dry_run
    from pipeline.run.estimate import estimate_text
    from pipeline.run.report import summary
    from pipeline.run.run_report import new_run_id
    from pipeline.run.session import run_settings
    from pipeline.signals import StopFlag

    run_id = new_run_id()
    progress, stop = progress_on(sys.stderr, settings.run.log, run_id=run_id), StopFlag()
    if find_weights is None:
        from pipeline.work.weights import weights_from_settings

        find_weights = partial(weights_from_settings, progress=progress)
    try:
        with stop.interrupting():
            if settings.run.dry:
                estimate = dry_run(settings, progress=progress, find_weights=find_weights, stop=stop)
                exit_code, said = 0, estimate_text(estimate)
            else:
                outcome = run_settings(settings, progress=progress, find_weights=find_weights, stop=stop, run_id=run_id)
                exit_code, said = outcome.exit_code, summary(outcome)
    except (MaskmillError, KeyboardInterrupt) as error:
        if settings.run.log is not Log.JSON:
            raise
        # Where programs read the log, the error is a line of it.
        progress.say(unresolved(f"{type(error).__name__}: {error}"), Event.FAILED)
        return exit_code_of(error)
    finally:
        progress.close()
    if settings.run.log is Log.JSON:
        progress.say(f"exit code {exit_code}", Event.ENDED)
    sys.stdout.write(said + "\n")
    return exit_code


def main() -> int:
    return run_command("generate", Settings, generate, frozen=FROZEN)


if __name__ == "__main__":
    sys.exit(main())
