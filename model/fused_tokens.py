"""The decoder's tokens for a GPU: the function of the plain decoder's token side, in few launches.

Products are a library's, in float32, those of one operand as one, with their biases and ReLUs in them where the library
can. A residual, its LayerNorm and the sum with the places are one kernel, `encoder_kernels.add_and_norm`. What passes
over image positions is `fused_decoder`'s. Imported where there is a GPU.

Legend: B prompts, T tokens of a prompt, C channels, D = C/2, H heads, M masks, c channels of the upscaled image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.fused_encoder import add_and_norm
from model.mask_decoder import Attention, HeadMLP, MaskDecoder, TokenMLP, TwoWayLayer
from model.precisions import Form
from model.prompt_encoder import FOREGROUND, PromptEncoder
from model.shared_image import TokenToImageWeights

if TYPE_CHECKING:
    from model.fused_decoder import FusedImage

FLOAT = Form(1, torch.float32)
"""Nothing of tokens is split."""


class FusedTokens:
    """A decoder's token side with its weights combined; they must not change afterwards.

    count     tokens of a prompt
    looks     of all stages, the final one last
    wanted_T  which tokens of a prompt are needed at the end: those of the scores and of the masks
    """

    def __init__(
        self, prompts: PromptEncoder, decoder: MaskDecoder, looks: list[TokenToImageWeights], wanted_T: Tensor
    ) -> None:
        self._prompts, self._decoder, self._looks, self._wanted_T = prompts, decoder, looks, wanted_T
        self._layers = decoder.transformer.two_way_layers()
        own_TC, kind_1C = decoder.own_tokens(), prompts.kind_1C(FOREGROUND)
        self._tokens_TC = torch.cat([own_TC, kind_1C, prompts.not_a_point_embed.weight])
        self._point, self.count = len(own_TC), len(self._tokens_TC)
        self._to_themselves = [_ToThemselves(layer) for layer in self._layers]
        self._shifts = [look.attention.out_proj(look.value_shift_D) for look in looks]
        """Biases of what the looks see."""
        self._mask_heads = _stacked([cast(HeadMLP, head) for head in decoder.output_hypernetworks_mlps][1:])

    def of_points(self, coords_B2: Tensor) -> Tensor:
        """(B, T, C): the tokens of a decoder and of one foreground point, and the one that stands after points."""
        tokens_BTC = self._tokens_TC.repeat(len(coords_B2), 1, 1)
        tokens_BTC[:, self._point].add_(self._prompts.places(coords_B2))
        return tokens_BTC

    def answers(self, coords_B2: Tensor, seen: FusedImage) -> tuple[Tensor, Tensor]:
        """Predicted IoUs (B, M) of single points, and what the channels of the upscaled image are summed with
        (B, M, c)."""
        tokens_BTC = placed_BTC = places_BTC = self.of_points(coords_B2)
        for index, layer in enumerate(self._layers):
            seen_BTC = self._to_themselves[index](tokens_BTC, placed_BTC)
            if layer.first:  # see `TwoWayLayer.attend_to_self`
                tokens_BTC, placed_BTC = _normed(layer.norm1, seen_BTC, places_BTC=places_BTC)
            else:
                update = seen_BTC, layer.self_attn.out_proj.bias
                tokens_BTC, placed_BTC = _normed(layer.norm1, tokens_BTC, update, places_BTC)
            tokens_BTC, _ = _normed(layer.norm2, tokens_BTC, self._looked(index, placed_BTC, seen))
            update = _without_bias(layer.mlp, tokens_BTC), layer.mlp.lin2.bias
            tokens_BTC, placed_BTC = _normed(layer.norm3, tokens_BTC, update, places_BTC)
            seen.image_to_token(index, placed_BTC, tokens_BTC)
        tokens_BTC, placed_BTC = (each.index_select(1, self._wanted_T) for each in (tokens_BTC, placed_BTC))
        last = self._decoder.transformer.norm_final_attn
        tokens_BTC, _ = _normed(last, tokens_BTC, self._looked(len(self._layers), placed_BTC, seen))
        return self._decoder.predicted_iou(tokens_BTC)[:, 1:], self._mask_weights(tokens_BTC[:, 1:])

    def _looked(self, index: int, placed_BTC: Tensor, seen: FusedImage) -> tuple[Tensor, Tensor]:
        """What the tokens see in the image at a stage, as an update: without its bias, and that."""
        attention = self._looks[index].attention
        return F.linear(seen.look(index, placed_BTC), attention.out_proj.weight), self._shifts[index]

    def _mask_weights(self, tokens_BMC: Tensor) -> Tensor:
        x_MBC = tokens_BMC.transpose(0, 1)
        for number, (weight, bias) in enumerate(self._mask_heads, start=1):
            x_MBC = torch.baddbmm(bias, x_MBC, weight)
            if number < len(self._mask_heads):
                x_MBC = x_MBC.relu_()
        return x_MBC.transpose(0, 1).contiguous()


class _ToThemselves:
    """Attention among tokens: queries and keys of tokens with their places, which in the first layer have none."""

    def __init__(self, layer: TwoWayLayer) -> None:
        self._attention: Attention = layer.self_attn
        self._first, together = layer.first, [layer.self_attn.q_proj, layer.self_attn.k_proj]
        if layer.first:
            together.append(layer.self_attn.v_proj)
        self._weight = torch.cat([each.weight for each in together])
        self._bias = torch.cat([each.bias for each in together])

    def __call__(self, tokens_BTC: Tensor, placed_BTC: Tensor) -> Tensor:
        """(B, T, C); after the first layer without its bias, which a residual's kernel adds."""
        attention, C = self._attention, tokens_BTC.shape[2]
        parts = list(F.linear(placed_BTC, self._weight, self._bias).split(C, dim=2))
        if not self._first:
            parts.append(attention.v_proj(tokens_BTC))
        q, k, v = (each.unflatten(2, (attention.heads, -1)).transpose(1, 2) for each in parts)
        seen_BTC = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return F.linear(seen_BTC, attention.out_proj.weight, attention.out_proj.bias if self._first else None)


def _normed(
    norm: nn.LayerNorm,
    x_BTC: Tensor,
    update: tuple[Tensor, Tensor] | None = None,
    places_BTC: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """LayerNorm of x, or of x + y + bias for an `update` of those; and that with places added, if there are any."""
    x_TC = x_BTC.flatten(0, 1)
    if update is not None:
        update = update[0].flatten(0, 1), update[1]
    if places_BTC is None:
        out_BTC = add_and_norm(x_TC, update, norm, FLOAT, keeps=False).view_as(x_BTC)
        return out_BTC, out_BTC
    placed_BTC = torch.empty_like(x_BTC)
    both = places_BTC.flatten(0, 1), placed_BTC.flatten(0, 1)
    return add_and_norm(x_TC, update, norm, FLOAT, both, keeps=False).view_as(x_BTC), placed_BTC


def _without_bias(mlp: TokenMLP, tokens_BTC: Tensor) -> Tensor:
    """An MLP of tokens but for the bias of its second layer."""
    weight_CK, first = mlp.lin1.weight.t(), tokens_BTC.flatten(0, 1)
    hidden_TK = torch._addmm_activation(mlp.lin1.bias, first, weight_CK)  # type: ignore[reportPrivateImportUsage]
    return F.linear(hidden_TK, mlp.lin2.weight).view_as(tokens_BTC)


def _stacked(heads: list[HeadMLP]) -> list[tuple[Tensor, Tensor]]:
    """Weights (M, in, out) and biases (M, 1, out) of each layer of MLPs of equal sizes."""
    layers = [[cast(nn.Linear, layer) for layer in each] for each in zip(*(head.layers for head in heads), strict=True)]
    return [
        (torch.stack([one.weight.t() for one in layer]), torch.stack([one.bias for one in layer])[:, None])
        for layer in layers
    ]
