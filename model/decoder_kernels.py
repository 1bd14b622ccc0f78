# pyright: basic, reportGeneralTypeIssues=false
# Triton's language has its own types.
"""Triton kernels of the decoder that pass over image positions, up to the scores. See `fused_decoder`.

Products are split: each operand is the sum of two bfloat16, x = h + l, and h h' + l h' + h l' is summed in float32.
What has a block for each head is one product over some of them, in which other heads' channels are zero.

rows     (B, N, R) bfloat16, twice: their values, and what rounding left. R is (layer, head, token) with `TOKENS`
         tokens, a power of two, of which those beyond T are zero
vectors  ((layer, head), B T, E) float32: what each row adds to a position, in the several projections of it
scale    (layers, B, N): what the LayerNorm after a layer multiplied by
linear   (layers, parts, B, N): the part of a layer's mean square that is linear in the rows, in parts to be added

Legend: B prompts, T tokens of a prompt, H heads, d channels a head, D = H d, N positions, R rows, C channels, E
channels of all projections, Q rows of a program, M masks, c channels of the upscaled image, g positions a side.
"""

from __future__ import annotations

import triton
import triton.language as tl

from model.row_functions import (
    add_product,
    asked,
    heads_apart,
    of_own,
    of_prompts,
    parts,
    rows_of,
    scores_of,
    vectors_of,
)


@triton.jit
def look_at_shared(
    queries, keys, values, out, M, factor,
    H: tl.constexpr, d: tl.constexpr, N: tl.constexpr,
    QUERIES: tl.constexpr, POSITIONS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Attention from tokens to the image as it is before any layer: the same for all prompts, so heads are apart.

    queries, out  (M, D), M = B T
    keys          (D, N)
    values        (H, N, d)
    WIDTH         d or more
    """
    m, h, c = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES), tl.program_id(1), tl.arange(0, WIDTH)
    mine = (m < M)[:, None] & (c < d)[None, :]
    at = m[:, None] * (H * d) + h * d + c[None, :]
    high, low = parts(tl.load(queries + at, mask=mine, other=0.0) * factor)
    best = tl.full([QUERIES], -1e30, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    seen = tl.zeros([QUERIES, WIDTH], tl.float32)
    for start in range(0, N, POSITIONS):
        n = start + tl.arange(0, POSITIONS)
        key = tl.load(keys + (h * d + c)[:, None] * N + n[None, :], mask=(c < d)[:, None] & (n < N)[None, :], other=0.0)
        key_high, key_low = parts(key)
        score = add_product(tl.zeros([QUERIES, POSITIONS], tl.float32), high, low, key_high, key_low)
        if N % POSITIONS:
            score = tl.where((n < N)[None, :], score, -1e30)
        now = tl.maximum(best, tl.max(score, 1))
        fade, share = tl.exp(best - now), tl.exp(score - now[:, None])
        best, total = now, total * fade + tl.sum(share, 1)
        there = (n < N)[:, None] & (c < d)[None, :]
        value = tl.load(values + (h * N + n)[:, None] * d + c[None, :], mask=there, other=0.0)
        share_high, share_low = parts(share)
        value_high, value_low = parts(value)
        seen = add_product(seen * fade[:, None], share_high, share_low, value_high, value_low)
    tl.store(out + at, seen / total[:, None], mask=mine)


@triton.jit
def answer_from_shared(
    keys, values, queries, outs_high, outs_low, square, shifts, rows_high, rows_low, linear, B, factor,
    T: tl.constexpr, H: tl.constexpr, d: tl.constexpr, N: tl.constexpr, R: tl.constexpr, LAYERS: tl.constexpr,
    PARTS: tl.constexpr, TOKENS: tl.constexpr, PROMPTS: tl.constexpr, POSITIONS: tl.constexpr, WIDTH: tl.constexpr,
    STACK: tl.constexpr,
):  # fmt: skip
    """The first layer's attention from image to tokens: its rows, and what they have to do with all layers' Y.

    A program does PROMPTS prompts at POSITIONS positions, head by head, since the image's side is the same for all.

    keys, values  (B, T, D)
    queries       (D, N)
    outs          (LAYERS, D, N) in two parts, square (LAYERS, N), shifts (LAYERS, N)
    STACK         LAYERS or more
    """
    n, c = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS), tl.arange(0, WIDTH)
    column = tl.arange(0, PROMPTS * TOKENS)
    b, t, first = tl.program_id(1) * PROMPTS + column // TOKENS, column % TOKENS, tl.program_id(1) * PROMPTS
    there, known = (n < N)[:, None], (c < d)
    mine = ((t < T) & (b < B))[None, :] & known[:, None]
    token = (b * T + t)[None, :] * (H * d) + c[:, None]
    to = (b.to(tl.int64)[None, :] * N + n[:, None]) * R + t[None, :]
    stack = tl.arange(0, STACK)[None, None, :]
    found = tl.zeros([POSITIONS, PROMPTS, STACK], tl.float32)
    for h in range(0, H):
        at = (h * d + c)[None, :] * N + n[:, None]
        high, low = parts(tl.load(queries + at, mask=there & known[None, :], other=0.0))
        key_high, key_low = parts(tl.load(keys + token + h * d, mask=mine, other=0.0) * factor)
        score = add_product(tl.zeros([POSITIONS, PROMPTS * TOKENS], tl.float32), high, low, key_high, key_low)
        score = tl.where((t < T)[None, :], score, -1e30)
        apart = tl.reshape(score, [POSITIONS, PROMPTS, TOKENS])
        apart = tl.exp(apart - tl.max(apart, 2)[:, :, None])
        apart = apart * (1.0 / tl.sum(apart, 2))[:, :, None]
        share_high, share_low = parts(tl.reshape(apart, [POSITIONS, PROMPTS * TOKENS]))
        tl.store(rows_high + to + h * TOKENS, share_high, mask=there & (b < B)[None, :])
        tl.store(rows_low + to + h * TOKENS, share_low, mask=there & (b < B)[None, :])
        value_high, value_low = parts(tl.load(values + token + h * d, mask=mine, other=0.0))
        for i in range(0, LAYERS):
            high = tl.load(outs_high + i * (H * d * N) + at, mask=there & known[None, :], other=0.0)
            low = tl.load(outs_low + i * (H * d * N) + at, mask=there & known[None, :], other=0.0)
            product = tl.zeros([POSITIONS, PROMPTS * TOKENS], tl.float32)
            product = add_product(product, high, low, value_high, value_low)
            new = tl.sum(tl.reshape(product, [POSITIONS, PROMPTS, TOKENS]) * apart, 2)
            found += tl.where(stack == i, new[:, :, None], 0.0)
    b = first + tl.arange(0, PROMPTS)
    i, there = tl.arange(0, STACK), (n < N)[:, None] & (tl.arange(0, STACK) < LAYERS)[None, :]
    own = tl.load(square + i[None, :] * N + n[:, None], mask=there, other=0.0)
    own += tl.load(shifts + i[None, :] * N + n[:, None], mask=there, other=0.0)
    to = (i[None, None, :] * (PARTS * B) + b[None, :, None]) * N + n[:, None, None]
    tl.store(linear + to, found + own[:, None, :], mask=there[:, None, :] & (b < B)[None, :, None])


@triton.jit
def measure(
    rows_high, rows_low, vectors, linear, before, scale, B, eps,
    T: tl.constexpr, C: tl.constexpr, E: tl.constexpr, N: tl.constexpr, R: tl.constexpr, ALL: tl.constexpr,
    LAYER: tl.constexpr, PARTS: tl.constexpr, TOKENS: tl.constexpr, RP: tl.constexpr, CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr, PER: tl.constexpr,
):  # fmt: skip
    """What the LayerNorm after layer LAYER multiplies by: from the rows' quadratic form, and the parts that are linear.

    A program does PER positions of a prompt.

    linear  (PARTS, B, N)
    before  (B, N), the scale of the layer before, if there is one
    R, ALL  rows up to this layer, and of all layers; RP is R or more
    """
    b = tl.program_id(0)
    r = tl.arange(0, RP)
    form = tl.zeros([RP, RP], tl.float32)
    # What is multiplied comes from the turn before: so it stays in shared memory, where registers would not do for it.
    own_high, own_low = parts(vectors_of(vectors, b, 0, B, T, E, TOKENS, R, RP, 1, CHANNELS))
    for first in tl.range(CHANNELS, C, CHANNELS, num_stages=2):
        form = add_product(form, own_high, own_low, tl.trans(own_high), tl.trans(own_low))
        own_high, own_low = parts(vectors_of(vectors, b, first, B, T, E, TOKENS, R, RP, 1, CHANNELS))
    form = add_product(form, own_high, own_low, tl.trans(own_high), tl.trans(own_low))
    form_high, form_low = parts(form / C)
    rows_high += b.to(tl.int64) * (N * ALL)
    rows_low += b.to(tl.int64) * (N * ALL)
    begin = tl.program_id(1) * PER
    for start in range(begin, tl.minimum(begin + PER, N), POSITIONS):
        n = start + tl.arange(0, POSITIONS)
        at = n[:, None] * ALL + r[None, :]
        there = (n < N)[:, None] & (r < R)[None, :]
        high, low = tl.load(rows_high + at, mask=there, other=0.0), tl.load(rows_low + at, mask=there, other=0.0)
        product = add_product(tl.zeros([POSITIONS, RP], tl.float32), high, low, form_high, form_low)
        square = tl.sum(product * (high.to(tl.float32) + low.to(tl.float32)), 1)
        for part in range(0, PARTS):
            square += tl.load(linear + (part * B + b) * N + n, mask=n < N, other=0.0)
        if LAYER > 0:
            factor = tl.load(before + b * N + n, mask=n < N, other=1.0)
            least = eps / (factor * factor)
        else:
            least = eps
        tl.store(scale + b * N + n, tl.rsqrt(tl.maximum(square, 0.0) + least), mask=n < N)


@triton.jit
def look(
    queries, keys_high, keys_low, place_high, place_low, values_high, values_low, vectors, rows_high, rows_low, scale,
    out, B, factor, value,
    T: tl.constexpr, H: tl.constexpr, d: tl.constexpr, E: tl.constexpr, N: tl.constexpr, R: tl.constexpr,
    ALL: tl.constexpr, SEEN: tl.constexpr, TOKENS: tl.constexpr, ROW_TOKENS: tl.constexpr,
    RP: tl.constexpr, PROMPTS: tl.constexpr, HEADS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Attention from T tokens to the image as a prompt sees it after R rows, in HEADS heads of PROMPTS prompts.

    What prompts have in common is loaded once for all of a program.

    keys, place  (D, N) in two parts
    values       (N, D) in two parts
    vectors      those of the keys' projection, and from channel `value` on those of the values'
    scale        (B, N)
    SEEN         T of the rows
    """
    b, first = tl.program_id(1) * PROMPTS, tl.program_id(0) * HEADS
    WIDTH: tl.constexpr = HEADS * d
    Q: tl.constexpr = PROMPTS * HEADS * TOKENS
    c = tl.arange(0, WIDTH)
    high, low, own_high, own_low = asked(
        queries, vectors, b, first, B, factor, T, SEEN, H, d, E, R, TOKENS, ROW_TOKENS, RP, PROMPTS, HEADS
    )
    best = tl.full([Q], -1e30, tl.float32)
    total = tl.zeros([Q], tl.float32)
    seen = tl.zeros([Q, WIDTH], tl.float32)
    of_rows = tl.zeros([Q, PROMPTS * RP], tl.float32)
    for start in range(0, N, POSITIONS):
        n = start + tl.arange(0, POSITIONS)
        here = n < N
        factors = of_prompts(scale, b, n, B, Q, N, PROMPTS, POSITIONS)
        row_high = rows_of(rows_high, b, n, B, N, R, ALL, RP, PROMPTS)
        row_low = rows_of(rows_low, b, n, B, N, R, ALL, RP, PROMPTS)
        at = (first * d + c)[:, None] * N + n[None, :]
        score = scores_of(
            high, low, own_high, own_low, row_high, row_low, keys_high, keys_low, place_high, place_low, factors, at,
            here, Q, POSITIONS,
        )  # fmt: skip
        if N % POSITIONS:
            score = tl.where(here[None, :], score, -1e30)
        now = tl.maximum(best, tl.max(score, 1))
        fade, share = tl.exp(best - now), tl.exp(score - now[:, None])
        best, total = now, total * fade + tl.sum(share, 1)
        share_high, share_low = parts(share * factors)
        at = n[:, None] * (H * d) + first * d + c[None, :]
        image_high = tl.load(values_high + at, mask=here[:, None], other=0.0)
        image_low = tl.load(values_low + at, mask=here[:, None], other=0.0)
        seen = add_product(seen * fade[:, None], share_high, share_low, image_high, image_low)
        of_rows = add_product(of_rows * fade[:, None], share_high, share_low, row_high, row_low)
    high, low = parts(of_own(of_rows, Q, RP, PROMPTS))
    own = vectors_of(vectors, b, value + first * d, B, SEEN, E, ROW_TOKENS, R, RP, PROMPTS, WIDTH)
    own_high, own_low = parts(own)
    seen = add_product(seen, high, low, own_high, own_low) * (1.0 / total)[:, None]
    row = tl.arange(0, Q)[:, None]
    t, prompt = row % TOKENS, b + row // (HEADS * TOKENS)
    to = (prompt * T + t) * (H * d) + first * d + c[None, :]
    tl.store(out + to, seen, mask=(row // TOKENS % HEADS == c[None, :] // d) & (t < T) & (prompt < B))


@triton.jit
def answer(
    keys, values, queries_high, queries_low, place_high, place_low, outs_high, outs_low, shifts, vectors,
    rows_high, rows_low, scale, linear, B, factor,
    T: tl.constexpr, H: tl.constexpr, d: tl.constexpr, E: tl.constexpr, N: tl.constexpr, R: tl.constexpr,
    ALL: tl.constexpr, LAYER: tl.constexpr, LAYERS: tl.constexpr, PARTS: tl.constexpr, TOKENS: tl.constexpr,
    RP: tl.constexpr, PROMPTS: tl.constexpr, HEADS: tl.constexpr, POSITIONS: tl.constexpr, PER: tl.constexpr,
):  # fmt: skip
    """A later layer's attention from image to tokens: see the first's.

    A program does PER positions in HEADS heads of PROMPTS prompts.

    queries, place  (D, N) in two parts
    outs            (LAYERS - LAYER, D, N) in two parts, shifts (LAYERS - LAYER, N)
    vectors         those of the queries' projection
    scale           (B, N)
    linear          (LAYERS - LAYER, this layer's parts, B, N): a view whose layers are PARTS apart
    R               rows so far; RP is R or more
    """
    b, group = tl.program_id(1) * PROMPTS, tl.program_id(0)
    first = group * HEADS
    WIDTH: tl.constexpr = HEADS * d
    Q: tl.constexpr = PROMPTS * HEADS * TOKENS
    c, q = tl.arange(0, WIDTH), tl.arange(0, Q)
    prompt = b + q // (HEADS * TOKENS)
    high, low, own_high, own_low = asked(
        keys, vectors, b, first, B, factor, T, T, H, d, E, R, TOKENS, TOKENS, RP, PROMPTS, HEADS
    )
    value_high, value_low = parts(heads_apart(values, b, first, B, T, H, d, PROMPTS, HEADS, TOKENS))
    begin = tl.program_id(2) * PER
    for start in range(begin, tl.minimum(begin + PER, N), POSITIONS):
        n = start + tl.arange(0, POSITIONS)
        here = n < N
        factors = of_prompts(scale, b, n, B, Q, N, PROMPTS, POSITIONS)
        row_high = rows_of(rows_high, b, n, B, N, R, ALL, RP, PROMPTS)
        row_low = rows_of(rows_low, b, n, B, N, R, ALL, RP, PROMPTS)
        at = (first * d + c)[:, None] * N + n[None, :]
        score = scores_of(
            high, low, own_high, own_low, row_high, row_low, queries_high, queries_low, place_high, place_low, factors,
            at, here, Q, POSITIONS,
        )  # fmt: skip
        score = tl.where((q % TOKENS < T)[:, None], score, -1e30)
        apart = tl.reshape(score, [PROMPTS * HEADS, TOKENS, POSITIONS])
        apart = tl.exp(apart - tl.max(apart, 1)[:, None, :])
        factors = tl.reshape(factors, [PROMPTS * HEADS, TOKENS, POSITIONS])
        row = tl.reshape(apart / (tl.sum(apart, 1)[:, None, :] * factors), [Q, POSITIONS])
        row_high, row_low = parts(row)
        to = (prompt.to(tl.int64)[:, None] * N + n[None, :]) * ALL + (R + first * TOKENS + q % (HEADS * TOKENS))[
            :, None
        ]
        tl.store(rows_high + to, row_high, mask=here[None, :] & (prompt < B)[:, None])
        tl.store(rows_low + to, row_low, mask=here[None, :] & (prompt < B)[:, None])
        for i in range(LAYER, LAYERS):
            image_high = tl.load(outs_high + (i - LAYER) * (H * d * N) + at, mask=here[None, :], other=0.0)
            image_low = tl.load(outs_low + (i - LAYER) * (H * d * N) + at, mask=here[None, :], other=0.0)
            product = tl.zeros([Q, POSITIONS], tl.float32)
            product = add_product(product, value_high, value_low, image_high, image_low) * row
            new = tl.sum(tl.reshape(product, [PROMPTS, HEADS * TOKENS, POSITIONS]), 1)
            p = b + tl.arange(0, PROMPTS)[:, None]
            there = here[None, :] & (p < B)
            if group == 0:
                before = tl.load(scale + p * N + n[None, :], mask=there, other=1.0)
                new += tl.load(shifts + (i - LAYER) * N + n, mask=here, other=0.0)[None, :] / before
            tl.store(linear + (((i - LAYER) * PARTS + group) * B + p) * N + n[None, :], new, mask=there)
