"""The store's permissions vanish while a run is at work, and come back for the next command: no image is lost to it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from boto3.session import Session

from pipeline.output.verify import verify_output
from pipeline.progress import Lines
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.parts import read_part
from tests.chaos.material import Material, differences, parts_of, undisturbed
from tests.chaos.nodes import STARTS
from tests.chaos.run import ROOT, overrides_of, settings_of
from tests.chaos.storm import OUTAGE
from tests.fault_proxy import Answer, FaultProxy, Harm, serving

READS = frozenset({"GET", "HEAD"})
OUTAGES = {Answer(403, "AccessDenied"): READS | {"PUT", "DELETE"}, Answer(400, "ExpiredToken"): READS}
"""How a command is refused, and what: one after the other, before the last one is left in peace. While only reads are
refused, rows that should not be final could be written."""
PARTS_BEFORE = 3
"""Parts that each of these commands may write."""
UNFINISHED = 3


class Refusing(FaultProxy):
    """Passes requests on, but in an outage."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.refused = 0
        self._answer: Answer | None = None
        self._methods = frozenset[str]()

    @contextmanager
    def outage(self, answer: Answer, methods: frozenset[str]) -> Iterator[None]:
        """Once PARTS_BEFORE parts were on their way, every such request gets this answer, until the block ends."""
        self.forget()
        self.refused, self._answer, self._methods = 0, answer, methods
        try:
            yield
        finally:
            self._answer = None

    def next_harm(self, method: str) -> Harm | None:
        answer = self._answer
        if answer is None or method not in self._methods or self._parts() < PARTS_BEFORE:
            return super().next_harm(method)
        with self._lock:
            self.refused += 1
        return answer

    def _parts(self) -> int:
        return len({asked for asked, _ in self.headers if asked.startswith("PUT ") and "/out/data/" in asked})


def outage(logs: Path, endpoint: str) -> tuple[list[str], list[str]]:
    """Lines of a report, and what is wrong. A driver ends by itself in the outage, however long that lasts; what it has
    committed is sound, and the same command does the rest when the store answers again."""
    begun, bucket, lines = time.monotonic(), "chaos-outage", list[str]()
    client = Session().client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=bucket)
    Material.draw(OUTAGE).upload(client, bucket)
    client.close()
    settings = settings_of(OUTAGE, bucket=bucket, endpoint=endpoint, out="out")
    expected = undisturbed(replace(settings, out=f"s3://{bucket}/undisturbed"), OUTAGE, frozenset())
    problems: list[str] = []
    with serving(Refusing(endpoint)) as store:
        for number, (answer, methods) in enumerate(OUTAGES.items()):
            with store.outage(answer, methods):
                code = drive(settings, store.url, logs / f"driver-{number}.log")
            lines.append(f"  {answer.code:12} {store.refused} requests refused, the driver ended with {code}")
            problems += problems_of_outage(settings, code, store.refused)
        code = drive(settings, store.url, logs / "driver-last.log")
    problems += [f"the last driver ended with {code}"] if code else []
    problems += differences(parts_of(settings), expected)
    problems += problems_of_rows(settings, OUTAGE.images)
    verdict = f"chaos outage: {'FAILED' if problems else 'sound'} after {time.monotonic() - begun:.0f} s"
    return [verdict, *lines, *map("  WRONG    {}".format, problems)], problems


def drive(settings: Settings, url: str, log: Path) -> int:
    """One command, with a Ray session of its own; its exit code. It is repeated where a busy machine starts no Ray."""
    overrides = overrides_of(replace(settings, store=StoreSettings(endpoint_url=url)), "local")
    code = UNFINISHED
    for _ in range(STARTS):
        with log.open("wb") as sink:
            code = subprocess.run(
                [sys.executable, "-m", "tests.fake_generate", *overrides],
                cwd=ROOT,
                env={**os.environ, "FAKE_SECONDS": str(OUTAGE.seconds_per_image), "PYTHONPATH": str(ROOT)},
                stdout=sink,
                stderr=subprocess.STDOUT,
                timeout=600,
                check=False,
            ).returncode
        if "Ray did not start here" not in log.read_text():
            break
    return code


def problems_of_outage(settings: Settings, code: int, refused: int) -> Iterator[str]:
    if not refused:
        yield "nothing was refused"
    if code != UNFINISHED:
        yield f"a driver in an outage ended with {code}"
    parts = parts_of(settings)
    if not 0 < len(parts) < OUTAGE.chunks:
        yield f"{len(parts)} of {OUTAGE.chunks} chunks are committed in an outage"
    rows = [row for data in parts.values() for row in read_part(data, format=settings.format).rows]
    if any(row.status != "ok" for row in rows):
        yield f"an outage made rows: {Counter(str(row.status) for row in rows)}"


def problems_of_rows(settings: Settings, images: int) -> Iterator[str]:
    verification = verify_output(settings.out, connect(settings.store), Lines(sys.stderr))
    yield from (f"{problem.where}: {problem.what}" for problem in verification.problems)
    if not verification.finished:
        yield "there is no manifest in the end"
    if verification.images != Counter(ok=images):
        yield f"in the end there are {verification.images}"
