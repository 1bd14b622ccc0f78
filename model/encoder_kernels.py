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
    x, y, bias, weight, shift, out, places, placed, T, C, eps,
    ADDS: tl.constexpr, KEEPS: tl.constexpr, PLACES: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """LayerNorm of x as an operand, or of x + y + bias if it ADDS, which x becomes if it KEEPS it. If it PLACES, the
    same with `places` added is written too. A program does ROWS tokens.

    x               (T, C) float32; COLUMNS is C or more
    places, placed  (T, C) float32
    """
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    there = (row < T) & (column < C)
    at = row.to(tl.int64) * C + column
    value = tl.load(x + at, mask=there, other=0.0)
    if ADDS:
        value += tl.load(y + at, mask=there, other=0.0).to(tl.float32)
        value += tl.load(bias + column, mask=column < C, other=0.0)
        if KEEPS:
            tl.store(x + at, value, mask=there)
    centred = tl.where(there, value - (tl.sum(value, 1) / C)[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / C + eps)
    normal = centred * scale[:, None] * tl.load(weight + column, mask=column < C, other=0.0)
    normal += tl.load(shift + column, mask=column < C, other=0.0)
    _store_operand(out, row.to(tl.int64) * (PARTS * C) + column, normal, C, there, PARTS)
    if PLACES:
        tl.store(placed + at, normal + tl.load(places + at, mask=there, other=0.0), mask=there)


@triton.jit
def gelu(x):
    """Within 1e-7. The logarithm of erfc(s / sqrt(2)) / 2 to base 2 is a polynomial in s, fitted so that s times its
    power of 2 is off by 1e-8 at most. So there is no division, and a number takes two registers.
    """
    s = tl.abs(x)
    power = -1.902066e-06 * s + 2.805695e-05
    power = ((power * s - 0.0001314733) * s - 0.0002720756) * s + 0.007245421
    power = (((power * s - 0.05262761) * s - 0.4591621) * s - 1.151111) * s - 1.0
    return tl.maximum(x, 0.0) - s * tl.exp2(power)


@triton.jit(do_not_specialize=["T"])
def bias_and_gelu(x, bias, out, T, K, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """GELU of x + bias, (T, K), as an operand. A program does ROWS tokens in COLUMNS of their columns."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    there = (row < T) & (column < K)
    value = tl.load(x + row * K + column, mask=there, other=0.0).to(tl.float32)
    value += tl.load(bias + column, mask=column < K, other=0.0)
    _store_operand(out, row * (PARTS * K) + column, gelu(value), K, there, PARTS)


@triton.jit(do_not_specialize=["g", "factor"])
def relative_tables(
    qkv, rel_rows, rel_columns, by_row, by_column, g, factor,
    H: tl.constexpr, d: tl.constexpr, w: tl.constexpr, TOKENS: tl.constexpr, WINDOW: tl.constexpr, D: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What each query makes of the rows, and of the columns, of its window: (T, H, w) each, times `factor`.

    A program does TOKENS of one row, or of one column, of one head: they have the distances to all keys in common.
    """
    line, down = tl.program_id(0) // 2, tl.program_id(0) % 2
    b, h = tl.program_id(1) // H, tl.program_id(1) % H
    along = tl.program_id(2) * TOKENS + tl.arange(0, TOKENS)
    token = tl.where(down == 0, line * g + along, along * g + line)
    row = b.to(tl.int64) * g * g + token
    inside = along < g
    key, channel = tl.arange(0, WINDOW), tl.arange(0, D)
    at = (row * (3 * H * d) + h * d)[:, None] + channel[None, :]
    query = tl.load(qkv + at, mask=inside[:, None] & (channel < d)[None, :], other=0.0)
    at = (line % w - key + w - 1)[:, None] * d + channel[None, :]
    known = (key < w)[:, None] & (channel < d)[None, :]
    if down == 0:
        relative = tl.load(rel_rows + at, mask=known, other=0.0)
        table = by_row
    else:
        relative = tl.load(rel_columns + at, mask=known, other=0.0)
        table = by_column
    found = tl.dot(query, tl.trans(relative), input_precision=PRECISION) * factor
    to = (row * H + h)[:, None] * w + key[None, :]
    tl.store(table + to, found.to(by_row.dtype.element_ty), mask=inside[:, None] & (key < w)[None, :])


@triton.jit
def _asked(by_row, by_column, table, asks, of_padding, w: tl.constexpr, WIDTH: tl.constexpr, HOT: tl.constexpr):
    """(M, HOT): each query's tables side by side, its score of padding in two parts, and 1. See `_told`."""
    lane = tl.arange(0, HOT)[None, :]
    at, asks = table[:, None] + lane, asks[:, None]
    found = tl.load(by_row + at, mask=asks & (lane < w), other=0.0).to(tl.float32)
    second = (lane >= WIDTH) & (lane < WIDTH + w)
    found += tl.load(by_column + at - WIDTH, mask=asks & second, other=0.0).to(tl.float32)
    high = of_padding.to(by_row.dtype.element_ty).to(tl.float32)
    found += tl.where(lane == 2 * WIDTH, high[:, None], 0.0)
    found += tl.where(lane == 2 * WIDTH + 1, (of_padding - high)[:, None], 0.0)
    found += tl.where(lane == 2 * WIDTH + 2, 1.0, 0.0)
    return found.to(by_row.dtype.element_ty)


@triton.jit
def _told(ky, kx, real, inside, WIDTH: tl.constexpr, HOT: tl.constexpr):
    """(N, HOT): the product with `_asked` is what a key's score gains by its row, its column, and as padding.

    A key that is not `real` has the least score.
    """
    lane = tl.arange(0, HOT)[None, :]
    found = tl.where((lane == ky[:, None]) | (lane == kx[:, None] + WIDTH), 1.0, 0.0)
    padding = (lane == 2 * WIDTH) | (lane == 2 * WIDTH + 1)
    found = tl.where(padding, (real & (inside == 0)).to(tl.float32)[:, None], found)
    return tl.where(lane == 2 * WIDTH + 2, tl.where(real, 0.0, -1e30)[:, None], found)


@triton.jit(do_not_specialize=["g", "across", "scale"])
def attend(
    qkv, bias, by_row, by_column, out, g, across, scale,
    H: tl.constexpr, d: tl.constexpr, w: tl.constexpr, QUERY_ROWS: tl.constexpr, KEY_ROWS: tl.constexpr,
    WIDTH: tl.constexpr, D: tl.constexpr, HOT: tl.constexpr, PADDED: tl.constexpr, PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention of QUERY_ROWS rows of one window to all of it, for one head; `across` windows are beside each other.

    Queries, keys and values are read where the projection left them, and windows are cut by index. Keys and values are
    loaded without arithmetic, so that the next ones are on their way meanwhile. Tokens beyond the grid are keys and
    values of the bias alone, as in the released code, and never queries: their scores and their share of the sum are
    added. A block of keys is whole rows. Of one row, the table by column is one tile for all blocks; of several, what
    the tables add is a product with 0 and 1, since to pick it takes longer than all the rest.

    bias    of the projection (3 H d), where windows are PADDED
    scale   of scores, times log2(e), since powers of 2 are one instruction
    tables  times log2(e) for one row, and divided by what d is in `scale` for several
    WIDTH   w or more; a row of a window takes so many lanes
    D       d or more. 80 channels take 128: on Hopper, products 16 or 32 wide read beyond their memory (Triton 3.6.0)
    HOT     2 WIDTH + 3 or more, where KEY_ROWS are several
    """
    block, window = tl.program_id(0), tl.program_id(1)
    b, h = tl.program_id(2) // H, tl.program_id(2) % H
    top, left = window // across * w, window % across * w
    M: tl.constexpr = QUERY_ROWS * WIDTH
    N: tl.constexpr = KEY_ROWS * WIDTH
    m, n, channel = tl.arange(0, M), tl.arange(0, N), tl.arange(0, D)
    y, x = block * QUERY_ROWS + m // WIDTH, m % WIDTH
    down, kx = n // WIDTH, n % WIDTH
    asks = (y < w) & (x < w) & (top + y < g) & (left + x < g)
    known = (channel < d)[None, :]
    width, K = 3 * H * d, H * d
    first = b.to(tl.int64) * g * g
    qkv += first * width + h * d
    by_row += first * (H * w)
    by_column += first * (H * w)
    out += first * (PARTS * K)
    query = (top + y) * g + left + x
    q = tl.load(qkv + query[:, None] * width + channel[None, :], mask=asks[:, None] & known, other=0.0)
    table = (query * H + h) * w
    best = tl.full([M], -1e30, tl.float32)
    total = tl.zeros([M], tl.float32)
    beyond = tl.zeros([M], tl.float32)
    found = tl.zeros([M, D], tl.float32)
    of_padding = tl.zeros([M], tl.float32)
    if PADDED:
        padding = tl.load(bias + (H + h) * d + channel, mask=channel < d, other=0.0)
        of_padding = tl.sum(q.to(tl.float32) * padding[None, :], 1)
    if KEY_ROWS == 1:
        columns = tl.load(by_column + table[:, None] + kx[None, :], mask=asks[:, None] & (kx < w)[None, :], other=0.0)
    else:
        asked = _asked(by_row, by_column, table, asks, of_padding, w, WIDTH, HOT)
    for start in range(0, w, KEY_ROWS):
        ky = start + down
        real = (ky < w) & (kx < w)
        inside = real & (top + ky < g) & (left + kx < g)
        key = (((top + ky) * g + left + kx) * width)[:, None] + channel[None, :]
        there = inside[:, None] & known
        k = tl.load(qkv + H * d + key, mask=there, other=0.0)
        v = tl.load(qkv + 2 * H * d + key, mask=there, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if KEY_ROWS == 1:
            rows = tl.load(by_row + table + start, mask=asks, other=0.0)[:, None]
            scores = scores * scale + columns.to(tl.float32) + rows.to(tl.float32)
            if PADDED:
                scores += tl.where((real & (inside == 0))[None, :], of_padding[:, None] * scale, 0.0)
            if w != WIDTH:
                scores = tl.where(real[None, :], scores, -1e30)
        else:
            told = _told(ky, kx, real, inside, WIDTH, HOT).to(q.dtype)
            scores = tl.dot(asked, tl.trans(told), scores, input_precision=PRECISION) * scale
        now = tl.maximum(best, tl.max(scores, 1))
        fade, share = tl.exp2(best - now), tl.exp2(scores - now[:, None])
        total = total * fade + tl.sum(share, 1)
        best = now
        if PADDED:
            beyond = beyond * fade + tl.sum(tl.where((real & (inside == 0))[None, :], share, 0.0), 1)
        found = tl.dot(share.to(v.dtype), v, found * fade[:, None], input_precision=PRECISION)
    if PADDED:
        padding = tl.load(bias + (2 * H + h) * d + channel, mask=channel < d, other=0.0)
        found += beyond[:, None] * padding[None, :]
    to = query[:, None] * (PARTS * K) + h * d + channel[None, :]
    _store_operand(out, to, found / total[:, None], K, asks[:, None] & known, PARTS)


@triton.jit(do_not_specialize=["stride", "W", "width", "taps"])
def resize_rows(image, stride, first, weight, out, W, width, taps, COLUMNS: tl.constexpr):
    """`resize._resample` along rows of (H, W, 3) bytes, to (H, width, 3). A program does COLUMNS numbers of one row.

    stride  from a row of the image to the next one
    """
    y, i = tl.program_id(0).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = i < 3 * width
    x, channel = i // 3, i % 3
    start = tl.load(first + x, mask=there, other=0)
    total = tl.zeros([COLUMNS], tl.int32) + 2097152  # a half, of 22 bits of fraction
    for tap in range(0, taps):
        at = y * stride + tl.minimum(start + tap, W - 1) * 3 + channel
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
