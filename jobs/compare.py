"""Two outputs of the same images beside each other: `python -m jobs.compare a=... b=... [n=12]`.

Says what differs in settings, images and masks, and writes one HTML page that shows the most different images. Needs
neither torch nor Ray. Exit codes: 0 they were compared, whatever was found; 2 they cannot be, or the page cannot be
written.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from jobs.command import run_command
from jobs.pages import check_page, open_page, page_path, write_page
from pipeline.comparison.compare import compare_outputs
from pipeline.comparison.outputs import open_output
from pipeline.comparison.page import page
from pipeline.comparison.words import summary
from pipeline.errors import ConfigError, StorageError
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.uris import absolute
from pipeline.texts import printable

MOST_IMAGES = 50
"""Half of what `make look` may show."""


@dataclass(frozen=True)
class CompareJob:
    """What the command takes."""

    a: str = ""
    """The output that is taken as the reference: a place that `jobs.generate` was given as out=."""
    b: str = ""
    """The other output of the same images."""
    n: int = 12
    """Images on the page, the most different ones, 50 at most; 0 shows none."""
    compare: str = ""
    """Where the page is written, a path that ends in .html. Without it <a>-comparison.html beside a local a=, and in
    the current folder for one in S3."""
    store: StoreSettings = field(default_factory=lambda: StoreSettings(retry_deadline_s=60.0, answer_timeout_s=10.0))
    """Somebody is waiting: a store that does not answer is given up earlier than in a run."""


def compare(job: CompareJob) -> int:
    """Compare, print the summary, write the page, open it where there is a desktop, return the exit code."""
    if not job.a or not job.b:
        raise ConfigError("say which outputs: a=... b=...")
    if not 0 <= job.n <= MOST_IMAGES:
        raise ConfigError(f"n={job.n} must be from 0 to {MOST_IMAGES}")
    a, b, store = absolute(job.a), absolute(job.b), connect(job.store)
    path = page_path(a, job.compare, setting="compare", kind="comparison")
    page_path(b, str(path), setting="compare", kind="comparison")  # nor inside the other one
    check_page(path, setting="compare")
    try:
        found = compare_outputs(open_output(a, store), open_output(b, store), shown=job.n)
        text = page(found)
    except StorageError as error:
        raise ConfigError(f"{a} and {b} cannot be compared: {error}") from error
    for sentence in found.a.broken + found.b.broken:
        sys.stderr.write(printable(f"Maskmill: left out: {sentence}") + "\n")
    write_page(path, text, setting="compare")
    sys.stdout.write("\n".join(map(printable, [*summary(found), f"  page        {path}"])) + "\n")
    open_page(path)
    return 0


def main() -> int:
    return run_command("compare", CompareJob, compare)


if __name__ == "__main__":
    sys.exit(main())
