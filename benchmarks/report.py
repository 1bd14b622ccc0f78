"""What the numbers of a report cost: time, processor time, peak memory and bytes read.

    python -m benchmarks.report [--images 100000] [--sampled 20000] [--case CASE ...] [--format FORMAT] [--out DIR]

Real: `collect` in a process of its own per measurement, on files on a disk (in the page cache, as they were just
written). Made up: the output. Its parts have 64 images of 2250 x 1500 with 100 masks each, ellipses and rings with the
run lengths of their pixels; so a mask has some 500 characters. There are 24 different parts with 1500
different masks; all other parts are hard links to these.

    finished    a run with a manifest
    grouped     the same, with a table that gives each image one of twelve countries
    unfinished  no manifest, and nobody wrote down what the parts hold
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import ROOT, provenance
from pipeline.masks.rle import Rle, pack_pixels, unpacked
from pipeline.output.manifest import CountedPart, Manifest, publish
from pipeline.plan.layout import below, part_name, part_uri, plan_uri
from pipeline.plan.plan import OutputSettings, Plan, PlannedShard, plan_to_json
from pipeline.records import Funnel, ImageRow, Mask, Shard, Status
from pipeline.report.collect import collect
from pipeline.report.records import ReportSettings
from pipeline.settings import Format, Settings, StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.parts import write_part

CASES = ("finished", "grouped", "unfinished")
HW = 1500, 2250
COUNTRIES = 12


def synthetic_plan(images: int, format: Format) -> Plan:
    settings = Settings(source="/synthetic", format=format)
    shard = PlannedShard(Shard("synthetic", "/synthetic", "folder", images, 0), 0, ("0" * 64,))
    return Plan(OutputSettings.of(settings, weights_sha256="0" * 64), (shard,))


def synthetic_mask(dice: np.random.Generator) -> Mask:
    """Radii are spread evenly over their logarithm, as small masks are many."""
    canvas = np.zeros(HW, np.uint8)
    radius = math.exp(dice.uniform(math.log(15), math.log(500)))
    centre = int(dice.integers(HW[1])), int(dice.integers(HW[0]))
    thickness = -1 if dice.random() < 0.7 else max(2, int(radius / 3))
    axes = int(radius), int(radius * dice.uniform(0.4, 1))
    cv2.ellipse(canvas, centre, axes, dice.uniform(0, 180), 0, 360, (1,), thickness)
    canvas[centre[1], centre[0]] = 1
    counts = pack_pixels(canvas.astype(np.bool_))
    rle = Rle(HW, unpacked(counts))
    x0, y0, x1, y1 = (float(edge) for edge in rle.box_xyxy)
    return Mask(
        counts=counts,
        bbox_xywh=(x0, y0, x1 - x0, y1 - y0),
        area=rle.area,
        predicted_iou=dice.uniform(0.88, 1.02),
        stability_score=dice.uniform(0.95, 1),
        point_xy=(float(centre[0]), float(centre[1])),
        crop_box_xywh=(0.0, 0.0, float(HW[1]), float(HW[0])),
        crop_layer=int(dice.integers(3)),
        multimask_index=int(dice.integers(3)),
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of an output is different from the rest of it."""

    masks_per_image: int = 100
    parts: int = 24
    masks: int = 1500


def write_output(case: str, plan: Plan, out: str, scale: Scale = Scale()) -> None:
    """The parts, and around them what the case says."""
    store = RoutedStore(StoreSettings())
    store.put_if_absent(plan_uri(out), plan_to_json(plan))
    dice = np.random.default_rng(0)
    pool = [synthetic_mask(dice) for _ in range(scale.masks)]
    counted: list[CountedPart] = []
    whole = plan.settings.images_per_chunk
    for number, chunk in enumerate(plan.chunks()):
        rows = chunk.stop - chunk.start
        path, name = part_uri(out, plan, chunk), part_name(plan, chunk)
        if number < scale.parts or rows < whole:
            several = [
                drawn_row(number, pool, scale.masks_per_image, dice) for number in range(chunk.start, chunk.stop)
            ]
            several[-1] = _failed(chunk.stop - 1)
            data = write_part(several, format=plan.settings.format, metadata=_said(plan))
            store.put_if_absent(path, data)
        else:
            os.link(Path(path).with_name(counted[number % scale.parts].name), path)
        masks = (rows - 1) * scale.masks_per_image
        counted.append(CountedPart(name, os.path.getsize(path), "0" * 64, rows, masks, {"unreadable": 1}))
    if case != "unfinished":
        publish(Manifest(plan.sha256, tuple(counted)), out=out, store=store)
    if case == "grouped":
        Path(_table(out)).write_text("".join(["file_name,country\n", *_lines(plan.image_count)]))


def drawn_row(number: int, pool: Sequence[Mask], count: int, dice: np.random.Generator) -> ImageRow:
    return ImageRow(
        image_id=number,
        file_name=f"im{number}.jpg",
        source=f"/synthetic/im{number}.jpg",
        status=Status.OK,
        width=HW[1],
        height=HW[0],
        masks=tuple(pool[int(each)] for each in dice.integers(0, len(pool), count)),
        first_annotation_id=number * 1000 + 1,
    )


def _failed(number: int) -> ImageRow:
    name = f"im{number}.jpg"
    return ImageRow(number, name, f"/synthetic/{name}", Status.UNREADABLE, "the file is empty")


def _said(plan: Plan) -> dict[str, str]:
    return {"plan_sha256": plan.sha256, "funnel": json.dumps(asdict(Funnel(candidates=10, low_stability=3, kept=7)))}


def _lines(images: int) -> list[str]:
    return [f"im{number}.jpg,country {number % COUNTRIES}\n" for number in range(images)]


def _table(out: str) -> str:
    return below(out, "..", "countries.csv")


class BytesCounted(RoutedStore):
    """The usual stores; adds up what was read."""

    def __init__(self) -> None:
        super().__init__(StoreSettings())
        self.bytes_read = 0

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        data = super().read(uri, offset=offset, length=length, etag=etag, limit=limit)
        self.bytes_read += len(data)  # threads may lose one now and then; it is told in MiB
        return data


def collect_once(case: str, out: str, *, sampled: int = 20_000) -> dict[str, Any]:
    store, begun = BytesCounted(), time.perf_counter()
    settings = ReportSettings(images=sampled, overlap_images=max(1, sampled // 10))
    report = collect(out, store, settings=settings, groups=_table(out) if case == "grouped" else "")
    wall_s, usage = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    lying = sum(path.stat().st_size for path in (Path(out) / "data").iterdir())
    return {
        "images": sum(report.statuses.values()),
        "masks": report.masks,
        "parts": report.scope.parts_counted,
        "parts_sampled": report.scope.parts_sampled,
        "masks_sampled": report.scope.masks_sampled,
        "overlap_images": report.overlap.images,
        "concavity_masks": sum(report.concavity.drawn_per_size),
        "grouped_images": sum(group.images for each in report.groupings for group in each.groups),
        "wall_s": round(wall_s, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_rss_mib": usage.ru_maxrss // 1024,
        "parts_mib": lying >> 20,
        "read_mib": store.bytes_read >> 20,
    }


def measure(case: str, *, images: int, sampled: int, format: Format, out: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.report", "--out", str(out), "--once", case, "--sampled", str(sampled)]
    write_output(case, synthetic_plan(images, format), str(out))
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--sampled", type=int, default=20_000, help="images; the overlap is measured of a tenth")
    parser.add_argument("--case", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--format", choices=list(Format), type=Format, default=Format.PARQUET)
    parser.add_argument("--out", type=Path, help="empty folder; by default a temporary one")
    parser.add_argument("--once", choices=CASES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.once:
        sys.stdout.write(json.dumps(collect_once(chosen.once, str(chosen.out), sampled=chosen.sampled)))
        return
    result: dict[str, Any] = provenance()
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen.case:
            out = (chosen.out or Path(folder)) / case / "out"
            result[case] = measure(case, images=chosen.images, sampled=chosen.sampled, format=chosen.format, out=out)
            sys.stderr.write(f"{case}: {result[case]}\n")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
