"""Counts, boxes and runs from low-resolution logits, against full-size arrays."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference.official import segment_anything
from pipeline.masks.compiled import compiled
from pipeline.masks.measure import Measures, measure_masks
from pipeline.masks.rle import lengths
from pipeline.masks.tiles import evaluate, make_workspace
from pipeline.masks.trace import UntracedMask
from pipeline.masks.upscaling import Upscaling
from tests.masks.oracle import count_above, encode_mask, mask_boxes, upscale_logits

Floats = npt.NDArray[np.float32]
ROOT = Path(__file__).parent.parent.parent

SIZES: list[tuple[int, int, tuple[int, int]]] = [
    (64, 256, (683, 1024)),
    (64, 256, (1500, 2250)),
    (256, 1024, (1024, 683)),
    (64, 256, (31, 977)),
    (64, 256, (977, 31)),
    (64, 256, (60, 68)),
    (64, 256, (60, 69)),
    (64, 256, (1, 1)),
    (64, 256, (1, 600)),
    (64, 256, (700, 640)),
    (16, 64, (64, 64)),
    (50, 50, (50, 37)),
    (7, 100, (333, 257)),
    (100, 30, (80, 120)),
]
"""Low-resolution cells along a side, input side, crop: growing, shrinking, equal, one pixel, aspect of 30 and 600."""


def resized(crop_hw: tuple[int, int], side: int) -> tuple[int, int]:
    scale = side / max(crop_hw)
    return max(1, int(crop_hw[0] * scale + 0.5)), max(1, int(crop_hw[1] * scale + 0.5))


def smooth(count: int, cells: int, *, seed: int, detail: int, gain: float) -> torch.Tensor:
    """(N, h, w) logits: `detail` squared random values, bicubic between them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, detail, detail, generator=generator) * gain
    return F.interpolate(coarse, (cells, cells), mode="bicubic", align_corners=False)[:, 0]


def transposed(logits_Nhw: torch.Tensor, upscaling: Upscaling) -> Floats:
    h, w = upscaling.used_hw
    return logits_Nhw[:, :h, :w].mT.contiguous().numpy()


def pixels(logits_wh: Floats, upscaling: Upscaling) -> Floats:
    """(H, W) every pixel evaluated, none decided by bounds."""
    height, width = upscaling.crop_hw
    space = make_workspace(upscaling)
    pixel_WH = np.full((width, height), np.nan, dtype=np.float32)
    starts = upscaling.x.start_T1
    for tile, (start, stop) in enumerate(pairwise(starts)):
        evaluate(logits_wh, upscaling, tile, 0, height, space)
        pixel_WH[start:stop] = space.pixel_KY[: stop - start]
    return pixel_WH.T


@pytest.mark.parametrize(("cells", "side", "crop_hw"), SIZES)
def test_pixels_are_those_of_the_released_code_to_the_last_bit(cells: int, side: int, crop_hw: tuple[int, int]) -> None:
    """A logit that rounds to the other side of 0 is another mask. One thread, as torch rounds by their number."""
    logits_N3hw = torch.randn(1, 3, cells, cells, generator=torch.Generator().manual_seed(cells))
    resized_hw = resized(crop_hw, side)
    sam = SimpleNamespace(image_encoder=SimpleNamespace(img_size=side))
    released = segment_anything.modeling.Sam.postprocess_masks(sam, logits_N3hw, resized_hw, crop_hw)[0, 1]
    upscaling = Upscaling.between((cells, cells), input_side=side, resized_hw=resized_hw, crop_hw=crop_hw)
    ours = pixels(transposed(logits_N3hw[0], upscaling)[1], upscaling)
    assert np.array_equal(ours, released.numpy())


def assert_equals_full_size(
    logits_Nhw: torch.Tensor, *, side: int, resized_hw: tuple[int, int], crop_hw: tuple[int, int], offset: float
) -> Measures:
    h, w = logits_Nhw.shape[-2:]
    upscaling = Upscaling.between((h, w), input_side=side, resized_hw=resized_hw, crop_hw=crop_hw)
    logits_Nwh = transposed(logits_Nhw, upscaling)
    full_NHW = upscale_logits(logits_Nhw, input_side=side, resized_hw=resized_hw, crop_hw=crop_hw)
    measures = measure_masks(logits_Nwh, upscaling, offset=offset, least_score=-1)
    assert measures.tight_N.tolist() == count_above(full_NHW, offset).tolist()
    assert measures.loose_N.tolist() == count_above(full_NHW, -offset).tolist()
    assert measures.box_xyxy_N4.tolist() == mask_boxes(full_NHW > 0).tolist()
    for logits_wh, full_HW in zip(logits_Nwh, full_NHW, strict=True):
        traced = UntracedMask(logits_wh, upscaling).traced()
        assert traced.hw == crop_hw
        assert np.array_equal(traced.run_M, encode_mask((full_HW > 0).numpy()).run_M)
    return measures


@pytest.mark.parametrize(("cells", "side", "crop_hw"), SIZES)
def test_counts_boxes_and_runs_are_those_of_full_size_logits(cells: int, side: int, crop_hw: tuple[int, int]) -> None:
    """Steep blobs, soft blobs and noise; masks that are empty or everything."""
    logits_Nhw = torch.cat(
        [
            smooth(2, cells, seed=1, detail=4, gain=40),
            smooth(2, cells, seed=2, detail=9, gain=3),
            torch.randn(1, cells, cells) * 2,
            torch.full((1, cells, cells), 0.3),
            torch.full((1, cells, cells), -50.0),
        ]
    )
    assert_equals_full_size(logits_Nhw, side=side, resized_hw=resized(crop_hw, side), crop_hw=crop_hw, offset=1.0)


@settings(deadline=None, max_examples=150)
@given(
    cells=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    resized_hw=st.tuples(st.integers(1, 48), st.integers(1, 48)),
    crop_hw=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    offset=st.sampled_from([1.0, 0.3, 0.0, 2.0]),
    whole=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_sizes_and_logits_on_the_cuts_give_full_size_results(
    cells: tuple[int, int],
    resized_hw: tuple[int, int],
    crop_hw: tuple[int, int],
    offset: float,
    whole: bool,  # noqa: FBT001
    seed: int,
) -> None:
    """Whole numbers make plateaus at exactly -offset, 0 and +offset, where rounding decides about every pixel."""
    generator = torch.Generator().manual_seed(seed)
    logits_Nhw = torch.randn(2, *cells, generator=generator) * 1.5
    logits_Nhw = logits_Nhw.round() if whole else logits_Nhw
    assert_equals_full_size(logits_Nhw, side=48, resized_hw=resized_hw, crop_hw=crop_hw, offset=offset)


@pytest.mark.parametrize(("cells", "side", "crop_hw"), [(64, 256, (60, 68)), (7, 100, (333, 257))])
@pytest.mark.parametrize("logit", [0.7, -0.7])
def test_a_plateau_at_a_cut_is_decided_pixel_by_pixel(
    cells: int, side: int, crop_hw: tuple[int, int], logit: float
) -> None:
    """Interpolation of equal logits rounds up here and down there: what bounds decide must have room for that."""
    logits_1hw = torch.full((1, cells, cells), logit)
    full_1HW = upscale_logits(logits_1hw, input_side=side, resized_hw=resized(crop_hw, side), crop_hw=crop_hw)
    assert {-1, 1} <= set((full_1HW - torch.tensor(logit)).sign().flatten().tolist())
    assert_equals_full_size(logits_1hw, side=side, resized_hw=resized(crop_hw, side), crop_hw=crop_hw, offset=0.7)


def test_cells_of_the_padding_are_never_read() -> None:
    """A segmenter may leave anything there. `used_hw` says what it must not leave out."""
    for cells, side, crop_hw in SIZES:
        upscaling = Upscaling.between(
            (cells, cells), input_side=side, resized_hw=resized(crop_hw, side), crop_hw=crop_hw
        )
        h, w = upscaling.used_hw
        logits_1hw = torch.full((1, cells, cells), float("nan"))
        logits_1hw[:, :h, :w] = 1.0
        full_1HW = upscale_logits(logits_1hw, input_side=side, resized_hw=resized(crop_hw, side), crop_hw=crop_hw)
        assert not full_1HW.isnan().any()


def test_counting_stops_only_where_the_score_is_certain_to_be_too_low() -> None:
    """Unstable masks are the most, and the dearest to count; what is returned for them must fail the threshold too."""
    logits_Nhw = smooth(40, 64, seed=3, detail=6, gain=1) * torch.logspace(0, 3, 40)[:, None, None]
    upscaling = Upscaling.between((64, 64), input_side=256, resized_hw=(171, 256), crop_hw=(200, 300))
    logits_Nwh = transposed(logits_Nhw, upscaling)
    exact = measure_masks(logits_Nwh, upscaling, offset=1.0, least_score=-1)
    early = measure_masks(logits_Nwh, upscaling, offset=1.0, least_score=0.9)
    low_N = exact.tight_N < 0.9 * exact.loose_N
    assert 10 < low_N.sum() < 30
    assert np.array_equal(early.tight_N < 0.9 * early.loose_N, low_N)
    assert (early.loose_N[low_N] < exact.loose_N[low_N]).any()
    for name in ("tight_N", "loose_N", "box_xyxy_N4"):
        assert np.array_equal(getattr(early, name)[~low_N], getattr(exact, name)[~low_N])


def test_results_depend_neither_on_other_masks_nor_on_threads() -> None:
    """Threads of a worker may share the work; the interpreter's lock is released in it."""
    logits_Nhw = smooth(12, 64, seed=4, detail=6, gain=20)
    upscaling = Upscaling.between((64, 64), input_side=256, resized_hw=(171, 256), crop_hw=(200, 300))
    logits_Nwh = transposed(logits_Nhw, upscaling)

    def one(i: int) -> tuple[list[int], list[int]]:
        measures = measure_masks(logits_Nwh[i : i + 1], upscaling, offset=1.0, least_score=-1)
        runs = UntracedMask(logits_Nwh[i], upscaling).traced().run_M.tolist()
        return [*measures.tight_N, *measures.loose_N, *measures.box_xyxy_N4[0]], runs

    together = measure_masks(logits_Nwh, upscaling, offset=1.0, least_score=-1)
    alone = [one(i) for i in range(12)]
    assert [row for row, _ in alone] == np.column_stack(
        [together.tight_N, together.loose_N, together.box_xyxy_N4]
    ).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, list(range(12)) * 3)) == alone * 3


HUGE = """
import resource, sys
import numpy as np
from pipeline.masks.clean import clean_mask
from pipeline.masks.measure import measure_masks
from pipeline.masks.trace import UntracedMask
from pipeline.masks.upscaling import Upscaling

def masks(side, crop):
    y, x = np.mgrid[0:256, 0:256].astype(np.float32)
    waves = np.stack([9 * np.sin(x / 9) * np.sin(y / 7) - 3, 90 - np.hypot(x - 130, y - 120)]).astype(np.float32)
    upscaling = Upscaling.between((256, 256), input_side=1024, resized_hw=(side, side), crop_hw=(crop, crop))
    h, w = upscaling.used_hw
    logits_Nwh = np.ascontiguousarray(waves[:, :w, :h])
    measure_masks(logits_Nwh, upscaling, offset=1.0, least_score=0)
    for logits_wh in logits_Nwh:
        rle = clean_mask(UntracedMask(logits_wh, upscaling).traced(), below_area=100).rle
        assert rle.hw == (crop, crop)
        assert rle.box_xyxy[2] > 0
        rle.packed()
    return rle.area / crop**2

small = masks(1024, 512)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
large = masks(1024, 16384)
assert abs(small - large) < 1e-3
sys.stdout.write(str((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024))
"""


def test_masks_of_268_megapixels_take_megabytes() -> None:
    """The largest image that a run accepts by default; a full-size float mask of it would be 1 GiB."""
    result = subprocess.run([sys.executable, "-c", HUGE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 64


def test_functions_that_cannot_be_cached_are_compiled_all_the_same() -> None:
    """numba refuses to cache where it may not write, as in a read-only installation; or where there is no file."""
    namespace: dict[str, object] = {}
    exec("def double(x):\n    return 2 * x", namespace)
    double = namespace["double"]
    assert callable(double)
    assert compiled(double)(21) == 42


def test_a_change_anywhere_in_the_package_compiles_everything_anew() -> None:
    """numba keys its cache by a function's own file; a changed callee in another one would go unnoticed."""
    function: Any = lengths
    assert function(np.array([0, 3])).tolist() == [3]
    index = function._cache._cache_file
    stamp = index._source_stamp
    sources = sorted((ROOT / "pipeline" / "masks").glob("*.py"))
    assert stamp == hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    assert index._load_index()
    index._source_stamp = "another"
    try:
        assert not index._load_index()
    finally:
        index._source_stamp = stamp
