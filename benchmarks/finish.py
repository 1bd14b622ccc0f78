"""What the end of a run costs its driver at SA-1B's size: processor time, memory and bytes read of the parts.

    python -m benchmarks.finish [--case ran resumed killed] [--shards 1000] [--out DIR]

Real: everything from the committed set to manifest.json and _SUCCESS, in a process of its own per measurement, with all
that a driver's process has imported; the ledger, the reports (pickled and back, as Ray hands them over), the summaries
on disk and the manifest. Made up: the parts, 44 of 256 images for each shard. The store shows them in its listing of
data/ and gives, for each that is read, the bytes of one real part of 5 MB. So neither disk nor network is in the times.

    ran       all chunks were done by this driver's workers
    resumed   all were done by drivers that are gone, of which everything was written down
    killed    the same, but of the last hundredth nothing was written down
    recount   of 200 parts nothing was written down: what reading costs, for an estimate of reading all

The writing of summaries, which a driver does while it works, is in the times of `ran`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import pickle
import random
import resource
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, provenance
from pipeline.cluster.ledger import Ledger
from pipeline.output.finish import count_parts
from pipeline.output.manifest import publish
from pipeline.output.summaries import kept, summary_of
from pipeline.plan.layout import data_uri, part_name, plan_uri
from pipeline.plan.plan import OutputSettings, Plan, PlannedShard, plan_to_json
from pipeline.progress import Lines
from pipeline.records import ChunkReport, Funnel, ImageRow, Mask, Shard, Stage, Status
from pipeline.settings import Format, RunSettings, Settings, StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.parts import write_part
from pipeline.storage.store import ObjectInfo

CASES = ("ran", "resumed", "killed", "recount")
IMAGES_PER_CHUNK = 256
CHUNKS_PER_SHARD = 44
MASKS_PER_IMAGE = 100
COUNTS_BYTES = 200
RECOUNTED = 200
WRITTEN_AT_ONCE = 66
"""Chunks of which one summary object tells: ten days of writing (summaries.py) make some 700 objects."""


def synthetic_plan(shards: int) -> Plan:
    count = CHUNKS_PER_SHARD * IMAGES_PER_CHUNK
    settings = Settings(source="s3://bucket/sa1b", run=RunSettings(images_per_chunk=IMAGES_PER_CHUNK))
    return Plan(
        OutputSettings.of(settings, weights_sha256="0" * 64),
        tuple(
            PlannedShard(
                Shard(f"sa_{number:06d}", f"s3://bucket/sa1b/sa_{number:06d}.tar", "tar", count, count),
                first_ordinal=number * count,
                members_sha256=("0" * 64,),
            )
            for number in range(shards)
        ),
    )


def synthetic_part(plan: Plan) -> bytes:
    """256 images with 100 masks each: 5 MB, because run lengths do not compress and neither do these."""
    generator = random.Random(0)
    rows = [
        ImageRow(
            image_id=image,
            file_name=f"sa_{image}.jpg",
            source="s3://bucket/sa1b/sa_000000.tar",
            status=Status.OK if image % 100 else Status.UNREADABLE,
            error="" if image % 100 else "no image",
            width=1500,
            height=2250,
            sha256="0" * 64,
            masks=tuple(_mask(generator) for _ in range(MASKS_PER_IMAGE if image % 100 else 0)),
            first_annotation_id=image * 1000 + 1,
        )
        for image in range(IMAGES_PER_CHUNK)
    ]
    return write_part(rows, format=Format.PARQUET, metadata={"plan_sha256": plan.sha256})


def _mask(generator: random.Random) -> Mask:
    counts = "".join(generator.choices(string.ascii_letters + string.digits, k=COUNTS_BYTES))
    box, point = (1.0, 2.0, 30.0, 40.0), (generator.random() * 1500, generator.random() * 2250)
    return Mask(counts, box, 1000, generator.random(), generator.random(), point, (0.0, 0.0, 1500.0, 2250.0), 0, 1)


class PartsStore(RoutedStore):
    """The usual stores, and at `out` a data/ in which all parts of `plan` seem to lie."""

    def __init__(self, plan: Plan, out: str) -> None:
        super().__init__(StoreSettings())
        self._plan, self._folder = plan, data_uri(out)
        self._lock = threading.Lock()
        self.bytes_read = 0

    @cached_property
    def part(self) -> bytes:
        return synthetic_part(self._plan)

    @cached_property
    def part_sha256(self) -> str:
        return hashlib.sha256(self.part).hexdigest()

    def etag_of(self, name: str) -> str:
        return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()

    def list(
        self, uri: str, *, pattern: Sequence[str] = (), unreadable: Callable[[str], object] | None = None
    ) -> Iterator[ObjectInfo]:
        if uri != self._folder:
            yield from super().list(uri, pattern=pattern, unreadable=unreadable)
            return
        for chunk in self._plan.chunks():
            name = part_name(self._plan, chunk)
            yield ObjectInfo(f"{self._folder}/{name}", len(self.part), self.etag_of(name))

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        if not uri.startswith(self._folder):
            return super().read(uri, offset=offset, length=length, etag=etag, limit=limit)
        with self._lock:
            self.bytes_read += len(self.part)
        return self.part


def report_of(chunk_id: str, store: PartsStore) -> ChunkReport:
    failed = len(range(0, IMAGES_PER_CHUNK, 100))
    report = ChunkReport(
        chunk_id,
        won=True,
        images={"ok": IMAGES_PER_CHUNK - failed, "unreadable": failed},
        masks=(IMAGES_PER_CHUNK - failed) * MASKS_PER_IMAGE,
        funnel=Funnel(candidates=10**6),
        seconds=dict.fromkeys(Stage, 1.0),
        bytes_written=len(store.part),
        sha256=store.part_sha256,
        etag=store.etag_of(chunk_id + ".parquet"),
    )
    return pickle.loads(pickle.dumps(report))


def write_down(reports: Sequence[ChunkReport], plan: Plan, out: str, store: PartsStore) -> None:
    """In as many objects as a long run makes."""
    for start in range(0, len(reports), WRITTEN_AT_ONCE):
        some = reports[start : start + WRITTEN_AT_ONCE]
        with kept(some, partial(summary_of, plan=plan), plan, out=out, store=store):
            pass


def finish_once(case: str, plan: Plan, out: str) -> dict[str, Any]:
    """Finish in this process; what it took beyond what the process had taken before."""
    store = PartsStore(plan, out)
    chunks = list(plan.chunks())
    ledger = Ledger.open(
        plan,
        committed=() if case == "ran" else (chunk.chunk_id for chunk in chunks),
        attempts_allowed=5,
        from_the_start=True,
    )
    if case == "ran":
        for chunk in chunks:
            ledger.finish(chunk, report_of(chunk.chunk_id, store))
    importlib.import_module("pipeline.run.session")  # so that a driver's own libraries are in the memory
    _ = store.part_sha256  # made now, not in what is measured
    before, begun = _cpu_s(), time.perf_counter()
    with kept(ledger.reports, partial(summary_of, plan=plan), plan, out=out, store=store):
        pass
    manifest = count_parts(plan, out=out, store=store, progress=Lines(sys.stderr), reports=ledger.reports)
    publish(manifest, out=out, store=store)
    return {
        "parts": len(manifest.parts),
        "masks": manifest.masks,
        "wall_s": round(time.perf_counter() - begun, 1),
        "cpu_s": round(_cpu_s() - before, 1),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "parts_bytes": len(manifest.parts) * len(store.part),
        "bytes_read": store.bytes_read,
        "manifest_mib": round((Path(out) / "_job" / "manifest.json").stat().st_size / 2**20, 1),
    }


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def prepare(case: str, plan: Plan, out: str) -> None:
    """What the drivers before this one left."""
    store = PartsStore(plan, out)
    store.put_if_absent(plan_uri(out), plan_to_json(plan))
    if case == "ran":
        return
    reports = [report_of(chunk.chunk_id, store) for chunk in plan.chunks()]
    unsaid = {"resumed": 0, "killed": len(reports) // 100, "recount": min(RECOUNTED, len(reports))}[case]
    write_down(reports[: len(reports) - unsaid], plan, out, store)


def measure(case: str, *, shards: int, out: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.finish", "--shards", str(shards), "--out", str(out)]
    subprocess.run([*command, "--prepare", case], cwd=ROOT, check=True)
    done = subprocess.run([*command, "--once", case], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finish", description=__doc__)
    parser.add_argument("--case", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="empty folder; by default a temporary one")
    parser.add_argument("--prepare", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--once", choices=CASES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.prepare or chosen.once:
        plan = synthetic_plan(chosen.shards)
        if chosen.prepare:
            prepare(chosen.prepare, plan, str(chosen.out))
        else:
            sys.stdout.write(json.dumps(finish_once(chosen.once, plan, str(chosen.out))))
        return
    result: dict[str, Any] = provenance()
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen.case:
            result[case] = measure(case, shards=chosen.shards, out=(chosen.out or Path(folder)) / case)
            sys.stderr.write(f"{case}: {result[case]}\n")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
