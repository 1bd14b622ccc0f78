"""How long planning takes at SA-1B's size, and resuming, and how much memory they need.

    python -m benchmarks.planning [--case tars keys] [--tars 1000] [--images 11186] [--out DIR]

Real: everything from the source's name to plan.json and its member indexes on disk, in a process of its own per
measurement, with the processes, threads, boto3 and HTTP requests that a run has. Made up (benchmarks/synthetic.py):
the tars, of which only the headers exist, made when they are read; and for `keys` the store, an HTTP server on this
machine that answers listings in microseconds and competes for its processors. So neither disk nor network is in the
times. Resuming is measured with the parts of all chunks but the last one present as empty files, and ends when the
members of that one have been read.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, provenance
from benchmarks.synthetic import FOLDER, TarsStore
from pipeline.output.manifest import find_manifest, find_parts
from pipeline.plan.layout import data_uri, part_name
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.plan import OutputSettings, Plan
from pipeline.plan.planning import create_or_load_plan
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store

CASES = ("tars", "keys")


def plan_once(settings: Settings, store: Store) -> dict[str, Any]:
    """Plan, or resume, in this process; what was found and what it took."""
    begun = time.perf_counter()
    output_settings = OutputSettings.of(settings, weights_sha256="0" * 64)
    planned = create_or_load_plan(output_settings, out=settings.out, store=store, say=_say)
    plan, found = planned.plan, {"planned_anew": planned.created}
    if not planned.created:
        find_manifest(plan, out=settings.out, store=store)
        committed = find_parts(plan, out=settings.out, store=store).committed
        (left,) = (chunk for chunk in plan.chunks() if chunk.chunk_id not in committed)
        index = MemberIndex(plan, out=settings.out, store=store)
        found |= {"members_read": len(index.read(left.shard, left.start, left.stop))}
    wall_s = time.perf_counter() - begun
    own, helpers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return found | {
        "images": plan.image_count,
        "shards": len(plan.shards),
        "chunks": plan.chunk_count,
        "wall_s": round(wall_s, 1),
        "cpu_s": round(sum(usage.ru_utime + usage.ru_stime for usage in (own, helpers)), 1),
        "peak_rss_mib": own.ru_maxrss // 1024,
        "largest_helper_rss_mib": helpers.ru_maxrss // 1024,
        "index_mib": round(_size_of(Path(settings.out) / "_job") / 2**20, 1),
    }


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(case: str, *, tars: int, images: int, out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Planning, then resuming, each in a new process."""
    with _keys_served(tars * images) if case == "keys" else _nothing() as endpoint:
        command = [sys.executable, "-m", "benchmarks.planning", "--once", case, "--out", str(out)]
        command += ["--tars", str(tars), "--images", str(images), "--endpoint", endpoint]
        yield f"{case}, planning", _asked(command)
        _commit_all_but_one(case, tars, images, endpoint, out)
        yield f"{case}, resuming", _asked(command)


def _asked(command: list[str]) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _commit_all_but_one(case: str, tars: int, images: int, endpoint: str, out: Path) -> None:
    settings, store = _setting(case, tars, images, endpoint, out)
    plan: Plan = create_or_load_plan(
        OutputSettings.of(settings, weights_sha256="0" * 64), out=str(out), store=store
    ).plan
    data = Path(data_uri(str(out)))
    data.mkdir()
    for number, chunk in enumerate(plan.chunks(), start=1):
        if number < plan.chunk_count:
            (data / part_name(plan, chunk)).touch()


def _setting(case: str, tars: int, images: int, endpoint: str, out: Path) -> tuple[Settings, Store]:
    if case == "tars":
        return Settings(source=FOLDER, out=str(out)), TarsStore(tars, images)
    store = StoreSettings(endpoint_url=endpoint)
    return Settings(source="s3://bucket/images", out=str(out), store=store), connect(store)


@contextmanager
def _keys_served(keys: int) -> Generator[str]:
    command = [sys.executable, "-m", "benchmarks.synthetic", str(keys)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None  # noqa: S101  # a pipe was asked for
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


@contextmanager
def _nothing() -> Generator[str]:
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("--case", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--tars", type=int, default=1000)
    parser.add_argument("--images", type=int, default=11186, help="images in a tar; `keys` has the product of the two")
    parser.add_argument("--out", type=Path, help="empty folder for the plans; by default a temporary one")
    parser.add_argument("--once", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.once:
        settings, store = _setting(chosen.once, chosen.tars, chosen.images, chosen.endpoint, chosen.out)
        sys.stdout.write(json.dumps(plan_once(settings, store)))
        return
    result: dict[str, Any] = provenance()
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen.case:
            for name, row in measure(
                case, tars=chosen.tars, images=chosen.images, out=(chosen.out or Path(folder)) / case
            ):
                _say(f"{name}: {row}")
                result[name] = row
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
