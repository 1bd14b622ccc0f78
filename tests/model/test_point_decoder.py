"""The decoder for single points against the decoder as published, on the same random weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from model import point_decoder
from model.config import CONFIGS, SamConfig
from model.point_decoder import GPU_BLOCK, GPU_SMALL_BLOCK, GPU_UPSCALED, PointDecoder, Predictions
from model.sam import Sam
from model.upscaling import cells_inside
from tests.model.test_equality import random_sam

TINY = CONFIGS["tiny"]
# The encoder takes no part: embeddings are random.
LARGE = replace(CONFIGS["vit_b"], embed_dim=12, depth=1, heads=1, global_blocks=(0,))
SIZES = {
    "tiny": TINY,
    "tiny, three layers": replace(TINY, decoder_depth=3),
    "one layer, two masks": replace(TINY, decoder_depth=1, multimask_outputs=2),
    "oblong chunks": replace(TINY, input_side=30 * 16, window=0),
    "half the released side": replace(LARGE, input_side=512),
    "released": LARGE,
}
EVERYTHING = -math.inf


def embedding(config: SamConfig) -> Tensor:
    return torch.randn(1, config.decoder_dim, config.grid_side, config.grid_side)


def points(config: SamConfig, count: int) -> Tensor:
    return torch.rand(count, 2, dtype=torch.float64) * config.input_side


def published(
    sam: Sam, embedding_1Cgg: Tensor, coords_P2: Tensor, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Logits (P, M, h, w) and predicted IoUs (P, M) of `MaskDecoder.forward`, computed in `dtype`."""
    labels_P1 = torch.ones(len(coords_P2), 1, dtype=torch.int64)
    sparse_PTC, dense_PCgg = sam.prompt_encoder(points=(coords_P2[:, None], labels_P1))
    return copy.deepcopy(sam.mask_decoder).to(dtype)(
        image_embeddings=embedding_1Cgg.to(dtype),
        image_pe=sam.prompt_encoder.get_dense_pe().to(dtype),
        sparse_prompt_embeddings=sparse_PTC.to(dtype),
        dense_prompt_embeddings=dense_PCgg.to(dtype),
        multimask_output=True,
    )


def decode(sam: Sam, embedding_1Cgg: Tensor, coords_P2: Tensor, *, thresh: float = EVERYTHING) -> Predictions:
    decoder, g = PointDecoder(sam), sam.config.grid_side
    return decoder.decode(decoder.share(embedding_1Cgg), coords_P2, pred_iou_thresh=thresh, cells_hw=(g, g))


def assert_identical(ours: Predictions, theirs: Predictions) -> None:
    """Where masks are live; elsewhere may be anything."""
    for name in ("predicted_iou_PM", "live_PM"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(ours.logits_PMhw[ours.live_PM], theirs.logits_PMhw[theirs.live_PM])


def part_of(everything: Predictions, chosen_P: Tensor) -> Predictions:
    """Of some of the points."""
    return Predictions(
        everything.predicted_iou_PM[chosen_P], everything.live_PM[chosen_P], everything.logits_PMhw[chosen_P]
    )


@pytest.mark.parametrize("name", SIZES)
@torch.inference_mode()
def test_points_get_the_published_decoders_masks_and_scores(name: str) -> None:
    """The whole decoder is rearranged; what comes out may differ by float rounding and no more."""
    config = SIZES[name]
    sam, M = random_sam(config), config.multimask_outputs
    image_1Cgg, coords_P2 = embedding(config), points(config, 3 if name == "released" else 11)
    ours = decode(sam, image_1Cgg, coords_P2)
    logits_PMhw, predicted_iou_PM = published(sam, image_1Cgg, coords_P2)
    assert ours.live_PM.shape == (len(coords_P2), M)
    assert ours.live_PM.all()
    torch.testing.assert_close(ours.predicted_iou_PM, predicted_iou_PM, rtol=0, atol=3e-6)
    error = (ours.logits_PMhw - logits_PMhw).abs().max() / logits_PMhw.std()
    assert error < 1e-5


@torch.inference_mode()
def test_steep_attention_and_flat_images_stay_as_exact_as_their_rounding() -> None:
    """Sharp softmaxes and an image without contrast are where an expanded sum of squares could cancel.

    The yardstick is the published decoder in float64: ours may be no more than a few times farther from it than the
    published one in float32 is.
    """
    sam = random_sam(TINY)
    for parameter in sam.mask_decoder.transformer.parameters():
        if parameter.dim() > 1:
            parameter.mul_(4)
    coords_P2 = points(TINY, 8)
    for image_1Cgg in (embedding(TINY), torch.full_like(embedding(TINY), 0.3)):
        ours = decode(sam, image_1Cgg, coords_P2).logits_PMhw
        theirs = published(sam, image_1Cgg, coords_P2)[0]
        exact = published(sam, image_1Cgg, coords_P2, dtype=torch.float64)[0]
        assert (ours - exact).abs().max() < 4 * (theirs - exact).abs().max() + 1e-5 * exact.std()


@pytest.fixture(scope="module")
def asked() -> tuple[Sam, Tensor, Tensor, Predictions]:
    """A tiny model, an embedding, 37 points and all their answers."""
    sam = random_sam(TINY)
    with torch.inference_mode():
        image_1Cgg, coords_P2 = embedding(TINY), points(TINY, 37)
        return sam, image_1Cgg, coords_P2, decode(sam, image_1Cgg, coords_P2)


@given(data=st.data())
@settings(max_examples=12, deadline=None)
@torch.inference_mode()
def test_no_bit_depends_on_which_points_are_asked_together(
    asked: tuple[Sam, Tensor, Tensor, Predictions], data: st.DataObject
) -> None:
    """`points_per_batch` is about memory; a mask that changed with it could not be reproduced."""
    sam, image_1Cgg, coords_P2, together = asked
    order = data.draw(st.permutations(range(len(coords_P2))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order) - 1), max_size=5)))
    for start, stop in zip([0, *cuts], [*cuts, len(order)], strict=True):
        chosen_P = torch.tensor(order[start:stop])
        assert_identical(decode(sam, image_1Cgg, coords_P2[chosen_P]), part_of(together, chosen_P))


@torch.inference_mode()
def test_no_bit_of_a_mask_depends_on_the_threshold_it_passed(
    asked: tuple[Sam, Tensor, Tensor, Predictions],
) -> None:
    """The threshold saves work; it must not be felt by those that pass."""
    sam, image_1Cgg, coords_P2, everything = asked
    for thresh in everything.predicted_iou_PM.quantile(torch.tensor([0.1, 0.6, 0.97])).tolist():
        answer, live_PM = decode(sam, image_1Cgg, coords_P2, thresh=thresh), everything.predicted_iou_PM > thresh
        assert_identical(answer, Predictions(everything.predicted_iou_PM, live_PM, everything.logits_PMhw))


@torch.inference_mode()
def test_no_points_and_no_survivors_are_answers_too(asked: tuple[Sam, Tensor, Tensor, Predictions]) -> None:
    """Empty crops happen in every run."""
    sam, image_1Cgg, coords_P2, everything = asked
    assert_identical(decode(sam, image_1Cgg, coords_P2[:0]), part_of(everything, torch.arange(0)))
    assert not decode(sam, image_1Cgg, coords_P2, thresh=math.inf).live_PM.any()


def peak_bytes(action: Callable[[], object]) -> int:
    """Most bytes that torch's allocator had given out at once, beyond what it had before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        action()
    results: Any = profiler.profiler
    events = results.kineto_results.events()
    return max(accumulate(event.nbytes() for event in events if event.name() == "[memory]"))


@pytest.fixture
def steps_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that a GPU is given, on a CPU."""
    for name in ("_chunk", "_block"):
        monkeypatch.setattr(point_decoder, name, partial(_of_a_gpu, getattr(point_decoder, name)))


def _of_a_gpu(steps: Callable[..., Any], *sizes: int, on_cpu: bool, **fused: bool) -> Any:
    assert on_cpu
    return steps(*sizes, on_cpu=False, **fused)


@pytest.mark.usefixtures("steps_of_a_gpu")
@torch.inference_mode()
def test_fewer_points_than_a_block_take_the_memory_of_a_block() -> None:
    """Halving the points frees no more than their masks; docs/gpu.md has it in numbers."""
    decoder, g = PointDecoder(random_sam(TINY)), TINY.grid_side
    image = decoder.share(embedding(TINY))

    def peak(count: int) -> int:
        ask = partial(decoder.decode, image, points(TINY, count), pred_iou_thresh=EVERYTHING, cells_hw=(g, g))
        return peak_bytes(ask)

    mask_bytes = TINY.multimask_outputs * (4 * g) ** 2 * 4
    one, whole, large = (peak(count) for count in (1, GPU_SMALL_BLOCK, GPU_BLOCK))
    assert one == pytest.approx(whole, rel=0.01)
    assert whole > 10 * GPU_SMALL_BLOCK * mask_bytes
    assert whole < large - (GPU_BLOCK - GPU_SMALL_BLOCK) * mask_bytes < 4 * whole


@pytest.mark.usefixtures("steps_of_a_gpu")
@torch.inference_mode()
def test_the_size_of_blocks_on_a_gpu_follows_from_the_points_and_changes_rounding_alone() -> None:
    """Small grids would fill a large block with copies of a point. Masks are formed for some of a block at a time."""
    config, count = SIZES["one layer, two masks"], GPU_BLOCK + 9
    sam, image_1Cgg, coords_P2 = random_sam(config), embedding(config), points(config, count)
    together = decode(sam, image_1Cgg, coords_P2)
    assert GPU_BLOCK > 2 * GPU_UPSCALED
    for start, stop in ((0, GPU_BLOCK), (0, GPU_SMALL_BLOCK), (count - 3, count)):
        part, whole = decode(sam, image_1Cgg, coords_P2[start:stop]), part_of(together, torch.arange(start, stop))
        if stop - start >= GPU_BLOCK:
            assert_identical(part, whole)
        error = (part.logits_PMhw - whole.logits_PMhw).abs().max() / whole.logits_PMhw.std()
        assert error < 1e-5


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts torch's number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["tiny", "half the released side"])
@pytest.mark.usefixtures("threads")
@torch.inference_mode()
def test_no_bit_depends_on_the_number_of_threads(name: str) -> None:
    """Two machines with other core counts shall write the same masks."""
    config = SIZES[name]
    sam, image_1Cgg, coords_P2 = random_sam(config), embedding(config), points(config, 5)
    answers = []
    for count in (1, 2):
        torch.set_num_threads(count)
        answers.append(decode(sam, image_1Cgg, coords_P2))
    assert_identical(*answers)


@given(
    height=st.integers(1, 256),
    width=st.integers(1, 256),
    sizes=st.sampled_from([(256, 16), (256, 32), (512, 64)]),
)
@settings(max_examples=40, deadline=None)
def test_masks_are_formed_on_the_cells_that_pixels_depend_on_and_on_no_others(
    height: int, width: int, sizes: tuple[int, int]
) -> None:
    """One row too few changes masks at the bottom of a crop; rows too many are lost time."""
    side, grid = sizes
    rows, columns = cells_inside((height, width), input_side=side, grid_side=grid)

    def pixels_depending_on_more_than(rows: int, columns: int) -> int:
        outside_hw = torch.ones(4 * grid, 4 * grid)
        outside_hw[: 4 * rows, : 4 * columns] = 0
        square_SS = F.interpolate(outside_hw[None, None], (side, side), mode="bilinear", align_corners=False)[0, 0]
        return int(square_SS[:height, :width].count_nonzero())

    assert pixels_depending_on_more_than(rows, columns) == 0
    assert pixels_depending_on_more_than(rows - 1, columns) > 0
    assert pixels_depending_on_more_than(rows, columns - 1) > 0


@torch.inference_mode()
def test_cells_inside_are_as_on_the_whole_and_the_others_are_zero(
    asked: tuple[Sam, Tensor, Tensor, Predictions],
) -> None:
    """What is left out must not disturb what is not."""
    sam, image_1Cgg, coords_P2, everything = asked
    decoder = PointDecoder(sam)
    part = decoder.decode(
        decoder.share(image_1Cgg), coords_P2[:8], pred_iou_thresh=EVERYTHING, cells_hw=(11, 13)
    ).logits_PMhw
    whole = everything.logits_PMhw[: len(part)]
    inside = (..., slice(44), slice(52))
    torch.testing.assert_close(part[inside], whole[inside], rtol=0, atol=1e-5 * float(whole.std()))
    part[inside] = 0
    assert not part.any()
