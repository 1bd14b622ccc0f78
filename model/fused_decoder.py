"""The decoder's image as each prompt sees it, for a GPU's tensor cores: what passes over positions is one kernel each.

The function of `prompted_image` and `upscaling`, with products of the image's side split (see `decoder_kernels`). What
is kept of a prompt between the kernels are its rows, written once, and a scale a position. All that is linear in the
prompt's values is combined with the weights after it at load, so that one product a layer gives every projection of
every row. Tokens alone are `fused_tokens`'. Imported where there is a GPU.

Legend: B prompts, T tokens of a prompt, H heads, d channels a head, D = H d, C channels, N positions, L layers, R rows,
E channels of all projections of a row, M masks, K and c channels after the first and the second upscaling convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model import decoder_kernels, mask_kernels
from model.config import ModelConfig
from model.decoder_tilings import TILINGS, Tiling
from model.fused_tokens import FusedTokens
from model.shared_image import ImageSide, Parts, SharedImage, SharedParts
from model.upscaling import MaskUpscaler

kernels: Any = decoder_kernels  # Triton has no types for launches
form_masks: Any = mask_kernels.form_masks

HEADS, LEAST_CHANNELS = 8, 128


def fits(config: ModelConfig) -> bool:
    """Whether the decoder has the sizes that the kernels are written for, as the bundled and all released ones have."""
    C = config.decoder_dim
    return config.decoder_heads == HEADS and C >= LEAST_CHANNELS and _power_of_2(C) == C


@dataclass(frozen=True, slots=True)
class _Following:
    """What is made of each row once a layer is done, as one product with the values of a token in a head.

    weights  ((layer, head), d, E)
    shifts   ((layer, head), 1, E)
    """

    weights: Tensor
    shifts: Tensor


class FusedDecoder:
    """A decoder whose weights of the image side are combined as the kernels take them; they must not change later."""

    def __init__(self, side: ImageSide, upscaler: MaskUpscaler, config: ModelConfig, tokens: FusedTokens) -> None:
        self.side, self.upscaler, self.tilings, self._token_side = side, upscaler, TILINGS, tokens
        self.layers, self.tokens, self.masks = len(side.image_to_token), tokens.count, config.multimask_outputs
        self.heads, self.inner, self.channels = config.decoder_heads, config.decoder_dim // 2, config.decoder_dim
        self.grid = config.grid_side
        self.positions = config.grid_side**2
        self.padded = _power_of_2(self.tokens)
        self.second = in_parts(upscaler.second)
        self.place_keys = [in_parts(each.place_keys_HdN.flatten(0, 1)) for each in side.token_to_image[1:]]
        self.place_queries = [in_parts(each.place_queries_HdN.flatten(0, 1)) for each in side.image_to_token[1:]]
        self.following = [self._following(layer) for layer in range(self.layers)]

    def _following(self, layer: int) -> _Following:
        """Of the centred row (C): itself, keys and values of the next look; queries, or the first upscaling."""
        weights, look = self.side.image_to_token[layer], self.side.token_to_image[layer + 1]
        after = [look.attention.k_proj.weight.t(), look.attention.v_proj.weight.t()]
        if layer + 1 < self.layers:
            after.append(self.side.image_to_token[layer + 1].attention.q_proj.weight.t())
        else:
            after.append(self.upscaler.first_CE)
        after_CE = weights.norm.weight[:, None] * torch.cat(after, dim=1)
        of_values_LDE = torch.cat([weights.outs_LDC, weights.outs_LDC @ after_CE], dim=2)
        shifts_LE = torch.cat([weights.shifts_LC, weights.shifts_LC @ after_CE], dim=1) / self.heads
        return _Following(
            of_values_LDE.unflatten(1, (self.heads, -1)).flatten(0, 1).contiguous(),
            shifts_LE.repeat_interleave(self.heads, dim=0)[:, None],
        )

    def parts(self, shared: SharedImage) -> SharedParts:
        """Of a crop, once for all its prompts."""
        looks, answers = shared.token_to_image[1:], shared.image_to_token
        outs = [torch.stack([later.outs_LHdN[i] for later in answers[i:]]) for i in range(self.layers)]
        return SharedParts(
            keys=tuple(in_parts(each.keys_HdN.flatten(0, 1)) for each in looks),
            values=tuple(in_parts(each.values_HNd.transpose(0, 1).flatten(1)) for each in looks),
            queries=tuple(in_parts(each.queries_HdN.flatten(0, 1)) for each in answers[1:]),
            outs=tuple(in_parts(each_LHdN.flatten(1, 2)) for each_LHdN in outs),
            square_LN=torch.stack([each.square_N for each in answers]),
            shifts=tuple(torch.stack([later.shifts_LN[i] for later in answers[i:]]) for i in range(self.layers)),
        )

    def image(self, shared: SharedImage, prompts: int) -> FusedImage:
        return FusedImage(self, shared, prompts)

    def answers(self, shared: SharedImage, coords_B2: Tensor) -> tuple[Tensor, Tensor, FusedImage]:
        """`FusedTokens.answers` to points of a crop, and the image as each of them sees it."""
        seen = self.image(shared, len(coords_B2))
        return *self._token_side.answers(coords_B2, seen), seen


class FusedImage:
    """In place of `PromptedImage`, with working memory of its own."""

    def __init__(self, decoder: FusedDecoder, shared: SharedImage, prompts: int) -> None:
        if shared.parts is None:
            raise TypeError("a crop that was shared for another decoder")
        self.decoder, self.shared, self._parts_of_shared = decoder, shared, shared.parts
        self._rows = decoder.heads * decoder.padded
        """Of a layer."""
        self._groups = decoder.heads // self._heads(decoder.tilings.answer)
        self._parts = 1 + (decoder.layers - 1) * self._groups
        N, L, like = decoder.positions, decoder.layers, shared.upscaled_NE
        self.rows_BNR = [like.new_empty(prompts, N, L * self._rows, dtype=torch.bfloat16) for _ in range(2)]
        """Their values, and what rounding left of them."""
        self._linear_LPBN = like.new_empty(L, self._parts, prompts, N)
        self.scale_LBN = like.new_empty(L, prompts, N)
        self._values: list[Tensor] = []
        """For each layer passed, of its tokens, (H, B T, d)."""
        self.vectors_XYE = like.new_empty(0)
        """See `decoder_kernels`, after the last layer that was passed."""

    def look(self, index: int, placed_BTC: Tensor) -> Tensor:
        """`PromptedImage.token_to_image` before its projection, and without its `value_shift_D`: (B, T, D)."""
        weights = self.decoder.side.token_to_image[index]
        queries_BTD = weights.attention.q_proj(placed_BTC).contiguous()
        out_BTD = torch.empty_like(queries_BTD)
        if index == 0:
            self._look_at_shared(queries_BTD, out_BTD)
        else:
            self._look(index, queries_BTD, out_BTD)
        return out_BTD

    def image_to_token(self, index: int, placed_BTC: Tensor, tokens_BTC: Tensor) -> None:
        """See `PromptedImage.image_to_token`."""
        weights = self.decoder.side.image_to_token[index]
        keys_BTD = weights.attention.k_proj(placed_BTC).contiguous()
        values_BTD = weights.attention.v_proj(tokens_BTC).contiguous()
        if index == 0:
            self._answer_from_shared(keys_BTD, values_BTD)
        else:
            self._answer(index, keys_BTD, values_BTD)
        self._values.append(values_BTD.flatten(0, 1).unflatten(1, (self.decoder.heads, -1)).transpose(0, 1))
        following = self.decoder.following[index]
        values_XYd = self._values[0] if index == 0 else torch.cat(self._values)
        self.vectors_XYE = torch.baddbmm(following.shifts, values_XYd, following.weights)
        self._measure(index, weights.norm.eps)

    def fill(self, out_BMhw: Tensor, weights_BMc: Tensor, live_BM: Tensor, cells_hw: tuple[int, int]) -> None:
        """Logits of all masks of the prompts of which one is live, 0 outside the first rows and columns of cells.

        Of the other prompts there may be anything, inside.
        """
        decoder, (height, width) = self.decoder, cells_hw
        upscaler, tiling, fine = decoder.upscaler, decoder.tilings.form_masks, self.shared.fine
        B, M, c = weights_BMc.shape
        out_BMhw[:, :, 4 * height :].zero_()
        out_BMhw[:, :, : 4 * height, 4 * width :].zero_()
        inside = slice(0, height * decoder.grid)
        first_shift = upscaler.first_shift_E if fine is None else fine.first_NE
        second_shift = upscaler.second_shift if fine is None else fine.second_NfK
        positions = min(tiling.positions, max(16, _power_of_2(height * width)))
        form_masks[_per(height * width, positions), B](
            live_BM.view(torch.uint8), *(each[:, inside] for each in self.rows_BNR), self.scale_LBN[-1, :, inside],
            self.vectors_XYE[..., decoder.channels + 2 * decoder.inner :], self.shared.upscaled_NE[inside],
            first_shift, upscaler.norm.weight, upscaler.norm.bias, *decoder.second, second_shift,
            weights_BMc, out_BMhw[:, :, : 4 * height, : 4 * width], B, height, width, upscaler.norm.eps,
            T=decoder.tokens, E=self.vectors_XYE.shape[2], N=decoder.positions, g=decoder.grid,
            R=self.rows_BNR[0].shape[2], M=M, K=decoder.channels // 4, c=c, FINE=fine is not None,
            TOKENS=decoder.padded, RP=_power_of_2(self.rows_BNR[0].shape[2]), MASKS=max(4, _power_of_2(M)),
            POSITIONS=positions, num_warps=tiling.warps, num_stages=tiling.stages,
        )  # fmt: skip

    def _first(self, layers: int) -> list[Tensor]:
        """The rows of so many layers."""
        return [each[..., : layers * self._rows] for each in self.rows_BNR]

    def _heads(self, tiling: Tiling) -> int:
        return min(tiling.others, self.decoder.heads)

    def _sizes(self, tiling: Tiling) -> dict[str, int]:
        """Of every kernel."""
        decoder, positions = self.decoder, max(16, _power_of_2(self.decoder.positions))
        return {
            "T": decoder.tokens, "H": decoder.heads, "d": decoder.inner // decoder.heads, "N": decoder.positions,
            "POSITIONS": min(tiling.positions, positions), "num_warps": tiling.warps, "num_stages": tiling.stages,
        }  # fmt: skip

    def _per_program(self, tiling: Tiling) -> int:
        """Positions, in whole steps."""
        step = self._sizes(tiling)["POSITIONS"]
        return _per(_per(self.decoder.positions, step), tiling.programs) * step

    def _factor(self) -> float:
        return (self.decoder.inner // self.decoder.heads) ** -0.5

    def _look_at_shared(self, queries_BTD: Tensor, out_BTD: Tensor) -> None:
        tiling, shared = self.decoder.tilings.look_at_shared, self.shared.token_to_image[0]
        sizes, asked = self._sizes(tiling), queries_BTD.shape[0] * queries_BTD.shape[1]
        del sizes["T"]
        kernels.look_at_shared[_per(asked, tiling.others), self.decoder.heads](
            queries_BTD, shared.keys_HdN, shared.values_HNd, out_BTD, asked, self._factor(),
            QUERIES=tiling.others, WIDTH=max(16, sizes["d"]), **sizes,
        )  # fmt: skip

    def _answer_from_shared(self, keys_BTD: Tensor, values_BTD: Tensor) -> None:
        tiling, layers = self.decoder.tilings.answer_from_shared, self.shared.image_to_token
        sizes, B = self._sizes(tiling), len(keys_BTD)
        parts = self._parts_of_shared
        outs_high, outs_low = parts.outs[0]
        kernels.answer_from_shared[_per(self.decoder.positions, sizes["POSITIONS"]), _per(B, tiling.prompts)](
            keys_BTD, values_BTD, layers[0].queries_HdN, outs_high, outs_low, parts.square_LN, parts.shifts[0],
            *self._first(1), self._linear_LPBN[:, 0], B, self._factor(), R=self.rows_BNR[0].shape[2],
            LAYERS=self.decoder.layers, PARTS=self._parts, TOKENS=self.decoder.padded, PROMPTS=tiling.prompts,
            WIDTH=max(16, sizes["d"]), STACK=_power_of_2(self.decoder.layers), **sizes,
        )  # fmt: skip

    def _measure(self, index: int, eps: float) -> None:
        tiling, used, parts = self.decoder.tilings.measure, (index + 1) * self._rows, 1 + index * self._groups
        sizes, B = self._sizes(tiling), self.scale_LBN.shape[1]
        del sizes["H"], sizes["d"]
        kernels.measure[B, tiling.programs](
            *self._first(index + 1), self.vectors_XYE[..., : self.decoder.channels],
            self._linear_LPBN[index, :parts], self.scale_LBN[max(index - 1, 0)], self.scale_LBN[index], B, eps,
            C=self.decoder.channels, E=self.vectors_XYE.shape[2], R=used, ALL=self.rows_BNR[0].shape[2],
            LAYER=index, PARTS=parts, TOKENS=self.decoder.padded,
            RP=_power_of_2(used), CHANNELS=min(tiling.others, self.decoder.channels), PER=self._per_program(tiling),
            **sizes,
        )  # fmt: skip

    def _look(self, index: int, queries_BTD: Tensor, out_BTD: Tensor) -> None:
        decoder, parts, used = self.decoder, self._parts_of_shared, index * self._rows
        tiling = decoder.tilings.last_look if index == decoder.layers else decoder.tilings.look
        sizes, heads = self._sizes(tiling), self._heads(tiling)
        B, T, _ = queries_BTD.shape
        kernels.look[decoder.heads // heads, _per(B, tiling.prompts)](
            queries_BTD, *parts.keys[index - 1], *decoder.place_keys[index - 1], *parts.values[index - 1],
            self.vectors_XYE[..., decoder.channels : decoder.channels + 2 * decoder.inner], *self._first(index),
            self.scale_LBN[index - 1], out_BTD, B, self._factor(), decoder.inner,
            E=self.vectors_XYE.shape[2], R=used, ALL=self.rows_BNR[0].shape[2], SEEN=decoder.tokens,
            TOKENS=_power_of_2(T), ROW_TOKENS=decoder.padded, RP=_power_of_2(used), PROMPTS=tiling.prompts,
            HEADS=heads, **(sizes | {"T": T}),
        )  # fmt: skip

    def _answer(self, index: int, keys_BTD: Tensor, values_BTD: Tensor) -> None:
        decoder, tiling, parts = self.decoder, self.decoder.tilings.answer, self._parts_of_shared
        sizes, used, heads, B = self._sizes(tiling), index * self._rows, self._heads(tiling), len(keys_BTD)
        kernels.answer[self._groups, _per(B, tiling.prompts), tiling.programs](
            keys_BTD, values_BTD, *parts.queries[index - 1], *decoder.place_queries[index - 1], *parts.outs[index],
            parts.shifts[index], self.vectors_XYE[..., decoder.channels + 2 * decoder.inner :],
            *self._first(index + 1), self.scale_LBN[index - 1],
            self._linear_LPBN[index:, 1 + (index - 1) * self._groups : 1 + index * self._groups], B, self._factor(),
            E=self.vectors_XYE.shape[2], R=used, ALL=self.rows_BNR[0].shape[2], LAYER=index, LAYERS=decoder.layers,
            PARTS=self._parts, TOKENS=decoder.padded, RP=_power_of_2(used), PROMPTS=tiling.prompts, HEADS=heads,
            PER=self._per_program(tiling), **sizes,
        )  # fmt: skip


def in_parts(x: Tensor) -> Parts:
    """As two of bfloat16, to be added."""
    high = x.to(torch.bfloat16).contiguous()
    return high, (x - high).to(torch.bfloat16)


def _per(count: int, size: int) -> int:
    """Parts of that size, the last one perhaps smaller."""
    return -(-count // size)


def _power_of_2(count: int) -> int:
    """The least that is not smaller."""
    return 1 << (count - 1).bit_length()
