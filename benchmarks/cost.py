"""What a mask should cost: operations and memory traffic of each stage, from sizes alone.

Owns the arithmetic; measures nothing. The tables of docs/cost.md come from cost_tables.py.
A multiplication with its addition is two operations. Traffic is what operators that keep nothing in cache read and
write in float32; weights, read once for a batch, are left out. tests/test_benchmarks.py holds the counts of released
modules against torch's own counter.

Legend: g tokens a side, N = g^2 image positions, C channels (the decoder's attention works on C/2 of them), H heads,
T tokens of a prompt (4 masks, 1 score, the point, its padding), R = H T rows of all heads' softmax, m = 4g
low-resolution cells a side, S input side, h w pixels of the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.config import SamConfig

FLOAT = 4
POINT_TOKENS = 2
"""A point and the padding that stands for the box that is not there."""


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations, and bytes read and written."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.bytes * times)


def total(works: Iterable[Work]) -> Work:
    return sum(works, Work())


def linear(rows: float, inner: float, columns: float) -> Work:
    """Activations (rows, inner) through a weight (inner, columns)."""
    return Work(2 * rows * inner * columns, FLOAT * rows * (inner + columns))


def product(rows: float, inner: float, columns: float) -> Work:
    """Two activations multiplied."""
    return Work(2 * rows * inner * columns, FLOAT * (rows * inner + inner * columns + rows * columns))


def passes(elements: float, *, reads: int, writes: int) -> Work:
    """Elementwise operators over a tensor; their operations are not counted."""
    return Work(0, FLOAT * elements * (reads + writes))


def attention(queries: float, keys: float, channels: float, heads: int) -> Work:
    """Scores, scaling, softmax and the weighted sum of all heads."""
    scores = heads * queries * keys
    flops = 4 * queries * keys * channels
    return Work(flops, FLOAT * (2 * scores + 2 * channels * (queries + keys))) + passes(scores, reads=2, writes=2)


def encoder(config: SamConfig) -> dict[str, Work]:
    """One crop through the released image encoder."""
    N, C, D, side = config.grid_side**2, config.embed_dim, config.decoder_dim, config.grid_side
    windows = -(-side // config.window)
    padded, wide = (windows * config.window) ** 2, len(config.global_blocks)
    blocks = config.depth
    window_attention = _self_attention(padded, config.window, config) * (blocks - wide)
    # LayerNorm and the residual sum, twice; GELU over four times the channels.
    between = passes(N * C, reads=6, writes=4) + passes(config.mlp_channels * N, reads=1, writes=1)
    mlp = linear(N, C, config.mlp_channels) + linear(N, config.mlp_channels, C)
    return {
        "patches": linear(N, 3 * config.patch**2, C) + passes(N * C, reads=2, writes=1),
        "projections": (linear(padded, C, 4 * C) * (blocks - wide)) + (linear(N, C, 4 * C) * wide),
        "window attention": window_attention,
        "global attention": _self_attention(N, side, config) * wide,
        "MLP": (mlp + between) * blocks,
        "neck": linear(N, C, D) + linear(N, 9 * D, D) + passes(N * D, reads=16, writes=12),
    }


def _self_attention(tokens: float, side: int, config: SamConfig) -> Work:
    """Attention of `tokens` tokens in squares of `side`, with relative positions along rows and columns."""
    C, seen = config.embed_dim, side**2
    scores = config.heads * tokens * seen
    positions = Work(4 * tokens * side * C, FLOAT * 2 * tokens * (C + config.heads * side))
    within = Work(4 * tokens * seen * C, FLOAT * (2 * scores + 4 * tokens * C))
    # Scaling, the two additions of relative positions, softmax.
    return within + positions + passes(scores, reads=4, writes=4)


def released_prompt(config: SamConfig) -> dict[str, Work]:
    """One prompt through the released mask decoder, as part of a batch."""
    N, C, H, T = config.grid_side**2, config.decoder_dim, config.decoder_heads, _tokens(config)
    inner, outputs = C // 2, config.multimask_outputs + 1
    image = passes(N * C, reads=1, writes=1)
    look = linear(T, C, inner) + linear(N, C, 2 * inner) + attention(T, N, inner, H) + linear(T, inner, C)
    answer = linear(N, C, inner) + linear(T, C, 2 * inner) + attention(N, T, inner, H) + linear(N, inner, C)
    # Position added to the keys for either direction, the residual sum, LayerNorm.
    around = passes(N * C, reads=7, writes=4)
    layer = _token_layer(config) + look + answer + around
    upscaling = (
        linear(N, C, C)  # 2 x 2 cells of C/4 channels
        + passes(N * C, reads=8, writes=6)  # LayerNorm2d, operator by operator
        + passes(N * C, reads=1, writes=1)
        + linear(4 * N, C // 4, C // 2)
        + passes(2 * N * C, reads=1, writes=1)
    )
    return {
        "transformer": image * 3 + layer * config.decoder_depth + look + passes(N * C, reads=2, writes=1),
        "upscaling": upscaling,
        "heads": _hypernetwork(config) * outputs + _iou_head(config) + product(outputs, C // 8, 16 * N),
    }


def ours_crop(config: SamConfig) -> Work:
    """What all prompts of a crop share: keys and values for each look, queries for each answer, the image's products
    with the output projections so far (for LayerNorm), and the first transposed convolution."""
    N, C, depth = config.grid_side**2, config.decoder_dim, config.decoder_depth
    halves = 2 * (depth + 1) + depth + depth * (depth + 1) // 2
    return linear(N, C, C // 2) * halves + linear(N, C, C)


def ours_prompt(config: SamConfig) -> dict[str, Work]:
    """One prompt up to its scores, with the image kept as shared + A^T U (docs/cost.md derives each term)."""
    N, H, T = config.grid_side**2, config.decoder_heads, _tokens(config)
    R, depth = H * T, config.decoder_depth
    narrow = Work(T * N * config.decoder_dim)  # all heads against a shared C/2 channels of the image
    softmax = passes(R * N, reads=2, writes=2)
    image = (narrow + softmax) * 2 + narrow + _norm(1, R, N, narrow)  # layer 0: look (scores, values), answer (scores)
    for layer in range(1, depth):
        # Positions are a narrow product of their own in the scores, because LayerNorm scales the rest.
        look_and_answer = narrow * 5 + _low_rank(R, layer * R, N) * 3
        image += look_and_answer + softmax * 2 + _norm(layer + 1, R, N, narrow)
    asked = config.multimask_outputs + 1  # the outputs' tokens and the score's
    last_look = narrow * (3 * asked / T) + _low_rank(H * asked, depth * R, N) * 2
    image += last_look + passes(H * asked * N, reads=2, writes=2)
    tokens = (_token_layer(config) + _folded(config)) * depth + _folded(config) + _iou_head(config)
    return {"tokens": tokens, "image": image}


def _low_rank(rows: float, rank: float, N: int) -> Work:
    """`rows` rows against the kept combinations A (rank, N), which are read."""
    return Work(2 * rows * rank * N, FLOAT * rank * N)


def _norm(answers: int, R: int, N: int, narrow: Work) -> Work:
    """Mean square of the image after so many answers: each one's rows against the shared image, and a symmetric form of
    all rows."""
    return narrow * answers + total(_low_rank(R, rows * R, N) for rows in range(1, answers + 1))


def _folded(config: SamConfig) -> Work:
    """Queries, keys and values of one layer's two looks, and output projections folded into R rows."""
    T, C = _tokens(config), config.decoder_dim
    return linear(T, C, C // 2) * 3 + linear(T, C // 2, C) + linear(T, C // 2, C)


def ours_kept_prompt(config: SamConfig, *, inside: float) -> Work:
    """Upscaling for one prompt with a mask above the threshold; `inside` is the unpadded share of the square."""
    N, C = config.grid_side**2 * inside, config.decoder_dim
    rank = config.decoder_depth * config.decoder_heads * _tokens(config) + 1
    return Work(2 * rank * N * C, FLOAT * (rank + C) * N) + linear(4 * N, C // 4, C // 2)


def ours_kept_mask(config: SamConfig, *, inside: float) -> Work:
    """Hypernetwork and logits of one mask above the threshold."""
    return _hypernetwork(config) + product(1, config.decoder_dim // 8, 16 * config.grid_side**2 * inside)


def _token_layer(config: SamConfig) -> Work:
    """Self-attention and MLP of one decoder layer."""
    T, C = _tokens(config), config.decoder_dim
    mlp = linear(T, C, config.decoder_mlp) + linear(T, config.decoder_mlp, C)
    return linear(T, C, C) * 4 + attention(T, T, C, config.decoder_heads) + mlp


def _hypernetwork(config: SamConfig) -> Work:
    C = config.decoder_dim
    return linear(1, C, C) * 2 + linear(1, C, C // 8)


def _iou_head(config: SamConfig) -> Work:
    C, width = config.decoder_dim, config.iou_head_dim
    inner = linear(1, width, width) * (config.iou_head_depth - 2)
    return linear(1, C, width) + inner + linear(1, width, config.multimask_outputs + 1)


def _tokens(config: SamConfig) -> int:
    return config.multimask_outputs + 2 + POINT_TOKENS


@dataclass(frozen=True, slots=True)
class MaskTraffic:
    """Bytes of post-processing: for every predicted mask, one above the IoU threshold, one that is also stable."""

    predicted: float
    above: float
    stable: float


def released_masks(config: SamConfig, image_hw: tuple[int, int]) -> MaskTraffic:
    """The released generator works on full-size float masks.

    predicted  two interpolations: m^2 read, S^2 written, its unpadded part read, h w written
    above      a copy (8 bytes a pixel), two cuts and their sums (12)
    stable     a copy (8), the binary mask (5), its box (2), transposition, changes and their places (7)
    """
    pixels, unpadded = image_hw[0] * image_hw[1], inside_square(image_hw) * config.input_side**2
    return MaskTraffic(
        predicted=FLOAT * (config.mask_side**2 + config.input_side**2 + unpadded + pixels),
        above=20 * pixels,
        stable=22 * pixels,
    )


def ours_masks(config: SamConfig, image_hw: tuple[int, int]) -> MaskTraffic:
    """Ours reads the low-resolution logits of a mask above the threshold once for its counts and box, and those of a
    mask that survives once more for its runs; what the boundary adds is measured, not counted."""
    cells = FLOAT * config.mask_side**2 * inside_square(image_hw)
    return MaskTraffic(predicted=0, above=cells, stable=cells)


def inside_square(image_hw: tuple[int, int]) -> float:
    """The share of the model's square input that an image of this size fills."""
    return min(image_hw) / max(image_hw)
