"""A report of an output: `python -m jobs.report out=... [report.groups=countries.csv]`. Needs neither torch nor Ray.

Writes one HTML page with totals, figures and a gallery, and opens it where there is a desktop. Exit codes: 0 the page
is written; 2 there is nothing to report, it cannot be read, or the page cannot be written.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from jobs.command import run_command
from jobs.pages import check_page, open_page, page_path, write_page
from pipeline.errors import ConfigError, StorageError
from pipeline.look.sample import sample_images
from pipeline.progress import Progress, progress_on
from pipeline.report.collect import collect
from pipeline.report.gallery import MOST_IMAGES, gallery_of
from pipeline.report.page import Gallery, page
from pipeline.report.records import Report, ReportSettings
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from pipeline.storage.uris import absolute
from pipeline.texts import counted, printable


@dataclass(frozen=True, slots=True)
class Asked(ReportSettings):
    """What is measured, and what is on the page."""

    groups: str = ""
    """A CSV or Parquet file that gives images a value in one or more columns; the masks per image are told by value."""
    gallery: int = 24
    """Images in the gallery, 100 at most."""
    page: str = ""
    """Where the page is written, a path that ends in .html. Without it <out>-report.html beside a local out=, and in
    the current folder for one in S3."""

    def __post_init__(self) -> None:
        ReportSettings.__post_init__(self)
        if not 0 <= self.gallery <= MOST_IMAGES:
            raise ConfigError(f"report.gallery={self.gallery} must be from 0 to {MOST_IMAGES}")


@dataclass(frozen=True)
class ReportJob:
    """What the command takes."""

    out: str = ""
    """The place that `jobs.generate` was given as out=."""
    report: Asked = field(default_factory=Asked)
    store: StoreSettings = field(default_factory=lambda: StoreSettings(retry_deadline_s=60.0, answer_timeout_s=20.0))
    """Somebody is waiting: a store that does not answer is given up earlier than in a run."""


def report(job: ReportJob) -> int:
    """Write the page, say where it is, open it where there is a desktop, return the exit code."""
    if not job.out:
        raise ConfigError("say which output: out=...")
    out, store = absolute(job.out), connect(job.store)
    path = page_path(out, job.report.page, setting="report.page", kind="report")
    check_page(path, setting="report.page")
    progress = progress_on(sys.stderr)
    try:
        found = _counted(out, store, job.report, progress)
        gallery = _gallery(out, store, job.report)
    finally:
        progress.close()
    for sentence in found.broken:
        sys.stderr.write(printable(f"Maskmill: left out: {sentence}") + "\n")
    write_page(path, page(found, gallery), setting="report.page")
    scope = found.scope
    there = f"{scope.parts_counted:,} of {counted(scope.parts_planned, 'part')}"
    sys.stdout.write(printable(f"Maskmill: report of {counted(found.masks, 'mask')}, from {there}: {path}") + "\n")
    open_page(path)
    return 0


def _counted(out: str, store: Store, asked: Asked, progress: Progress) -> Report:
    return collect(
        out,
        store,
        settings=asked,
        groups=asked.groups,
        show=lambda _, done, of: progress.show_finish(done, of),
    )


def _gallery(out: str, store: Store, asked: Asked) -> Gallery:
    """A report of failures alone has none, and says why."""
    if not asked.gallery:
        return Gallery((), 0, "report.gallery=0")
    try:
        sample = sample_images(out, store, images=asked.gallery, seed=asked.seed)
    except ConfigError as error:
        return Gallery((), 0, str(error))
    except StorageError as error:
        raise ConfigError(f"{out} cannot be read: {error}") from error
    return Gallery(gallery_of(sample, store), sample.read)


def main() -> int:
    return run_command("report", ReportJob, report)


if __name__ == "__main__":
    sys.exit(main())
