# pyright: basic, reportGeneralTypeIssues=false
# Triton's language has its own types.
"""The Triton kernel that forms masks: upscaling and logits of a prompt, from its rows. See `decoder_kernels`.

Legend: B prompts, T tokens of a prompt, N positions, R rows, M masks, K and c channels after the first and the second
upscaling convolution, g positions a side.
"""

from __future__ import annotations

import triton
import triton.language as tl

from model.encoder_kernels import gelu
from model.row_functions import add_product, parts, vectors_of


@triton.jit
def _some_columns(high, low, first, rows, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """Of a matrix of WIDTH columns in two parts."""
    at = rows[:, None] * WIDTH + first + tl.arange(0, COLUMNS)[None, :]
    return tl.load(high + at), tl.load(low + at)


@triton.jit
def _weights(hyper, first, M: tl.constexpr, c: tl.constexpr, CHANNELS: tl.constexpr, MASKS: tl.constexpr):
    """(CHANNELS, 4 MASKS) in two parts, from channel `first` of (4, c) on: the masks' weights, each cell's apart."""
    j, column = first + tl.arange(0, CHANNELS)[:, None], tl.arange(0, 4 * MASKS)[None, :]
    chosen = (column % MASKS < M) & (column // MASKS == j // c)
    return parts(tl.load(hyper + column % MASKS * c + j % c, mask=chosen, other=0.0))


@triton.jit
def _finer(
    high, low, second_high, second_low, second_shift, place,
    FINE: tl.constexpr, c: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """(POSITIONS, CHANNELS) in two parts: the second convolution and its GELU. With FINE maps `place` is their row."""
    j = tl.arange(0, CHANNELS)
    finer = add_product(tl.zeros([POSITIONS, CHANNELS], tl.float32), high, low, second_high, second_low)
    if FINE:
        finer += tl.load(second_shift + (place[:, None] * (4 * c) + j[None, :]))
    else:
        finer += tl.load(second_shift + j)[None, :]
    return parts(gelu(finer))


@triton.jit(do_not_specialize=["height", "width"])
def form_masks(
    live, rows_high, rows_low, scale, vectors, shared, first_shift, norm_weight, norm_bias,
    second_high, second_low, second_shift, hyper, out, B, height, width, eps,
    T: tl.constexpr, E: tl.constexpr, N: tl.constexpr, g: tl.constexpr, R: tl.constexpr, M: tl.constexpr,
    K: tl.constexpr, c: tl.constexpr, FINE: tl.constexpr, TOKENS: tl.constexpr, RP: tl.constexpr,
    MASKS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Logits of all masks of a prompt, at POSITIONS of the first height x width positions, if one of them is live.

    What follows the second convolution is done for half of its channels at once, if that is 64 or more: registers do
    not do for all. To need fewer masks and addresses, positions beyond the last one are that one again.

    live           (B, M) bytes
    scale          (B, N), of the last layer
    shared         (N, 4 K)
    first_shift    (4 K), or with FINE maps (N, 4 K)
    vectors        ((layer, head), B T, E), whose first 4 K channels are what each row adds to the first convolution
    second         (K, 4 c)
    second_shift   (4 c), or with FINE maps (N, 4, 4 c)
    hyper          (B, M, c)
    out            (B, M, 4 g, 4 g)
    K, c           channels after the first and the second convolution
    MASKS          M or more
    """
    b = tl.program_id(1)
    m = tl.arange(0, MASKS)
    if tl.max(tl.load(live + b * M + m, mask=m < M, other=0).to(tl.int32), 0) == 0:
        return
    place = tl.minimum(tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS), height * width - 1)
    y, x = place // width, place % width
    n, r, k = y * g + x, tl.arange(0, RP), tl.arange(0, K)
    factors = tl.load(scale + b * N + n)[:, None]
    at = (b.to(tl.int64) * N + n[:, None]) * R + r[None, :]
    row_high = tl.load(rows_high + at, mask=(r < R)[None, :], other=0.0)
    row_low = tl.load(rows_low + at, mask=(r < R)[None, :], other=0.0)
    HALF: tl.constexpr = 2 * c if 4 * c >= 128 else 4 * c
    hyper += b * M * c
    left_high, left_low = _some_columns(second_high, second_low, 0, k, 4 * c, HALF)
    left_weight_high, left_weight_low = _weights(hyper, 0, M, c, HALF, MASKS)
    if 4 * c > HALF:
        right_high, right_low = _some_columns(second_high, second_low, HALF, k, 4 * c, HALF)
        right_weight_high, right_weight_low = _weights(hyper, HALF, M, c, HALF, MASKS)
    column = tl.arange(0, 4 * MASKS)[None, :]
    mask_of, cell_of = column % MASKS, column // MASKS
    corner = 16 * g * y + 4 * x
    of_column = mask_of * (16 * g * g) + cell_of // 2 * (4 * g) + cell_of % 2
    out += b.to(tl.int64) * (M * 16 * g * g)
    for cell in range(0, 4):
        # Split between the products, of which the last needs what is left: fewer registers than split before.
        each = vectors_of(vectors, b, cell * K, B, T, E, TOKENS, R, RP, 1, K)
        high = each.to(tl.bfloat16)
        first = tl.dot(row_low, high, tl.zeros([POSITIONS, K], tl.float32))
        first = tl.dot(row_high, high, first)
        first = tl.dot(row_high, (each - high.to(tl.float32)).to(tl.bfloat16), first)
        # Rows of (4 N, K): so written, an address is made of one register when it is needed.
        row = n * 4 + cell
        first += tl.load(shared + (row[:, None] * K + k[None, :]))
        first *= factors
        if FINE:
            first += tl.load(first_shift + (row[:, None] * K + k[None, :]))
        else:
            first += tl.load(first_shift + cell * K + k)[None, :]
        first -= (tl.sum(first, 1) / K)[:, None]
        first *= (1.0 / tl.sqrt(tl.sum(first * first, 1) / K + eps))[:, None]
        # Numbers of a column are many registers: they are asked for again each time.
        high, low = parts(gelu(first * tl.load(norm_weight + k)[None, :] + tl.load(norm_bias + k)[None, :]))
        finer_high, finer_low = _finer(high, low, left_high, left_low, second_shift, row, FINE, c, POSITIONS, HALF)
        logits = tl.zeros([POSITIONS, 4 * MASKS], tl.float32)
        logits = add_product(logits, finer_high, finer_low, left_weight_high, left_weight_low)
        if 4 * c > HALF:
            finer_high, finer_low = _finer(
                high, low, right_high, right_low, second_shift + HALF, row, FINE, c, POSITIONS, HALF
            )
            logits = add_product(logits, finer_high, finer_low, right_weight_high, right_weight_low)
        to = corner[:, None] + (cell // 2 * (8 * g) + cell % 2 * 2) + of_column
        tl.store(out + to, logits, mask=mask_of < M)
