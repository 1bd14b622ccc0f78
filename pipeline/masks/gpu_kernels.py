# pyright: basic
# Triton's language has its own types.
"""Triton kernels: counts, boxes and runs of masks at full size, from low-resolution logits, none of it ever in memory.

The arithmetic is that of `tiles`, operation by operation: compile with `enable_fp_fusion=False`. As there, tiles of
pixels whose cells all lie on one side of a cut are decided without their values. Tiles are equal squares here, and
`decide_tiles` marks each with what is known of it, a byte. In the kernels that evaluate pixels that would take more
registers than there are: 255 and spills, on sm_90.

A row of a launch's first axis is one mask: `index` says in which slot its logits are, and -1 that it is not wanted, so
that its programs return at once. Nothing is left to the host to know. Only integers are summed, so no order matters.
Legend: H W pixels of the crop. `y_cell` and `y_weight` are of `on_gpu.Geometry`, (4, H) and (6, H).
"""

from __future__ import annotations

import triton
import triton.language as tl

CUT: tl.constexpr = tl.constexpr(1)
CUT_AT_0: tl.constexpr = tl.constexpr(2)
TIGHT: tl.constexpr = tl.constexpr(4)
LOOSE: tl.constexpr = tl.constexpr(8)
INSIDE: tl.constexpr = tl.constexpr(16)
"""What is known of a tile: some cut may run through it, the one at 0 may; all its pixels are above +offset, -offset, 0.
"""
ROUNDING: tl.constexpr = tl.constexpr(2e-6)
"""See `tiles`; a test holds the two equal."""


@triton.jit
def _mixed(top_left, top_right, low_left, low_right, upper, lower, left, right):
    """One bilinear step, in the order of `tiles`."""
    value = tl.fma(top_left, upper * left, top_right * (upper * right))
    value = tl.fma(low_left, lower * left, value)
    return tl.fma(low_right, lower * right, value)


@triton.jit
def _line(cell, weight, at, length):
    """What is known of lines `at` of an axis of that many: four cells and six weights (`on_gpu.Lines`)."""
    return (
        tl.load(cell + at),
        tl.load(cell + length + at),
        tl.load(cell + 2 * length + at),
        tl.load(cell + 3 * length + at),
        tl.load(weight + at),
        tl.load(weight + length + at),
        tl.load(weight + 2 * length + at),
        tl.load(weight + 3 * length + at),
        tl.load(weight + 4 * length + at),
        tl.load(weight + 5 * length + at),
    )


@triton.jit
def _square(cells, stride, y0, y1, upper, lower, x0, x1, left, right):
    """The model's square at one of its rows and one of its columns for each pixel."""
    return _mixed(
        tl.load(cells + y0 * stride + x0),
        tl.load(cells + y0 * stride + x1),
        tl.load(cells + y1 * stride + x0),
        tl.load(cells + y1 * stride + x1),
        upper,
        lower,
        left,
        right,
    )


@triton.jit
def _pixels(cells, stride, y, x):
    """The pixels at the lines `y`, of (R, 1), and `x`, of (1, C)."""
    ya0, ya1, yb0, yb1, ua, la, ub, lb, upper, lower = y
    xa0, xa1, xb0, xb1, fa, ra, fb, rb, left, right = x
    return _mixed(
        _square(cells, stride, ya0, ya1, ua, la, xa0, xa1, fa, ra),
        _square(cells, stride, ya0, ya1, ua, la, xb0, xb1, fb, rb),
        _square(cells, stride, yb0, yb1, ub, lb, xa0, xa1, fa, ra),
        _square(cells, stride, yb0, yb1, ub, lb, xb0, xb1, fb, rb),
        upper,
        lower,
        left,
        right,
    )


@triton.jit
def _undecided(low, high, cut):
    return ((low > cut) | (high <= cut)) == 0


@triton.jit(do_not_specialize=["offset", "slot_cells", "stride", "rows_under", "H", "W"])
def decide_tiles(
    logits, slot_cells, stride, index, kinds, offset, rows_under, y_cell, H, x_cell, W,
    SIDE: tl.constexpr, UNDER: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """For TILES tiles of SIDE x SIDE pixels: the least and the largest of the cells beneath, rounding included.

    rows_under  rows of cells beneath a tile, at most
    UNDER       columns likewise
    """
    slot = tl.load(index + tl.program_id(0)).to(tl.int64)
    if slot >= 0:
        across = tl.cdiv(W, SIDE)
        tiles = across * tl.cdiv(H, SIDE)
        tile = tl.program_id(1) * TILES + tl.arange(0, TILES)
        there = tl.minimum(tile, tiles - 1)
        top, left = there // across * SIDE, there % across * SIDE
        first_y, first_x = tl.load(y_cell + top), tl.load(x_cell + left)
        last_y = tl.load(y_cell + 3 * H + tl.minimum(top + SIDE, H) - 1)
        last_x = tl.load(x_cell + 3 * W + tl.minimum(left + SIDE, W) - 1)
        cells = logits + slot * slot_cells
        column = tl.minimum(first_x[:, None] + tl.arange(0, UNDER)[None, :], last_x[:, None])
        least = tl.load(cells + first_y[:, None] * stride + column)
        most = least
        for down in range(1, rows_under):
            row = tl.minimum(first_y + down, last_y)
            cell = tl.load(cells + row[:, None] * stride + column)
            least, most = tl.minimum(least, cell), tl.maximum(most, cell)
        low, high = tl.min(least, 1), tl.max(most, 1)
        margin = ROUNDING * tl.maximum(tl.abs(low), tl.abs(high))
        low, high = low - margin, high + margin
        at_0 = _undecided(low, high, 0.0)
        some = at_0 | _undecided(low, high, offset) | _undecided(low, high, -offset)
        kind = tl.where(some, CUT, 0) + tl.where(at_0, CUT_AT_0, 0) + tl.where(low > offset, TIGHT, 0)
        kind += tl.where(low > -offset, LOOSE, 0) + tl.where(low > 0, INSIDE, 0)
        tl.store(kinds + tl.program_id(0).to(tl.int64) * tiles + tile, kind.to(tl.int8), mask=tile < tiles)


@triton.jit(do_not_specialize=["offset", "slot_cells", "stride", "H", "W"])
def measure_strips(
    logits, slot_cells, stride, index, kinds, tally, offset, y_cell, y_weight, H, x_cell, x_weight, W,
    SIDE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """A program goes along one row of tiles: pixels above both cuts are added, the box of those above 0 is widened.

    Tiles that no cut runs through are counted TILES at a time, at most 32. The others are bits of a number, of which
    the lowest is taken until none is left.

    tally  (rows of the launch, 6) int32: tight, loose, left, top, right, bottom; an empty box is W, H, -1, -1
    """
    mask, strip = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(index + mask).to(tl.int64)
    if slot >= 0:
        cells = logits + slot * slot_cells
        across = tl.cdiv(W, SIDE)
        kinds += (mask * tl.cdiv(H, SIDE) + strip) * across
        row = strip * SIDE + tl.arange(0, SIDE)[:, None]
        rows = tl.minimum(H - strip * SIDE, SIDE)
        y = _line(y_cell, y_weight, tl.minimum(row, H - 1), H)
        # Of whole tiles, for each place of TILES; of pixels that were evaluated, for each place in a tile.
        none, nothing = tl.zeros([TILES], tl.int32), tl.zeros([SIDE, SIDE], tl.int32)
        tight_of, loose_of, first_of, last_of = none, none, none + W, none - 1
        tight_at, loose_at, first_at, last_at = nothing, nothing, nothing + W, nothing - 1
        for start in range(0, across, TILES):
            tile = start + tl.arange(0, TILES)
            kind = tl.load(kinds + tile, mask=tile < across, other=0).to(tl.int32)
            columns = tl.minimum(W - tile * SIDE, SIDE)
            whole = tl.where((kind & CUT) != 0, 0, kind)
            tight_of += tl.where((whole & TIGHT) != 0, rows * columns, 0)
            loose_of += tl.where((whole & LOOSE) != 0, rows * columns, 0)
            first_of = tl.minimum(first_of, tl.where((whole & INSIDE) != 0, tile * SIDE, W))
            last_of = tl.maximum(last_of, tl.where((whole & INSIDE) != 0, tile * SIDE + columns - 1, -1))
            left = tl.sum((kind & CUT).to(tl.int64) << tl.arange(0, TILES).to(tl.int64))
            while left != 0:
                lowest = left & -left
                left -= lowest
                place = (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127
                column = (start + place) * SIDE + tl.arange(0, SIDE)[None, :]
                pixel = _pixels(cells, stride, y, _line(x_cell, x_weight, tl.minimum(column, W - 1), W))
                real = (row < H) & (column < W)
                tight_at += (real & (pixel > offset)).to(tl.int32)
                loose_at += (real & (pixel > -offset)).to(tl.int32)
                inside = real & (pixel > 0)
                first_at = tl.minimum(first_at, tl.where(inside, column, W))
                last_at = tl.maximum(last_at, tl.where(inside, column, -1))
        first_x, last_x = tl.minimum(tl.min(first_of), tl.min(first_at)), tl.maximum(tl.max(last_of), tl.max(last_at))
        first_y, last_y = tl.min(tl.where(last_at >= 0, row, H)), tl.max(tl.where(last_at >= 0, row, -1))
        if tl.max(last_of) >= 0:
            first_y, last_y = strip * SIDE, strip * SIDE + rows - 1
        tally += mask * 6
        tl.atomic_add(tally, tl.sum(tight_of) + tl.sum(tight_at))
        tl.atomic_add(tally + 1, tl.sum(loose_of) + tl.sum(loose_at))
        tl.atomic_min(tally + 2, first_x)
        tl.atomic_min(tally + 3, first_y)
        tl.atomic_max(tally + 4, last_x)
        tl.atomic_max(tally + 5, last_y)


@triton.jit(do_not_specialize=["slot_cells", "stride", "H", "W"])
def find_ends(
    logits, slot_cells, stride, index, kinds, words, before, y_cell, y_weight, H, x_cell, x_weight, W,
    SIDE: tl.constexpr,
):  # fmt: skip
    """A program goes down SIDE columns and finds where runs end, in COCO's order: column by column. SIDE is at most 32.

    words   (rows of the launch, tiles down, W) int32: bit i is set if a run ends at the i-th row of that tile
    before  (rows of the launch, W) int32: how many there are in each column
    """
    mask, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(index + mask).to(tl.int64)
    if slot >= 0:
        cells = logits + slot * slot_cells
        across, tiles = tl.cdiv(W, SIDE), tl.cdiv(H, SIDE)
        kinds += mask * tiles * across + block
        column = block * SIDE + tl.arange(0, SIDE)
        x, bit = tl.minimum(column, W - 1)[None, :], tl.arange(0, SIDE)[:, None]
        # What comes before a column's first pixel is the last one of the column before it, or background.
        last = tl.full([1, 1], 0, tl.int32) + H - 1
        before_x = _line(x_cell, x_weight, tl.maximum(x - 1, 0), W)
        bottom = _pixels(cells, stride, _line(y_cell, y_weight, last, H), before_x)
        above = tl.where(column > 0, tl.reshape((bottom > 0).to(tl.int32), [SIDE]), 0)
        count = tl.zeros([SIDE], tl.int32)
        for tile in range(0, tiles):
            kind = tl.load(kinds + tile * across).to(tl.int32)
            inside = tl.where((kind & INSIDE) != 0, -1, 0) + tl.zeros([SIDE], tl.int32)
            if (kind & CUT_AT_0) != 0:
                # Below the crop its last row is repeated, so that no run ends there.
                y = _line(y_cell, y_weight, tl.minimum(tile * SIDE + bit, H - 1), H)
                pixel = _pixels(cells, stride, y, _line(x_cell, x_weight, x, W))
                inside = tl.sum((pixel > 0).to(tl.int32) << bit, 0).to(tl.int32)
            word = inside ^ ((inside << 1) | above)
            above = (inside >> (SIDE - 1)) & 1
            count += tl.sum((word[None, :] >> bit) & 1, 0)
            tl.store(words + (mask * tiles + tile) * W + column, word, mask=column < W)
        tl.store(before + mask * W + column, count, mask=column < W)


@triton.jit(do_not_specialize=["W"])
def sum_columns(index, before, total, W, COLUMNS: tl.constexpr):
    """A program goes along the columns of one mask: from the ends in each to those before it; and how many in all."""
    mask = tl.program_id(0).to(tl.int64)
    if tl.load(index + mask) >= 0:
        before += mask * W
        sofar = 0
        for start in range(0, W, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            count = tl.load(before + column, mask=column < W, other=0)
            tl.store(before + column, sofar + tl.cumsum(count, 0) - count, mask=column < W)
            sofar += tl.sum(count)
        tl.store(total + mask, sofar)


@triton.jit(do_not_specialize=["H", "W", "room"])
def write_ends(index, words, before, ends, room, H, W, SIDE: tl.constexpr):
    """A program goes down SIDE columns and writes the positions of their ends where `before` says.

    ends  (rows of the launch, room) int32; those for which there is no room are left out
    """
    mask, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if tl.load(index + mask) >= 0:
        column = block * SIDE + tl.arange(0, SIDE)
        bit, tiles = tl.arange(0, SIDE)[:, None], tl.cdiv(H, SIDE)
        place = tl.load(before + mask * W + column, mask=column < W, other=0)
        ends += mask * room
        for tile in range(0, tiles):
            word = tl.load(words + (mask * tiles + tile) * W + column, mask=column < W, other=0)
            end = (word[None, :] >> bit) & 1
            at = place[None, :] + tl.cumsum(end, 0) - 1
            position = column[None, :] * H + tile * SIDE + bit
            tl.store(ends + at, position, mask=(end != 0) & (at < room))
            place += tl.sum(end, 0)
