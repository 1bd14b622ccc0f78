"""The ViT image encoder for a GPU's tensor cores: the function of `image_encoder`, with all between products fused.

A block is nine kernels: four products of a library and five of `encoder_kernels`, in one of `precisions.FORMS`.
Imported where there is a GPU.

Legend: B images, S input side, g tokens a side, C channels, T = B g g tokens, K inner and N outer size of a product, H
heads, d channels a head, w tokens a side of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import encoder_kernels
from model.image_encoder import Attention, Block, ImageEncoder
from model.precisions import Form
from model.resize import triangle_weights
from model.sam import Sam

kernels: Any = encoder_kernels  # Triton has no types for launches

LANES = 2048
"""Numbers of a program of the kernels that go over tokens, or one token's if it has more."""
PIXELS = 512
"""Of a program of the resize, along a row."""
LOG2_E = math.log2(math.e)
ATTENTION = {
    (1, True): (64, 64, 4, 3),
    (1, False): (128, 128, 8, 2),
    (3, True): (128, 64, 8, 1),
    (3, False): (64, 16, 4, 1),
}
"""By the parts of operands, and whether a row of the window has 64 lanes or more: lanes of a block of queries and of
keys, or one row's if it has more; warps; stages."""


class Product:
    """x W^T of a linear layer without its bias, which the kernel after it adds, or with it."""

    def __init__(self, layer: nn.Linear, form: Form) -> None:
        weight_NC, self._form = layer.weight.detach(), form
        self.bias_N = layer.bias.detach().float()
        self._bias_N = self.bias_N.to(form.whole)
        high_NC = weight_NC.to(form.dtype)
        self._weight_NK = high_NC
        if form.parts == 3:
            self._weight_NK = torch.cat([high_NC, high_NC, (weight_NC - high_NC.float()).to(form.dtype)], dim=1)

    def __call__(self, operand_TK: Tensor) -> Tensor:
        """(T, N): bfloat16 of one part, float32 of three."""
        if self._form.parts == 1:
            return torch.mm(operand_TK, self._weight_NK.t())
        return torch.mm(operand_TK, self._weight_NK.t(), out_dtype=torch.float32)

    def with_bias(self, operand_TK: Tensor) -> Tensor:
        """As a call gives it. The sum is rounded once."""
        if self._form.parts == 1:
            return torch.addmm(self._bias_N, operand_TK, self._weight_NK.t())
        return self(operand_TK).add_(self._bias_N)


@dataclass(frozen=True, slots=True)
class _FusedBlock:
    block: Block
    qkv: Product
    proj: Product
    lin1: Product
    lin2: Product
    relative: tuple[Tensor, Tensor]

    @staticmethod
    def of(block: Block, form: Form) -> _FusedBlock:
        attention, mlp = block.attn, block.mlp
        qkv, proj, lin1, lin2 = (Product(each, form) for each in (attention.qkv, attention.proj, mlp.lin1, mlp.lin2))
        rows, columns = (table.detach().to(form.whole) for table in (attention.rel_pos_h, attention.rel_pos_w))
        return _FusedBlock(block, qkv, proj, lin1, lin2, (rows, columns))


class FusedEncoder:
    """A loaded encoder with its weights as products take them; they must not change afterwards."""

    def __init__(self, encoder: ImageEncoder, form: Form) -> None:
        self._encoder, self._form = encoder, form
        self._blocks = [_FusedBlock.of(cast(Block, block), form) for block in encoder.blocks]
        self._grid: int = encoder.pos_embed.shape[1]

    def __call__(self, images_B3SS: Tensor) -> Tensor:
        """Normalised, padded images -> (B, C, g, g) float32."""
        form = self._form
        x_BggC = patches(images_B3SS, self._encoder.patch_embed.proj) + self._encoder.pos_embed
        x_TC = x_BggC.flatten(0, 2)
        update: tuple[Tensor, Tensor] | None = None
        for each in self._blocks:
            operand_TK = add_and_norm(x_TC, update, each.block.norm1, form)
            qkv_TN = each.qkv.with_bias(operand_TK)
            attended_TK = attention(qkv_TN, each.qkv.bias_N, each.relative, each.block.attn, self._grid, form)
            update = each.proj(attended_TK), each.proj.bias_N
            operand_TK = add_and_norm(x_TC, update, each.block.norm2, form)
            hidden_TK = bias_and_gelu(each.lin1(operand_TK), each.lin1.bias_N, form)
            update = each.lin2(hidden_TK), each.lin2.bias_N
        if update is not None:
            x_TC = x_TC + update[0] + update[1]
        x_BCgg = x_TC.view(x_BggC.shape).permute(0, 3, 1, 2)
        return cast(Tensor, self._encoder.neck(x_BCgg))


def patches(images_B3SS: Tensor, layer: nn.Conv2d) -> Tensor:
    """The squares of the images through `layer`, (B, g, g, C), as a product, in half the time of a convolution."""
    size, (B, channels, S, _) = layer.weight.shape[-1], images_B3SS.shape
    g = S // size
    squares = images_B3SS.view(B, channels, g, size, g, size).permute(0, 2, 4, 1, 3, 5)
    return F.linear(squares.reshape(B, g, g, -1), layer.weight.flatten(1), layer.bias)


def add_and_norm(
    x_TC: Tensor,
    update: tuple[Tensor, Tensor] | None,
    norm: nn.LayerNorm,
    form: Form,
    placed: tuple[Tensor, Tensor] | None = None,
    *,
    keeps: bool = True,
) -> Tensor:
    """The norm of x as an operand, or of x + y + bias for an `update` of y (T, C) and bias (C).

    placed  places (T, C), and where the norm with those added is written
    keeps   whether x becomes the sum
    """
    T, C = x_TC.shape
    y_TC, bias_C = update or (x_TC, x_TC)
    out_TK, columns = form.operand(T, C, x_TC), _power_of_2(C)
    rows, (places_TC, placed_TC) = max(1, LANES // columns), placed or (x_TC, x_TC)
    kernels.add_and_norm[_per(T, rows),](
        x_TC, y_TC, bias_C, norm.weight, norm.bias, out_TK, places_TC, placed_TC, T, C, norm.eps,
        ADDS=update is not None, KEEPS=keeps, PLACES=placed is not None, PARTS=form.parts, ROWS=rows,
        COLUMNS=columns, num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip
    return out_TK


def bias_and_gelu(x_TK: Tensor, bias_K: Tensor, form: Form) -> Tensor:
    """An operand."""
    T, K = x_TK.shape
    out_TK, columns = form.operand(T, K, x_TK), min(LANES, _power_of_2(K))
    rows = LANES // columns
    kernels.bias_and_gelu[_per(T, rows), _per(K, columns)](
        x_TK, bias_K, out_TK, T, K,
        PARTS=form.parts, ROWS=rows, COLUMNS=columns, num_warps=8,
    )  # fmt: skip
    return out_TK


def attention(
    qkv_TN: Tensor, bias_N: Tensor, relative: tuple[Tensor, Tensor], layer: Attention, grid: int, form: Form
) -> Tensor:
    """Of all images, within windows or over the grid, as an operand of the projection.

    bias_N  which `qkv_TN` has
    """
    T, H, w = len(qkv_TN), layer.heads, layer.side
    d, B = qkv_TN.shape[1] // (3 * H), T // grid**2
    precision = "ieee" if form.parts == 1 else "bf16x3"
    by_row_THw = torch.empty(T, H, w, dtype=form.whole, device=qkv_TN.device)
    by_column_THw = torch.empty_like(by_row_THw)
    tokens, lanes, channels = min(64, max(16, _power_of_2(grid))), max(16, _power_of_2(w)), max(16, _power_of_2(d))
    queries, keys, warps, stages = ATTENTION[form.parts, lanes >= 64]
    across, query_rows, key_rows = _per(grid, w), max(1, queries // lanes), max(1, keys // lanes)
    factor = LOG2_E if key_rows == 1 else d**0.5
    kernels.relative_tables[2 * grid, B * H, _per(grid, tokens)](
        qkv_TN, *relative, by_row_THw, by_column_THw, grid, factor,
        H=H, d=d, w=w, TOKENS=tokens, WINDOW=lanes, D=channels, PRECISION=precision, num_warps=4,
    )  # fmt: skip
    out_TK = form.operand(T, H * d, qkv_TN)
    kernels.attend[_per(w, query_rows), across**2, B * H](
        qkv_TN, bias_N, by_row_THw, by_column_THw, out_TK, grid, across, d**-0.5 * LOG2_E,
        H=H, d=d, w=w, QUERY_ROWS=query_rows, KEY_ROWS=key_rows, WIDTH=lanes, D=channels,
        HOT=_power_of_2(2 * lanes + 3), PADDED=grid % w != 0, PARTS=form.parts, PRECISION=precision,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out_TK


def standardised(crop_HW3: Tensor, resized_hw: tuple[int, int], sam: Sam, out_3SS: Tensor) -> None:
    """`Sam.normalise` of the resized crop, bit for bit, in two kernels. Between its rows there may be other pixels."""
    (H, W, _), (height, width), S = crop_HW3.shape, resized_hw, out_3SS.shape[1]
    rows_HW3 = torch.empty(H, width, 3, dtype=torch.uint8, device=crop_HW3.device)
    first, weight = triangle_weights(W, width, crop_HW3.device)
    kernels.resize_rows[H, _per(3 * width, PIXELS)](
        crop_HW3, crop_HW3.stride(0), first, weight, rows_HW3, W, width, weight.shape[1], COLUMNS=PIXELS
    )
    first, weight = triangle_weights(H, height, crop_HW3.device)
    kernels.resize_columns_and_standardise[S, _per(S, PIXELS)](
        rows_HW3, first, weight, sam.pixel_mean, sam.pixel_std, out_3SS, H, width, height, S, weight.shape[1],
        COLUMNS=PIXELS, enable_fp_fusion=False,
    )  # fmt: skip


def _per(count: int, size: int) -> int:
    """Parts of that size, the last one perhaps smaller."""
    return -(-count // size)


def _power_of_2(count: int) -> int:
    """The least that is not smaller."""
    return 1 << (count - 1).bit_length()
