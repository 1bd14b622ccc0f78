# pyright: basic, reportGeneralTypeIssues=false
# Triton's language has its own types.
"""What the decoder's Triton kernels are made of: split products, and the rows and vectors of prompts. See
`decoder_kernels` for both, and for the letters.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def parts(x):
    """x as two of bfloat16, to be added."""
    high = x.to(tl.bfloat16)
    return high, (x - high.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def add_product(total, high, low, high2, low2):
    """total + (high + low) (high2 + low2), without the product of what rounding left."""
    total = tl.dot(low, high2, total)
    total = tl.dot(high, low2, total)
    return tl.dot(high, high2, total)


@triton.jit
def heads_apart(
    tokens, b, first, B, T: tl.constexpr, H: tl.constexpr, d: tl.constexpr, PROMPTS: tl.constexpr,
    HEADS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """(B, T, D) -> (PROMPTS HEADS TOKENS, HEADS d), zero outside a head's channels. Prompts from b on, heads from
    `first` on."""
    row, column = tl.arange(0, PROMPTS * HEADS * TOKENS)[:, None], tl.arange(0, HEADS * d)[None, :]
    t, prompt = row % TOKENS, b + row // (HEADS * TOKENS)
    there = (row // TOKENS % HEADS == column // d) & (t < T) & (prompt < B)
    return tl.load(tokens + (prompt * T + t) * (H * d) + first * d + column, mask=there, other=0.0)


@triton.jit
def vectors_of(
    vectors, b, first, B, T: tl.constexpr, E: tl.constexpr, TOKENS: tl.constexpr, R: tl.constexpr, RP: tl.constexpr,
    PROMPTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """(PROMPTS RP, WIDTH) of prompts from b on, from channel `first` on; RP is R or more."""
    row, channel = tl.arange(0, PROMPTS * RP)[:, None], first + tl.arange(0, WIDTH)[None, :]
    prompt, t = b + row // RP, row % TOKENS
    at = ((row % RP // TOKENS).to(tl.int64) * B + prompt) * T + t
    return tl.load(vectors + at * E + channel, mask=(row % RP < R) & (t < T) & (prompt < B), other=0.0)


@triton.jit
def of_prompts(scale, b, n, B, Q: tl.constexpr, N: tl.constexpr, PROMPTS: tl.constexpr, POSITIONS: tl.constexpr):
    """(Q, POSITIONS): the scale of each row's prompt."""
    prompt = tl.arange(0, Q)[:, None] // (Q // PROMPTS)
    found = tl.zeros([Q, POSITIONS], tl.float32)
    for i in tl.static_range(PROMPTS):
        value = tl.load(scale + (b + i) * N + n, mask=(n < N) & (b + i < B), other=1.0)
        found = tl.where(prompt == i, value[None, :], found)
    return found


@triton.jit
def rows_of(
    rows, b, n, B, N: tl.constexpr, R: tl.constexpr, ALL: tl.constexpr, RP: tl.constexpr, PROMPTS: tl.constexpr
):
    """(positions, PROMPTS RP)"""
    column = tl.arange(0, PROMPTS * RP)[None, :]
    prompt, r = b + column // RP, column % RP
    at = (prompt.to(tl.int64) * N + n[:, None]) * ALL + r
    return tl.load(rows + at, mask=(n < N)[:, None] & (r < R) & (prompt < B), other=0.0)


@triton.jit
def of_own(product, Q: tl.constexpr, RP: tl.constexpr, PROMPTS: tl.constexpr):
    """(Q, PROMPTS RP), zero where a row of one prompt meets another's."""
    if PROMPTS == 1:
        return product
    row, column = tl.arange(0, Q)[:, None], tl.arange(0, PROMPTS * RP)[None, :]
    return tl.where(row // (Q // PROMPTS) == column // RP, product, 0.0)


@triton.jit
def asked(
    tokens, vectors, b, first, B, factor, T: tl.constexpr, SEEN: tl.constexpr, H: tl.constexpr, d: tl.constexpr,
    E: tl.constexpr, R: tl.constexpr, TOKENS: tl.constexpr, ROW_TOKENS: tl.constexpr, RP: tl.constexpr,
    PROMPTS: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Tokens times `factor` in two parts (Q, HEADS d), and their products with their prompt's vectors (Q, PROMPTS RP):
    what is multiplied with the image's side of a position, and with its rows."""
    high, low = parts(heads_apart(tokens, b, first, B, T, H, d, PROMPTS, HEADS, TOKENS) * factor)
    own = tl.trans(vectors_of(vectors, b, first * d, B, SEEN, E, ROW_TOKENS, R, RP, PROMPTS, HEADS * d))
    own_high, own_low = parts(own)
    Q: tl.constexpr = PROMPTS * HEADS * TOKENS
    own = add_product(tl.zeros([Q, PROMPTS * RP], tl.float32), high, low, own_high, own_low)
    own_high, own_low = parts(of_own(own, Q, RP, PROMPTS))
    return high, low, own_high, own_low


@triton.jit
def scores_of(
    high, low, own_high, own_low, row_high, row_low, image_high, image_low, place_high, place_low, factors, at, here,
    Q: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """(Q, POSITIONS): of what `asked` gives, with the rows and the image's side at positions."""
    shared_high = tl.load(image_high + at, mask=here[None, :], other=0.0)
    shared_low = tl.load(image_low + at, mask=here[None, :], other=0.0)
    score = tl.zeros([Q, POSITIONS], tl.float32)
    score = add_product(score, own_high, own_low, tl.trans(row_high), tl.trans(row_low))
    score = add_product(score, high, low, shared_high, shared_low) * factors
    shared_high = tl.load(place_high + at, mask=here[None, :], other=0.0)
    shared_low = tl.load(place_low + at, mask=here[None, :], other=0.0)
    return add_product(score, high, low, shared_high, shared_low)
