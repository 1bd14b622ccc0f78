"""What a person reads at the end of a run, and after a recount.

Owns the wording. Counts come from the manifest. Speeds, and counts before there is a manifest, are those of this
command's own workers.
"""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice

from pipeline.output.verify import Verification
from pipeline.plan.layout import data_uri
from pipeline.plan.planning import frozen_since
from pipeline.records import Ending, Funnel, Stage
from pipeline.run.outcome import Outcome
from pipeline.settings import Format
from pipeline.texts import counted, printable

ENDINGS = {
    Ending.DONE: "not finished",
    Ending.STOPPED: "stopped by a signal",
    Ending.DEADLINE: "stopped at run.deadline_s",
    Ending.FAILURES: "stopped by run.stop_after_failed_fraction",
}
SHOWN_KINDS = 5
"""Of what was ignored; plan.json has all of them."""


def summary(outcome: Outcome) -> str:
    """Several lines, fit for a terminal, no line break at the end."""
    lines = [
        _headline(outcome),
        *_plan(outcome),
        *_images(outcome),
        *_speed(outcome),
        *_failures(outcome),
        *_next(outcome),
    ]
    return "\n".join(map(printable, lines))


def _headline(outcome: Outcome) -> str:
    total, found = outcome.plan.chunk_count, outcome.found_chunks
    if outcome.manifest is None:
        left = total - outcome.committed_chunks
        done = f"{outcome.committed_chunks:,} of {counted(total, 'chunk')} committed"
        return f"Maskmill: {ENDINGS[outcome.ending]}, {done}, {left:,} left"
    if found == total:
        failed = outcome.manifest.failures
        again = "; run.retry_failed=true tries the failed images once more" if failed else ""
        whole = f"all {total:,} chunks were" if total > 1 else "its one chunk was"
        return f"Maskmill: nothing to do: {whole} already committed{again}"
    resumed = f" ({found:,} {'was' if found == 1 else 'were'} already committed)" if found else ""
    whole = f"all {total:,} chunks" if total > 1 else "its one chunk is"
    return f"Maskmill: finished, {whole} committed{resumed}"


def _plan(outcome: Outcome) -> Iterator[str]:
    if outcome.frozen_at is not None:
        yield f"  plan     {frozen_since(outcome.frozen_at)}"


def _images(outcome: Outcome) -> Iterator[str]:
    if outcome.manifest is not None:
        images, masks, failures = outcome.manifest.images, outcome.manifest.masks, outcome.manifest.failures
    elif outcome.reports:
        statuses = Counter[str]()
        for report in outcome.reports:
            statuses.update(report.images)
        images, masks = statuses.total(), sum(report.masks for report in outcome.reports)
        failures = {status: count for status, count in statuses.most_common() if status != "ok"}
    else:
        return
    of = "" if outcome.manifest is not None else " by this command"
    failed = sum(failures.values())
    reasons = f" ({', '.join(f'{count} {status}' for status, count in failures.items())})" if failed else ""
    yield f"  images   {images - failed:,} ok, {failed:,} failed{reasons}{of}"
    if outcome.plan.ignored:
        kinds = ", ".join(
            f"{each.count:,} {each.kind} (first: {each.first})" for each in outcome.plan.ignored[:SHOWN_KINDS]
        )
        more = sum(each.count for each in outcome.plan.ignored[SHOWN_KINDS:])
        yield f"  ignored  {kinds}{f' and {more:,} more' if more else ''}"
    mean = masks / (images - failed) if images > failed else 0.0
    yield f"  masks    {masks:,}, {mean:.1f} per image{of}"
    if outcome.too_many_failed:
        yield (
            f"  failed   {failed / images:.1%} of the images, more than run.max_failed_fraction="
            f"{outcome.max_failed_fraction}: make report OUT={shlex.quote(outcome.out)} has the reasons"
        )


def _speed(outcome: Outcome) -> Iterator[str]:
    if not outcome.reports:
        return
    images = sum(sum(report.images.values()) for report in outcome.reports)
    speed = images / max(outcome.work_s, 1e-9)
    yield f"  speed    {speed:.2f} images/s ({counted(images, 'image')} in {outcome.work_s:.1f} s)"
    seconds = Counter[Stage]()
    for report in outcome.reports:
        seconds.update(report.seconds)
    spent = ", ".join(f"{stage} {seconds[stage]:.1f} s" for stage in Stage if stage is not Stage.TURN)
    busy = seconds[Stage.COMPUTE] / max(outcome.worked_s, 1e-9)
    yield f"  time     {spent}, overlapping; the device was busy for {busy:.0%} of the workers' time"
    halved = sum(report.halved for report in outcome.reports)
    if halved:
        yield f"  memory   it was short, and batches were halved {counted(halved, 'time')}"
    yield f"  funnel   {_funnel(outcome)}"
    lost = sum(not report.won for report in outcome.reports)
    if lost:
        yield f"  shared   {counted(lost, 'chunk')} committed by another driver first"


def _funnel(outcome: Outcome) -> str:
    """What became of the candidates, in the order of the steps; steps that removed none are left out."""
    counts = asdict(sum((report.funnel for report in outcome.reports), Funnel()))
    candidates, kept = counts.pop("candidates"), counts.pop("kept")
    removed = [f"{count:,} {step.replace('_', ' ')}" for step, count in counts.items() if count]
    return f"{candidates:,} candidates: {', '.join([*removed, f'{kept:,} kept'])}"


def _failures(outcome: Outcome) -> Iterator[str]:
    for sentence in outcome.avoided:
        yield f"  avoided  {sentence}"
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for given_up in outcome.given_up:
        by_reason[given_up.why].append(given_up.chunk.chunk_id)
    for why, chunks in islice(by_reason.items(), 10):
        more = f" and {counted(len(chunks) - 1, 'more chunk')}" if len(chunks) > 1 else ""
        yield f"  given up {chunks[0]}{more}: {why}"
    if len(by_reason) > 10:
        yield f"  given up {counted(sum(map(len, islice(by_reason.values(), 10, None))), 'more chunk')}"


def _next(outcome: Outcome) -> Iterator[str]:
    yield f"  output   {outcome.out}"
    if outcome.manifest is None:
        yield "  next     repeat the same command: it does what is left"
    else:
        yield f"  load     {load_snippet(outcome.plan.settings.format, outcome.out)}"
    if outcome.committed_chunks:
        yield f"  look     make look OUT={shlex.quote(outcome.out)}"


def load_snippet(format: Format, out: str) -> str:
    """One line of Python that opens the finished dataset."""
    if format is Format.PARQUET:
        return f"import pyarrow.dataset as ds; table = ds.dataset({data_uri(out)!r}).to_table()"
    return f"SA-1B annotation JSONs, one for each image that has masks, in the tars at {data_uri(out)}"


SHOWN_PROBLEMS = 50


def verification_lines(found: Verification, *, out: str) -> Iterator[str]:
    """What a recount of the parts says, problems first."""
    for problem in found.problems[:SHOWN_PROBLEMS]:
        yield f"  wrong    {problem.where}: {problem.what}"
    if len(found.problems) > SHOWN_PROBLEMS:
        yield f"  wrong    {len(found.problems) - SHOWN_PROBLEMS:,} more"
    verdict = counted(len(found.problems), "problem") if found.problems else "sound"
    state = "complete" if found.finished else "not finished"
    yield f"Maskmill: {verdict}, {state}: {found.parts:,} of {counted(found.plan.chunk_count, 'part')} at {out}"
    statuses = ", ".join(f"{count:,} {status}" for status, count in found.images.most_common())
    yield f"  images   {found.images.total():,} of {found.plan.image_count:,} planned ({statuses or 'none yet'})"
    yield f"  masks    {found.masks:,}"
    for what, parts in found.other_versions.most_common(SHOWN_KINDS):
        yield f"  versions {counted(parts, 'part')} made by others than the plan's, as was allowed: {what}"
