# pyright: basic
# Triton's language has its own types.
"""Triton kernels of the image encoder: its input, and everything between its matrix products.

What is handed to the next product is written as that takes it (`fused_encoder`): rounded to its type, or for split
products the rounded value, what rounding left, and the rounded value again, side by side. All sums are in float32.
Legend: T tokens, C channels, K columns of an operand, g tokens a side, w tokens a side of a window, H heads, d channels
a head.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _store_operand(out, at, value, K, there, PARTS: tl.constexpr):
    """At `at`, of a row of PARTS x K."""
    high = value.to(out.dtype.element_ty)
    tl.store(out + at, high, mask=there)
    if PARTS == 3:
        low = (value - high.to(tl.float32)).to(out.dtype.element_ty)
        tl.store(out + at + K, low, mask=there)
        tl.store(out + at + 2 * K, high, mask=there)


@triton.jit(do_not_specialize=["T", "eps"])
def add_and_norm(
    x, y, bias, weight, shift, out, T, C, eps,
    ADDS: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """x += y + bias if it ADDS; then LayerNorm of x as an operand. A program does ROWS tokens.

    x  (T, C) float32; COLUMNS is C or more
    """
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    there = (row < T) & (column < C)
    at = row.to(tl.int64) * C + column
    value = tl.load(x + at, mask=there, other=0.0)
    if ADDS:
        value += tl.load(y + at, mask=there, other=0.0).to(tl.float32)
        value += tl.load(bias + column, mask=column < C, other=0.0)
        tl.store(x + at, value, mask=there)
    centred = tl.where(there, value - (tl.sum(value, 1) / C)[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / C + eps)
    normal = centred * scale[:, None] * tl.load(weight + column, mask=column < C, other=0.0)
    normal += tl.load(shift + column, mask=column < C, other=0.0)
    _store_operand(out, row.to(tl.int64) * (PARTS * C) + column, normal, C, there, PARTS)


@triton.jit(do_not_specialize=["T"])
def bias_and_gelu(x, bias, out, T, K, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """GELU of x + bias, (T, K), as an operand. A program does ROWS tokens in COLUMNS of their columns."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    there = (row < T) & (column < K)
    value = tl.load(x + row * K + column, mask=there, other=0.0).to(tl.float32)
    value += tl.load(bias + column, mask=column < K, other=0.0)
    value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    _store_operand(out, row * (PARTS * K) + column, value, K, there, PARTS)


@triton.jit
def _channels(qkv, at, inside, bias, real, d, FIRST: tl.constexpr, D: tl.constexpr):
    """(tokens, D) channels from FIRST on, with their bias, which is all that a token beyond the grid has."""
    channel = FIRST + tl.arange(0, D)
    known = (channel < d)[None, :]
    value = tl.load(qkv + at[:, None] + channel[None, :], mask=inside[:, None] & known, other=0.0)
    shift = tl.load(bias + channel[None, :], mask=real[:, None] & known, other=0.0)
    # The sum in float32: interpreted, bfloat16 would be added as whole numbers.
    return (value.to(tl.float32) + shift).to(qkv.dtype.element_ty)


@triton.jit(do_not_specialize=["g"])
def relative_tables(
    qkv, bias, rel_rows, rel_columns, by_row, by_column, g,
    H: tl.constexpr, d: tl.constexpr, w: tl.constexpr, TOKENS: tl.constexpr, WINDOW: tl.constexpr, D: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What each query makes of the rows, and of the columns, of its window: (T, H, w) each.

    A program does TOKENS of one row, or of one column, of one head: they have the distances to all keys in common.
    """
    line, down = tl.program_id(0) // 2, tl.program_id(0) % 2
    b, h = tl.program_id(1) // H, tl.program_id(1) % H
    along = tl.program_id(2) * TOKENS + tl.arange(0, TOKENS)
    token = tl.where(down == 0, line * g + along, along * g + line)
    row = b.to(tl.int64) * g * g + token
    inside = along < g
    query = _channels(qkv, row * (3 * H * d) + h * d, inside, bias + h * d, inside, d, 0, D)
    key, channel = tl.arange(0, WINDOW), tl.arange(0, D)
    at = (line % w - key + w - 1)[:, None] * d + channel[None, :]
    known = (key < w)[:, None] & (channel < d)[None, :]
    if down == 0:
        relative = tl.load(rel_rows + at, mask=known, other=0.0)
        table = by_row
    else:
        relative = tl.load(rel_columns + at, mask=known, other=0.0)
        table = by_column
    found = tl.dot(query, tl.trans(relative), input_precision=PRECISION)
    to = (row * H + h)[:, None] * w + key[None, :]
    tl.store(table + to, found.to(by_row.dtype.element_ty), mask=inside[:, None] & (key < w)[None, :])


@triton.jit(do_not_specialize=["g", "across", "scale"])
def attend(
    qkv, bias, by_row, by_column, out, g, across, scale,
    H: tl.constexpr, d: tl.constexpr, w: tl.constexpr, QUERY_ROWS: tl.constexpr, KEY_ROWS: tl.constexpr,
    WIDTH: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention of QUERY_ROWS rows of one window to all of it, for one head; `across` windows are beside each other.

    Queries, keys and values are read where the projection left them, and windows are cut by index. Tokens beyond the
    grid are keys and values of the bias alone, as in the released code, and never queries. A block of keys is whole
    rows, so that the bias by column is one tile for all of them, and that by row one number for a query and a row.

    WIDTH   w or more; a row of a window takes so many lanes
    D1, D2  together d or more: 80 channels as 64 and 16 instead of 128
    """
    block, window = tl.program_id(0), tl.program_id(1)
    b, h = tl.program_id(2) // H, tl.program_id(2) % H
    top, left = window // across * w, window % across * w
    M: tl.constexpr = QUERY_ROWS * WIDTH
    N: tl.constexpr = KEY_ROWS * WIDTH
    m, n, lane, down = tl.arange(0, M), tl.arange(0, N), tl.arange(0, WIDTH), tl.arange(0, KEY_ROWS)
    y, x = block * QUERY_ROWS + m // WIDTH, m % WIDTH
    asks = (y < w) & (x < w) & (top + y < g) & (left + x < g)
    width, K = 3 * H * d, H * d
    first = b.to(tl.int64) * g * g
    qkv += first * width
    by_row += first * (H * w)
    by_column += first * (H * w)
    out += first * (PARTS * K)
    query = (top + y) * g + left + x
    at = query * width + h * d
    q1 = _channels(qkv, at, asks, bias + h * d, asks, d, 0, D1)
    if D2:
        q2 = _channels(qkv, at, asks, bias + h * d, asks, d, D1, D2)
    table = ((query * H + h) * w)[:, None]
    best = tl.full([M], -1e30, tl.float32)
    total = tl.zeros([M], tl.float32)
    sum1 = tl.zeros([M, D1], tl.float32)
    if D2:
        sum2 = tl.zeros([M, D2], tl.float32)
    for start in range(0, w, KEY_ROWS):
        ky, kx = start + n // WIDTH, n % WIDTH
        real = (ky < w) & (kx < w)
        inside = real & (top + ky < g) & (left + kx < g)
        key = ((top + ky) * g + left + kx) * width + (H + h) * d
        k1 = _channels(qkv, key, inside, bias + (H + h) * d, real, d, 0, D1)
        scores = tl.dot(q1, tl.trans(k1), input_precision=PRECISION)
        if D2:
            k2 = _channels(qkv, key, inside, bias + (H + h) * d, real, d, D1, D2)
            scores = tl.dot(q2, tl.trans(k2), scores, input_precision=PRECISION)
        columns = tl.load(by_column + table + lane[None, :], mask=asks[:, None] & (lane < w)[None, :], other=0.0)
        row = start + down
        rows = tl.load(by_row + table + row[None, :], mask=asks[:, None] & (row < w)[None, :], other=0.0)
        both = tl.reshape(rows.to(tl.float32)[:, :, None] + columns.to(tl.float32)[:, None, :], [M, N])
        scores = scores * scale + both
        if WIDTH * (w // KEY_ROWS) * KEY_ROWS != w * w:
            scores = tl.where(real[None, :], scores, -1e30)
        now = tl.maximum(best, tl.max(scores, 1))
        fade, share = tl.exp(best - now), tl.exp(scores - now[:, None])
        total = total * fade + tl.sum(share, 1)
        best = now
        key += H * d
        v1 = _channels(qkv, key, inside, bias + (2 * H + h) * d, real, d, 0, D1)
        sum1 = tl.dot(share.to(v1.dtype), v1, sum1 * fade[:, None], input_precision=PRECISION)
        if D2:
            v2 = _channels(qkv, key, inside, bias + (2 * H + h) * d, real, d, D1, D2)
            sum2 = tl.dot(share.to(v2.dtype), v2, sum2 * fade[:, None], input_precision=PRECISION)
    to = (query * (PARTS * K) + h * d)[:, None]
    channel = tl.arange(0, D1)[None, :]
    _store_operand(out, to + channel, sum1 / total[:, None], K, asks[:, None] & (channel < d), PARTS)
    if D2:
        channel = D1 + tl.arange(0, D2)[None, :]
        _store_operand(out, to + channel, sum2 / total[:, None], K, asks[:, None] & (channel < d), PARTS)


@triton.jit(do_not_specialize=["W", "width", "taps"])
def resize_rows(image, first, weight, out, W, width, taps, COLUMNS: tl.constexpr):
    """`resize._resample` along rows of (H, W, 3) bytes, to (H, width, 3). A program does COLUMNS numbers of one row."""
    y, i = tl.program_id(0).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = i < 3 * width
    x, channel = i // 3, i % 3
    start = tl.load(first + x, mask=there, other=0)
    total = tl.zeros([COLUMNS], tl.int32) + 2097152  # a half, of 22 bits of fraction
    for tap in range(0, taps):
        at = y * W * 3 + tl.minimum(start + tap, W - 1) * 3 + channel
        pixel = tl.load(image + at, mask=there, other=0).to(tl.int32)
        total += pixel * tl.load(weight + x * taps + tap, mask=there, other=0)
    value = tl.minimum(tl.maximum(total >> 22, 0), 255)
    tl.store(out + y * width * 3 + i, value.to(tl.uint8), mask=there)


@triton.jit(do_not_specialize=["H", "width", "height", "S", "taps"])
def resize_columns_and_standardise(
    image, first, weight, mean, std, out, H, width, height, S, taps, COLUMNS: tl.constexpr
):  # fmt: skip
    """The same along columns of (H, width, 3), then `Sam.normalise`: (3, S, S) float32. A program does part of one."""
    y, x = tl.program_id(0).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = (x < width) & (y < height)
    start = tl.load(first + tl.minimum(y, height - 1))
    for channel in range(0, 3):
        total = tl.zeros([COLUMNS], tl.int32) + 2097152
        for tap in range(0, taps):
            at = (tl.minimum(start + tap, H - 1) * width + x) * 3 + channel
            pixel = tl.load(image + at, mask=there, other=0).to(tl.int32)
            total += pixel * tl.load(weight + tl.minimum(y, height - 1) * taps + tap)
        value = tl.minimum(tl.maximum(total >> 22, 0), 255).to(tl.float32)
        # Rounded as torch rounds it; the plain division of a GPU is not.
        deviation = tl.load(std + channel) + tl.zeros([COLUMNS], tl.float32)
        standard = tl.div_rn(value - tl.load(mean + channel), deviation)
        tl.store(out + (channel * S + y) * S + x, tl.where(there, standard, 0.0), mask=x < S)
