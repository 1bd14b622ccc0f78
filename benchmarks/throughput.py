"""How many images a worker does in a second on this machine's GPU, and what holds it up: `make gpu-throughput`.

    python -m benchmarks.throughput --model vit_h --recipe sa1b_paper --precision bf16 [--profile] [--trace FILE]

What a worker of a run does, with its code, in this process and without Ray: two chunks at once, each read from files,
decoded ahead, generated and written as a part. The images are drawn, with noise, as JPEG files. The process keeps to as
many cores as a machine of several GPUs has for each. Beside what the generator needs it takes Pillow, tifffile and
pyarrow.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks import device as gpu
from benchmarks.cases import LENIENT, drawn_image, named_recipe
from benchmarks.kernels import busy_ns, profiled, table, window_ns
from benchmarks.places import Places
from benchmarks.weights import find_weights
from model.config import CONFIGS
from model.load import load_segmenter
from pipeline.masks.segmenter import Segmenter
from pipeline.plan.plan import OutputSettings
from pipeline.plan.planning import create_or_load_plan
from pipeline.records import Attempt, ChunkReport, Stage, Status
from pipeline.settings import ModelSettings, Precision, Recipe, RunSettings, Settings
from pipeline.storage.images import decode_image
from pipeline.storage.local import LocalStore
from pipeline.work.chunk import WorkerContext, process_chunk
from pipeline.work.device import Device, fix_torch
from pipeline.work.stopwatch import Stopwatch

CHUNKS_AT_ONCE = 2
"""Of a worker (pipeline.cluster.crew)."""
DRAWN = 4
"""Different images; the others are copies."""
QUALITY, NOISE = 90, 4.0
"""Of the JPEG files, and standard deviation of the noise in grey levels: a file is as large as that of a photograph."""
PROFILED = 16
"""Most images that the profiler watches."""
SHOWN = 8
"""Lines of code that are named for each kind of thread."""
CHUNK, AHEAD = "chunk", "prefetch"
"""How the names of a worker's threads begin: of those that generate and write, and of those that read and decode."""


@dataclass(frozen=True)
class Job:
    """What is measured."""

    model: str = "tiny"
    weights: str | None = None
    """Path of a checkpoint; null takes the bundled weights, as they are or widened."""
    recipe: str = "sam"
    precision: str = "bf16"
    device: str = "cuda"
    size_wh: tuple[int, int] = (2250, 1500)
    images: int = 48
    chunks: int = 4
    points_per_side: int | None = None
    """Null keeps the recipe's."""
    cores: int = 4
    """Which the process keeps to, of those that it may use."""
    profile: bool = False
    """Whether the kernels of one image are told."""
    trace: Path | None = None
    """File for a Chrome trace of one image."""
    folder: Path = Path("out/bench/weights")
    """Where widened weights are kept."""

    @property
    def asked(self) -> Recipe:
        """The bundled model's is lenient, so that many of its masks pass."""
        recipe = LENIENT if self.model == "tiny" else named_recipe(self.recipe)
        return recipe if self.points_per_side is None else replace(recipe, points_per_side=self.points_per_side)


@dataclass(frozen=True)
class Done:
    """Some chunks, once all are committed.

    cpu_s   of all threads of the process
    places  (kind of thread, line of ours) -> how often a thread was there, of all times that it was looked at
    """

    reports: Sequence[ChunkReport]
    wall_s: float
    cpu_s: float
    places: Counter[tuple[str, str]]

    @property
    def images(self) -> int:
        return sum(sum(report.images.values()) for report in self.reports)

    def ms(self, stage: Stage) -> float:
        """Of one image, in its thread."""
        return 1000 * sum(report.seconds.get(stage, 0.0) for report in self.reports) / self.images


@dataclass
class Page:
    """What was found, as far as it is found."""

    title: str
    files: Sequence[bytes]
    done: Done
    busy: float | None = None
    """Share of the time from the first kernel to the last in which one runs; None on a CPU."""
    profiled: Done | None = None


def keep_to(cores: int) -> str:
    """All threads of this process, and those to come, on the first of the cores that it may use; says how many."""
    allowed = sorted(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread), allowed[:cores])
    return f"{min(cores, len(allowed))} of {os.cpu_count()} cores"


def write_images(job: Job, folder: Path) -> list[bytes]:
    """The files of a run's source. Returns the different ones."""
    width, height = job.size_wh
    rng = np.random.default_rng(0)
    files: list[bytes] = []
    for number in range(min(DRAWN, job.images)):
        drawn_HW3 = drawn_image(job.model, 100 * number, (height, width))
        noisy_HW3 = drawn_HW3 + rng.normal(0, NOISE, drawn_HW3.shape).astype(np.float32)
        bgr_HW3 = noisy_HW3.clip(0, 255).astype(np.uint8)[..., ::-1]
        files.append(cv2.imencode(".jpg", bgr_HW3, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
    folder.mkdir()
    for number in range(job.images):
        (folder / f"{number:05}.jpg").write_bytes(files[number % len(files)])
    return files


def work(segmenter: Segmenter[Any], job: Job, source: Path, out: Path, *, chunks: int | None = None) -> Done:
    """Plan the folder's images and do the chunks, or the first of them, as a worker does.

    raises  RuntimeError if an image fails
    """
    settings = Settings(
        source=str(source),
        out=str(out),
        recipe=job.asked,
        model=ModelSettings(name=job.model, precision=Precision(job.precision)),
        run=RunSettings(images_per_chunk=-(-job.images // job.chunks)),
    )
    store = LocalStore()
    plan = create_or_load_plan(OutputSettings.of(settings, weights_sha256="0" * 64), out=str(out), store=store).plan
    context = WorkerContext(str(out), plan, store, Device(segmenter, job.asked).generate)
    attempts = [Attempt(chunk) for chunk in plan.chunks()][:chunks]
    places = Places(CHUNK, AHEAD)
    places.start()
    begun, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(CHUNKS_AT_ONCE, thread_name_prefix=CHUNK) as pool:
        reports = list(pool.map(partial(process_chunk, context=context), attempts))
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    places.end()
    statuses = sum((Counter(report.images) for report in reports), Counter[str]())
    if failed := statuses - Counter({str(Status.OK): job.images}):
        raise RuntimeError(f"images of the benchmark failed: {dict(failed)}")
    return Done(reports, wall_s, cpu_s, places.seen)


def measure(job: Job, segmenter: Segmenter[Any], *, title: str) -> Page:
    """A run to warm up, the one whose times count, and on a GPU one of at most as many images under a profiler."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_images(job, folder / "images")
        work(segmenter, job, folder / "images", folder / "first", chunks=CHUNKS_AT_ONCE)
        done = work(segmenter, job, folder / "images", folder / "second")
        page = Page(title, files, done)
        if job.device != "cpu":
            watched = max(CHUNKS_AT_ONCE, PROFILED * job.chunks // job.images)
            runs: list[Done] = []
            spans = profiled(
                job.device,
                lambda: runs.append(work(segmenter, job, folder / "images", folder / "third", chunks=watched)),
            )
            page.profiled, page.busy = runs[0], busy_ns(spans) / max(1, window_ns(spans))
    return page


def one_image(job: Job, segmenter: Segmenter[Any], file: bytes) -> Iterator[str]:
    """Lines about its kernels, and its trace in a file, as far as the job asks for them."""
    if not job.profile and job.trace is None:
        return
    image_HW3 = decode_image(file, max_pixels=1 << 30).rgb_HW3
    device = Device(segmenter, job.asked)

    def generate() -> None:
        device.generate(image_HW3, Stopwatch())

    generate()
    if job.profile:
        yield from ("", "One image by kernels:", "", *table(profiled(job.device, generate)))
    if job.trace is not None:
        gpu.trace(job.device, job.trace, generate)
        yield from ("", f"Its trace, for chrome://tracing or Perfetto: {job.trace}")


def text(page: Page, job: Job) -> str:
    """The page."""
    done = page.done
    masks = sum(report.masks for report in done.reports) / done.images
    kb = sum(map(len, page.files)) / len(page.files) / 1e3
    lines = [page.title, ""]
    lines += [f"{job.model} in {job.precision}, recipe {job.recipe}: {done.images} images of {job.size_wh[0]} x "]
    lines[-1] += f"{job.size_wh[1]} as JPEG files of {kb:.0f} kB, in {len(done.reports)} chunks, two at once:"
    lines += ["", f"images/s, from the first byte to the last part    {done.images / done.wall_s:10.2f}"]
    lines += [f"CPU seconds an image, of all threads              {done.cpu_s / done.images:10.3f}"]
    lines += [f"masks an image                                    {masks:10.1f}"]
    if page.busy is not None and page.profiled is not None:
        slower = page.profiled.images / page.profiled.wall_s
        lines += [f"a kernel is running, share of the time            {page.busy:10.1%}"]
        lines += [f"  in a run of {page.profiled.images} images under a profiler, which does {slower:.2f} images/s"]
    lines += ["", "Milliseconds an image, each of two chunks beside the other:", ""]
    lines += ["".join(f"{stage:>9}" for stage in Stage), "".join(f"{done.ms(stage):9.1f}" for stage in Stage)]
    for kind, what in ((CHUNK, "generate and write"), (AHEAD, "read and decode")):
        lines += ["", f"Where the threads are that {what}:", ""]
        lines += _shares({place: count for (seen, place), count in done.places.items() if seen == kind})
    return "\n".join(lines) + "\n"


def _shares(counts: dict[str, int]) -> list[str]:
    named = Counter(counts).most_common(SHOWN)
    return [f"{count / sum(counts.values()):8.1%}  {place}" for place, count in named]


def parse(arguments: Sequence[str]) -> Job:
    """A job from a command line; what it does not name keeps its default."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description="How many images a worker does in a second, and what holds it up.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--model", choices=list(CONFIGS))
    parser.add_argument("--weights", metavar="PATH", help="checkpoint instead of the bundled or widened weights")
    parser.add_argument("--recipe", choices=("sam", "sa1b_paper", "fast"))
    parser.add_argument("--precision", choices=list(Precision))
    parser.add_argument("--device", choices=gpu.DEVICES)
    parser.add_argument("--size", dest="size_wh", metavar="WxH", type=_size)
    for name in ("images", "chunks", "cores", "points-per-side"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--profile", action="store_true", help="tell the kernels of one image, and the gaps in it")
    parser.add_argument("--trace", metavar="FILE", type=Path, help="write a Chrome trace of one image")
    return Job(**vars(parser.parse_args(arguments)))


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main(arguments: Sequence[str]) -> int:
    job = parse(arguments)
    gpu.check(job.device)
    cores = keep_to(job.cores)
    fix_torch(1)
    weights = find_weights(job.model, given=job.weights, folder=job.folder)
    segmenter = load_segmenter(
        name=job.model, checkpoint=weights.path.read_bytes(), device=job.device, precision=job.precision
    )
    name = torch.cuda.get_device_name() if job.device == "cuda" else "CPU"
    jpeg = "imagecodecs" if find_spec("imagecodecs") else "Pillow, for want of imagecodecs"
    title = f"{name}, torch {torch.__version__}, {cores}, JPEG by {jpeg}; {weights.note}"
    page = measure(job, segmenter, title=title)
    sys.stdout.write(text(page, job))
    sys.stdout.flush()
    for line in one_image(job, segmenter, page.files[0]):
        sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except gpu.DeviceError as error:
        sys.exit(str(error))
