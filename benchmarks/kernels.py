"""What a device did and when, kernel by kernel, by torch's profiler: the dearest kernels, and the gaps between them.

On a GPU these are its kernels and copies, inside of CUDA graphs too. On a CPU they are the outermost operators of the
thread that asks, which is of use to tests alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from torch._C._autograd import DeviceType
from torch.autograd.profiler import profile

from benchmarks.device import synchronise

COPIES = ("Memcpy HtoD", "Memcpy DtoH")
"""Copies between host and device, which pass beside kernels."""
LONGEST_NAME = 70


class Span(NamedTuple):
    """A kernel, copy or operator, by the profiler's clock."""

    start_ns: int
    stop_ns: int
    name: str


@dataclass(frozen=True, slots=True)
class Gap:
    """The device has nothing to do."""

    ns: int
    after: str
    before: str


def profiled(device: str, call: Callable[[], object]) -> list[Span]:
    """What `call` made the device do, by start. Launches cost the host somewhat more than without a profiler."""
    on_cpu = device == "cpu"
    # That of torch.profiler imports a compiler first. Its key_averages and events take longer to make than all that
    # they tell of took.
    profiler = profile(use_kineto=True, use_cpu=on_cpu, use_device=None if on_cpu else device)
    with profiler:
        call()
        synchronise(device)
    results: Any = profiler.kineto_results
    kind = DeviceType.CPU if on_cpu else DeviceType.CUDA
    spans = sorted(
        Span(each.start_ns(), each.start_ns() + each.duration_ns(), each.name())
        for each in results.events()
        if each.device_type() == kind
    )
    return list(_outermost(spans)) if on_cpu else spans


def busy_ns(spans: Sequence[Span]) -> int:
    """In which at least one kernel ran; copies between host and device do not count."""
    return sum(stop - start for start, stop, *_ in _runs(spans))


def window_ns(spans: Sequence[Span]) -> int:
    """From the first kernel's start to the end of the last one."""
    runs = list(_runs(spans))
    return runs[-1][1] - runs[0][0] if runs else 0


def gaps(spans: Sequence[Span]) -> list[Gap]:
    """Longest first."""
    found = [Gap(late[0] - early[1], early[3], late[2]) for early, late in pairwise(_runs(spans))]
    return sorted(found, key=lambda gap: -gap.ns)


def _runs(spans: Sequence[Span]) -> Iterator[tuple[int, int, str, str]]:
    """Start and stop of the times without a gap, and the names of the first and the last kernel in them."""
    run: tuple[int, int, str, str] | None = None
    for span in spans:
        if span.name.startswith(COPIES):
            continue
        if run is None:
            run = span.start_ns, span.stop_ns, span.name, span.name
        elif span.start_ns <= run[1]:
            run = run if span.stop_ns <= run[1] else (run[0], span.stop_ns, run[2], span.name)
        else:
            yield run
            run = span.start_ns, span.stop_ns, span.name, span.name
    if run is not None:
        yield run


def _outermost(spans: Sequence[Span]) -> Iterator[Span]:
    stop = 0
    for span in spans:
        if span.start_ns >= stop:
            yield span
            stop = span.stop_ns


def table(spans: Sequence[Span], *, most: int = 25, most_gaps: int = 8) -> list[str]:
    """Lines: the dearest kernels, the sum of all, and the longest gaps."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for span in spans:
        by_name[span.name].append(span.stop_ns - span.start_ns)
    dearest = sorted(by_name.items(), key=lambda pair: -sum(pair[1]))
    lines = ["      ms   calls   us a call   kernel"]
    for name, each in dearest[:most]:
        lines.append(f"{sum(each) / 1e6:8.3f} {len(each):7} {sum(each) / len(each) / 1e3:11.1f}   {_short(name)}")
    if rest := dearest[most:]:
        calls = sum(len(each) for _, each in rest)
        lines.append(f"{sum(sum(each) for _, each in rest) / 1e6:8.3f} {calls:7}               {len(rest)} others")
    window, busy, idle = window_ns(spans) / 1e6, busy_ns(spans) / 1e6, gaps(spans)
    lines += ["", f"From the first kernel to the end of the last one {window:.2f} ms: busy {busy:.2f} ms, and idle"]
    lines += [f"{window - busy:.2f} ms in {len(idle)} gaps, of which the longest are:"]
    for gap in idle[:most_gaps]:
        lines.append(f"{gap.ns / 1e3:8.1f} us after {_short(gap.after)}, before {_short(gap.before)}")
    return lines


def _short(name: str) -> str:
    """Names of kernels that are templates fill pages."""
    name = name.removeprefix("void ")
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."
