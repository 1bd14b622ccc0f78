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


@triton.jit(do_not_specialize=["height", "width"])
def form_masks(
    live, rows_high, rows_low, scale, vectors, shared, first_shift, norm_weight, norm_bias,
    second_high, second_low, second_shift, hyper, out, B, height, width, eps,
    T: tl.constexpr, E: tl.constexpr, N: tl.constexpr, g: tl.constexpr, R: tl.constexpr, M: tl.constexpr,
    K: tl.constexpr, c: tl.constexpr, FINE: tl.constexpr, TOKENS: tl.constexpr, RP: tl.constexpr,
    MASKS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Logits of all masks of a prompt, at POSITIONS of the first height x width positions, if one of them is live.

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
    place = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    here = place < height * width
    y, x = place // width, place % width
    n, r, k, j = y * g + x, tl.arange(0, RP), tl.arange(0, K), tl.arange(0, 4 * c)
    factors = tl.load(scale + b * N + n, mask=here, other=0.0)[:, None]
    at = (b.to(tl.int64) * N + n[:, None]) * R + r[None, :]
    there = here[:, None] & (r < R)[None, :]
    row_high, row_low = tl.load(rows_high + at, mask=there, other=0.0), tl.load(rows_low + at, mask=there, other=0.0)
    second_high = tl.load(second_high + k[:, None] * (4 * c) + j[None, :])
    second_low = tl.load(second_low + k[:, None] * (4 * c) + j[None, :])
    column = tl.arange(0, 4 * MASKS)[None, :]
    mask_of, cell_of = column % MASKS, column // MASKS
    chosen = (mask_of < M) & (cell_of == j[:, None] // c)
    weight = tl.load(hyper + (b * M + mask_of) * c + j[:, None] % c, mask=chosen, other=0.0)
    weight_high, weight_low = parts(weight)
    for cell in range(0, 4):
        # Split between the products, of which the last needs what is left: fewer spills than split before.
        each = vectors_of(vectors, b, cell * K, B, T, E, TOKENS, R, RP, 1, K)
        high = each.to(tl.bfloat16)
        first = tl.dot(row_low, high, tl.zeros([POSITIONS, K], tl.float32))
        first = tl.dot(row_high, high, first)
        first = tl.dot(row_high, (each - high.to(tl.float32)).to(tl.bfloat16), first)
        first += tl.load(shared + n[:, None] * (4 * K) + cell * K + k[None, :], mask=here[:, None], other=0.0)
        first *= factors
        if FINE:
            first += tl.load(first_shift + n[:, None] * (4 * K) + cell * K + k[None, :], mask=here[:, None], other=0.0)
        else:
            first += tl.load(first_shift + cell * K + k)[None, :]
        first -= (tl.sum(first, 1) / K)[:, None]
        first *= (1.0 / tl.sqrt(tl.sum(first * first, 1) / K + eps))[:, None]
        # Numbers of a column are many registers: they are asked for again each time.
        high, low = parts(gelu(first * tl.load(norm_weight + k)[None, :] + tl.load(norm_bias + k)[None, :]))
        finer = add_product(tl.zeros([POSITIONS, 4 * c], tl.float32), high, low, second_high, second_low)
        if FINE:
            finer_at = (n[:, None] * 4 + cell) * (4 * c) + j[None, :]
            finer += tl.load(second_shift + finer_at, mask=here[:, None], other=0.0)
        else:
            finer += tl.load(second_shift + j)[None, :]
        high, low = parts(gelu(finer))
        logits = add_product(tl.zeros([POSITIONS, 4 * MASKS], tl.float32), high, low, weight_high, weight_low)
        row = 4 * y[:, None] + 2 * (cell // 2) + cell_of // 2
        to = row * (4 * g) + 4 * x[:, None] + 2 * (cell % 2) + cell_of % 2
        to += (b.to(tl.int64) * M + mask_of) * (16 * g * g)
        tl.store(out + to, logits, mask=here[:, None] & (mask_of < M))
