"""A picture of an output: `python -m jobs.look out=... [n=12]`. Needs neither torch nor Ray.

Writes one HTML page with sampled images and their masks, and opens it where there is a desktop. Exit codes: 0 the page
is written; 2 there is nothing to show, it cannot be read, or the page cannot be written.
"""

from __future__ import annotations

import os
import re
import sys
import webbrowser
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from jobs.command import run_command
from pipeline.errors import ConfigError, StorageError
from pipeline.look.page import page
from pipeline.look.sample import sample_images
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute, base_name, is_s3, local_path
from pipeline.texts import printable

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
    path = page_path(out, job.look)
    try:
        sample = sample_images(out, store, images=job.n, seed=job.seed)
    except StorageError as error:
        raise ConfigError(f"{out} cannot be read: {error}") from error
    for sentence in sample.broken:
        sys.stderr.write(printable(f"Maskmill: left out: {sentence}") + "\n")
    _write(path, page(sample, store))
    shown, there = len(sample.images), f"{sample.committed:,} of {sample.plan.chunk_count:,} parts"
    sys.stdout.write(printable(f"Maskmill: {shown:,} images with their masks, from {there}: {path}") + "\n")
    if sys.stdout.isatty() and has_desktop():
        webbrowser.open(path.as_uri())
    return 0


def page_path(out: str, asked: str) -> Path:
    """Never inside `out`, where a page would be taken for data.

    raises  ConfigError if `asked` is there, or is no name of a page
    """
    if not asked:
        if not is_s3(out):
            return Path(local_path(out) + "-look.html")
        return Path.cwd() / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', base_name(out)).lstrip('.')}-look.html"
    if is_s3(asked) or not asked.endswith(".html"):
        raise ConfigError(f"look={asked} must be a local path that ends in .html")
    path = Path(local_path(asked))
    if not is_s3(out) and path.is_relative_to(local_path(out)):
        raise ConfigError(f"look={asked} is inside the output, which a look leaves as it is; choose another place")
    return path


def _write(path: Path, text: str) -> None:
    """Whole or not at all; replaces the page of an earlier look."""
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise ConfigError(f"cannot write {path} ({error.strerror}); choose another place: look=PATH.html") from error


def has_desktop() -> bool:
    """Whether a browser could show itself to whoever types here."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def main() -> int:
    return run_command("look", LookJob, look)


if __name__ == "__main__":
    sys.exit(main())
