"""A picture of an output: `python -m jobs.look out=... [n=12]`. Needs neither torch nor Ray.

Writes one HTML page with sampled images and their masks, and opens it where there is a desktop. Exit codes: 0 the page
is written; 2 there is nothing to show, it cannot be read, or the page cannot be written.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from jobs.command import run_command
from jobs.pages import open_page, page_path, write_page
from pipeline.errors import ConfigError, StorageError
from pipeline.look.page import page
from pipeline.look.sample import sample_images
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute
from pipeline.texts import counted, printable

MOST_IMAGES = 100
"""A page with as many photographs has some 20 MB: a picture of one takes 70 kB (measured on three)."""


@dataclass(frozen=True)
class LookJob:
    """What the command takes."""

    out: str = ""
    """The place that `jobs.generate` was given as out=."""
    n: int = 12
    """Images on the page, 100 at most."""
    seed: int = 0
    """Another one shows other images."""
    look: str = ""
    """Where the page is written, a path that ends in .html. Without it <out>-look.html beside a local out=, and in the
    current folder for one in S3."""
    store: StoreSettings = field(default_factory=lambda: StoreSettings(retry_deadline_s=20.0, answer_timeout_s=10.0))
    """Somebody is waiting: a store that does not answer is given up earlier than in a run."""


def look(job: LookJob) -> int:
    """Write the page, say where it is, open it where there is a desktop, return the exit code."""
    if not job.out:
        raise ConfigError("say which output: out=...")
    if not 1 <= job.n <= MOST_IMAGES:
        raise ConfigError(f"n={job.n} must be from 1 to {MOST_IMAGES}")
    out, store = absolute(job.out), connect(job.store)
    path = page_path(out, job.look, setting="look", kind="look")
    try:
        sample = sample_images(out, store, images=job.n, seed=job.seed)
    except StorageError as error:
        raise ConfigError(f"{out} cannot be read: {error}") from error
    for sentence in sample.broken:
        sys.stderr.write(printable(f"Maskmill: left out: {sentence}") + "\n")
    write_page(path, page(sample, store), setting="look")
    shown, there = len(sample.images), f"{sample.committed:,} of {counted(sample.plan.chunk_count, 'part')}"
    sys.stdout.write(printable(f"Maskmill: {counted(shown, 'image')} with their masks, from {there}: {path}") + "\n")
    open_page(path)
    return 0


def main() -> int:
    return run_command("look", LookJob, look)


if __name__ == "__main__":
    sys.exit(main())
