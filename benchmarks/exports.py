"""What each form of an export takes: files, bytes a mask, time and processor time to write and to read.

    python -m benchmarks.exports [--images 40] [--form FORM ...] [--tolerance 0] [--out DIR]

Real: `export` in a process of its own per form, onto a disk. Made up: the output. Its images have 2250 x 1500 pixels
and 100 masks each, as those of `benchmarks.report`. Reading is that of export_readers.py, right after writing, so from
memory; the parts are read as a table of pyarrow. Beside the forms stands `plain`: SA-1B's JSON of every image as a
file, written by json.dump and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export_readers import PLAIN, read_back
from benchmarks.machine import ROOT, provenance
from benchmarks.report import HW, drawn_row, synthetic_mask
from pipeline.export.export import export
from pipeline.export.records import WITH_POLYGONS, ExportSettings, Form
from pipeline.output.committed import find_committed, planned_part
from pipeline.plan.layout import members_uri, part_uri, plan_uri
from pipeline.plan.plan import OutputSettings, Plan, PlannedShard, plan_to_json
from pipeline.records import Shard
from pipeline.settings import RunSettings, Settings, StoreSettings
from pipeline.storage.arrow import pq
from pipeline.storage.connect import connect
from pipeline.storage.members import FoundMember, IndexBuilder
from pipeline.storage.parts import Part, write_part
from pipeline.storage.sa1b import sa1b_annotation
from pipeline.storage.store import Store

MASKS_PER_IMAGE = 100


def write_output(images: int, out: str, store: Store, *, masks: int = 1000) -> None:
    """An output whose images have masks of a pool of so many, with a member index."""
    builder = IndexBuilder()
    for number in range(images):
        builder.add(FoundMember(f"im{number}.jpg", f"/synthetic/im{number}.jpg", 0, 0, ""))
    (piece,) = builder.finish()
    sha256 = hashlib.sha256(piece.data).hexdigest()
    settings = Settings(source="/synthetic", run=RunSettings(images_per_chunk=8))
    shard = PlannedShard(Shard("synthetic", "/synthetic", "folder", images, 0), 0, (sha256,))
    plan = Plan(OutputSettings.of(settings, weights_sha256="0" * 64), (shard,))
    store.put_if_absent(plan_uri(out), plan_to_json(plan))
    store.put_if_absent(members_uri(out, "synthetic", sha256), piece.data)
    dice = np.random.default_rng(0)
    pool = [synthetic_mask(dice) for _ in range(masks)]
    for chunk in plan.chunks():
        rows = [drawn_row(number, pool, MASKS_PER_IMAGE, dice) for number in range(chunk.start, chunk.stop)]
        data = write_part(rows, format=plan.settings.format, metadata={"plan_sha256": plan.sha256})
        store.put_if_absent(part_uri(out, plan, chunk), data)


def write_plain(out: str, to: Path, store: Store) -> int:
    """Returns the number of masks."""
    to.mkdir(parents=True)
    there, masks = find_committed(out, store), 0
    for chunk in there.chunks:
        part = planned_part(chunk, there.plan, out=out, store=store)
        assert isinstance(part, Part)  # noqa: S101 - made a moment ago
        for row in part.rows:
            with open(to / f"sa_{row.image_id}.json", "w") as file:
                json.dump(sa1b_annotation(row), file)
            masks += len(row.masks)
    return masks


def export_once(form: str, out: str, to: Path, *, tolerance: float = 0.0) -> dict[str, Any]:
    store = connect(StoreSettings())
    begun, cpu_s = time.perf_counter(), time.process_time()
    if form == PLAIN:
        masks = write_plain(out, to, store)
    else:
        settings = ExportSettings(tolerance=tolerance if form in WITH_POLYGONS else 0.0)
        masks = export(out, str(to), form=Form(form), settings=settings, store=store).total.masks
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_s
    reading, reading_cpu = time.perf_counter(), time.process_time()
    masks_read = read_back(form, to)
    read_s, read_cpu_s = time.perf_counter() - reading, time.process_time() - reading_cpu
    files = [path for path in to.rglob("*") if path.is_file() and "_export" not in path.parts]
    size = sum(path.stat().st_size for path in files)
    return {
        "masks": masks,
        "files": len(files),
        "bytes_per_mask": round(size / masks, 1),
        "wall_s": round(wall_s, 2),
        "cpu_s": round(cpu_s, 2),
        "masks_read": masks_read,
        "read_wall_s": round(read_s, 2),
        "read_cpu_s": round(read_cpu_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exports", description=__doc__)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--form", nargs="+", choices=[PLAIN, *Form], default=[PLAIN, *Form])
    parser.add_argument("--tolerance", type=float, default=0.0, help="of polygons, in pixels")
    parser.add_argument("--out", type=Path, help="empty folder; by default a temporary one")
    parser.add_argument("--once", choices=[PLAIN, *Form], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.once:
        to, tolerance = chosen.out / chosen.once, chosen.tolerance
        sys.stdout.write(json.dumps(export_once(chosen.once, str(chosen.out / "out"), to, tolerance=tolerance)))
        return
    result: dict[str, Any] = provenance() | {"images": chosen.images, "hw": HW}
    with tempfile.TemporaryDirectory() as folder:
        place = chosen.out or Path(folder)
        write_output(chosen.images, str(place / "out"), connect(StoreSettings()))
        parts = sum(path.stat().st_size for path in (place / "out" / "data").iterdir())
        result["parts_bytes_per_mask"] = round(parts / (chosen.images * MASKS_PER_IMAGE), 1)
        begun = time.perf_counter()
        pq.read_table(place / "out" / "data")
        result["parts_read_s"] = round(time.perf_counter() - begun, 2)
        for form in chosen.form:
            command = [sys.executable, "-m", "benchmarks.exports", "--out", str(place), "--once", form]
            command += ["--tolerance", str(chosen.tolerance)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
            result[form] = json.loads(done.stdout)
            sys.stderr.write(f"{form}: {result[form]}\n")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
