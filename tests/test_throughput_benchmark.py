"""`make gpu-throughput` on a CPU, and what it makes of a profiler's spans."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.device import DeviceError
from benchmarks.kernels import Span, busy_ns, gaps, table, window_ns
from benchmarks.throughput import AHEAD, CHUNK, Job, keep_to, main, measure, one_image, text
from pipeline.records import Stage
from tests.fake_segmenter import FakeSegmenter

JOB = Job(device="cpu", precision="fp32", size_wh=(48, 32), images=4, chunks=2, points_per_side=4, profile=True)


def test_images_pass_the_code_of_a_worker_and_the_page_says_what_that_took() -> None:
    page = measure(JOB, FakeSegmenter(), title="a machine")
    done = page.done
    assert done.images == 4
    assert [report.won for report in done.reports] == [True, True]
    assert all(done.ms(stage) > 0 for stage in (Stage.READ, Stage.DECODE, Stage.COMPUTE, Stage.RLE, Stage.WRITE))
    assert done.cpu_s > 0
    assert {kind for kind, _ in done.places} <= {CHUNK, AHEAD}
    said = text(page, JOB)
    assert said.startswith("a machine\n\ntiny in fp32, recipe sam: 4 images of 48 x 32 as JPEG files of")
    assert "aten::" in "".join(one_image(JOB, FakeSegmenter(), page.files[0]))


def test_what_fails_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without masks are done in no time."""
    monkeypatch.setattr("benchmarks.throughput.write_images", unreadable)
    with pytest.raises(RuntimeError, match=r"failed: .*unreadable.*: 4"):
        measure(JOB, FakeSegmenter(), title="")


def unreadable(_job: Job, folder: Path) -> list[bytes]:
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(b"no image")
    return [b""]


def test_time_is_busy_once_however_many_kernels_run_in_it() -> None:
    """Copies to and from the host pass beside kernels and are in the table alone."""
    spans = [
        Span(0, 10, "a"),
        Span(5, 20, "b"),
        Span(6, 8, "a"),
        Span(20, 30, "c"),
        Span(30, 44, "Memcpy HtoD (Pinned -> Device)"),
        Span(40, 50, "a"),
        Span(53, 55, "d"),
    ]
    assert (busy_ns(spans), window_ns(spans)) == (42, 55)
    assert [(gap.ns, gap.after, gap.before) for gap in gaps(spans)] == [(10, "c", "a"), (3, "a", "d")]
    lines = table(spans, most=2)
    assert [line.split()[1:] for line in lines[1:4]] == [["3", "0.0", "a"], ["1", "0.0", "b"], ["3", "3", "others"]]
    assert "in 2 gaps" in lines[6]


def test_without_a_kernel_nothing_is_busy() -> None:
    assert (busy_ns([]), window_ns([]), gaps([])) == (0, 0, [])


def test_threads_of_before_and_after_keep_to_the_cores() -> None:
    """torch and OpenBLAS start theirs when they are imported."""
    seen: list[set[int]] = []
    ask = threading.Event()

    def look() -> None:
        ask.wait()
        seen.append(os.sched_getaffinity(0))

    cores = os.sched_getaffinity(0)
    before = threading.Thread(target=look)
    before.start()
    try:
        keep_to(1)
        after = threading.Thread(target=look)
        after.start()
        ask.set()
        before.join()
        after.join()
    finally:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cores)
    assert seen == [{min(cores)}] * 2


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="sees no CUDA device"):
        main([])
