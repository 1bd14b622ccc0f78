"""An output in another form: `python -m jobs.export out=... to=... form=coco`. Needs neither torch nor Ray.

Repeating the command goes on where the last one ended, and takes in what has been committed since. Exit codes: 0 what
is committed is exported; 2 wrong configuration; 3 a part cannot be used, or a store failed on the way.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from jobs.command import run_command
from pipeline.errors import UNFINISHED, ConfigError
from pipeline.export.export import Exported, export
from pipeline.export.records import ExportSettings, Form
from pipeline.progress import progress_on
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute
from pipeline.texts import counted, printable


@dataclass(frozen=True)
class ExportJob:
    """What the command takes."""

    out: str = ""
    """The place that `jobs.generate` was given as out=."""
    to: str = ""
    """An empty folder or prefix, or one that holds this export already."""
    form: Form | None = None
    """What is written."""
    export: ExportSettings = field(default_factory=ExportSettings)
    store: StoreSettings = field(default_factory=StoreSettings)


def export_output(job: ExportJob) -> int:
    """Export, say what is there now, return the exit code."""
    if not job.out:
        raise ConfigError("say which output: out=...")
    if not job.to:
        raise ConfigError("say where the export goes: to=... (a folder or s3:// prefix of its own)")
    if job.form is None:
        raise ConfigError(f"say which form: form= one of {', '.join(Form)}")
    out, to = absolute(job.out), absolute(job.to)
    progress = progress_on(sys.stderr, doing="exporting")
    try:
        found = export(
            out,
            to,
            form=job.form,
            settings=job.export,
            store=connect(job.store, out=to),
            show=progress.show_finish,
        )
    finally:
        progress.close()
    for sentence in [*found.broken, *found.total.reasons]:
        sys.stderr.write(printable(f"Maskmill: left out: {sentence}") + "\n")
    sys.stdout.write("\n".join(map(printable, summary(found, to, job.form))) + "\n")
    return UNFINISHED if found.broken else 0


def summary(found: Exported, to: str, form: Form) -> list[str]:
    total = found.total
    there = f"{found.parts:,} of {counted(found.planned, 'part')}"
    before = f" ({found.before:,} of them before)" if found.before else ""
    lines = [f"Maskmill: {counted(total.masks, 'mask')} of {counted(total.images, 'image')} as {form}: {to}"]
    lines.append(f"  parts       {there}{before}")
    if total.empty:
        lines.append(f"  no masks    {counted(total.empty, 'image')}")
    if total.failed:
        by_status = ", ".join(f"{count:,} {status}" for status, count in sorted(total.failed.items()))
        lines.append(f"  failed      {counted(sum(total.failed.values()), 'image')} left out: {by_status}")
    if total.left_out:
        lines.append(f"  left out    {counted(total.left_out, 'image')}, for the reasons above")
    if found.parts < found.planned:
        lines.append("  unfinished  repeat this command when more parts are committed")
    return lines


def main() -> int:
    return run_command("export", ExportJob, export_output)


if __name__ == "__main__":
    sys.exit(main())
