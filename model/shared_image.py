"""What the decoder computes once per crop, because no prompt changes it.

Between its layers the decoder's image is never stored. After layer i it is, for one prompt,

    X_i = scale_i * (Y_i + A_i^T V_i) + shift_i

where Y_i is the same for all prompts, A_i are the attention weights of the image on the tokens so far (one row per
layer, head and token) and V_i is one vector per row: an update by attention is a sum over few tokens, and LayerNorm is
linear up to the one `scale` a position. Every projection of X_i is therefore a shared projection of Y_i plus a product
with few rows. Owns the shared part, and the weights combined for it once at load; `prompted_image` has the rest.

Legend: N image positions, C channels, H heads, d channels a head, L layers so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from model.mask_decoder import Attention, MaskDecoder


@dataclass(frozen=True, slots=True)
class SharedTokenToImage:
    """Y_i as the token-to-image attention of a stage needs it. The first stage's keys hold the positions too."""

    keys_HdN: Tensor
    values_HNd: Tensor


@dataclass(frozen=True, slots=True)
class SharedImageToToken:
    """Y_i as the image-to-token attention of a layer and the LayerNorm after it need it.

    queries_HdN  the first layer's hold the positions too
    square_N     mean over channels of the squared Y_i, centred
    outs_LHdN    twice the mean product of Y_i with each input channel of each layer's output projection
    shifts_LN    the same with what each layer adds to all positions
    """

    queries_HdN: Tensor
    square_N: Tensor
    outs_LHdN: Tensor
    shifts_LN: Tensor


@dataclass(frozen=True, slots=True)
class SharedFine:
    """What is added while masks are upscaled, in the order of the two convolutions' outputs, with their biases.

    first_NE    to the first one's four cells of a position
    second_NfK  to the second one's four cells of each of those
    """

    first_NE: Tensor
    second_NfK: Tensor


Parts: TypeAlias = "tuple[Tensor, Tensor]"
"""Of one tensor: two of bfloat16, to be added. What split products are made of."""


@dataclass(frozen=True, slots=True)
class SharedParts:
    """A shared image as the kernels of `fused_decoder` take it, after the first layer.

    keys, values  of each look but the first, (D, N) and (N, D)
    queries       of each answer but the first, (D, N)
    outs          of each layer's rows with that layer's Y and all later ones', (layers, D, N)
    square_LN     see `SharedImageToToken`, of all layers
    shifts        as `outs`, (layers, N)
    """

    keys: tuple[Parts, ...]
    values: tuple[Parts, ...]
    queries: tuple[Parts, ...]
    outs: tuple[Parts, ...]
    square_LN: Tensor
    shifts: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class SharedImage:
    """One crop as the decoder starts from it; with two layers and C channels 6.5 C floats a position, and 3 C more with
    fine features.

    That is 27 MB with 256 channels and 64 x 64 positions (39 MB), 0.9 MB with the tiny model's 128 and 16 x 16.

    upscaled_NE  Y after the last layer, in the first upscaling convolution (without its bias)
    parts        where the decoder is fused
    """

    token_to_image: tuple[SharedTokenToImage, ...]
    image_to_token: tuple[SharedImageToToken, ...]
    upscaled_NE: Tensor
    fine: SharedFine | None = None
    parts: SharedParts | None = None


@dataclass(frozen=True, slots=True)
class TokenToImageWeights:
    """Token-to-image attention of a layer, or the final one. Its softmax ignores what all positions have in common.

    place_keys_HdN  projected position encodings
    value_shift_D   projected shift_i, and the bias
    """

    attention: Attention
    place_keys_HdN: Tensor
    value_shift_D: Tensor


@dataclass(frozen=True, slots=True)
class ImageToTokenWeights:
    """Image-to-token attention of a layer and the LayerNorm after it.

    place_queries_HdN  projected position encodings and shift_i, and the bias
    shift_C            what this layer adds to all positions: shift_i and the bias of the output projection
    outs_LDC           the output projections up to this layer, as the norms on the way leave them, centred
    shifts_LC          the same of what each of these layers adds to all positions
    """

    attention: Attention
    norm: nn.LayerNorm
    place_queries_HdN: Tensor
    shift_C: Tensor
    outs_LDC: Tensor
    shifts_LC: Tensor

    def new_vectors(self, values_BTD: Tensor) -> Tensor:
        """(B, H T, C): what each head adds to a position that attends to one token alone.

        The softmax's weights at a position sum to 1 in each head, so that `shift_C` can be shared among the rows.
        """
        heads = self.attention.heads
        out_HdC = self.attention.out_proj.weight.t().unflatten(0, (heads, -1))
        values_BHTd = values_BTD.unflatten(2, (heads, -1)).transpose(1, 2)
        return (values_BHTd @ out_HdC + self.shift_C / heads).flatten(1, 2)


def centred(x_C: Tensor) -> Tensor:
    """Less its mean over channels, the last dimension."""
    return x_C - x_C.mean(dim=-1, keepdim=True)


class ImageSide:
    """The decoder's weights that meet the image, combined once at load.

    no_mask_1C  the embedding that stands for "no mask given"
    place_NC    position encodings of the image
    upscale_CE  first upscaling convolution as a matrix
    """

    def __init__(self, decoder: MaskDecoder, *, no_mask_1C: Tensor, place_NC: Tensor, upscale_CE: Tensor) -> None:
        self._no_mask_1C, self._place_NC, self._upscale_CE = no_mask_1C, place_NC, upscale_CE
        self.token_to_image: list[TokenToImageWeights] = []
        self.image_to_token: list[ImageToTokenWeights] = []
        shift_C = torch.zeros_like(no_mask_1C[0])
        C = len(shift_C)
        outs_LDC, shifts_LC = shift_C.new_zeros(0, C // 2, C), shift_C.new_zeros(0, C)
        for layer in decoder.transformer.two_way_layers():
            self.token_to_image.append(self._weights(layer.cross_attn_token_to_image, shift_C))
            attention, norm = layer.cross_attn_image_to_token, layer.norm4
            own_shift_C = shift_C + attention.out_proj.bias
            outs_LDC = centred(torch.cat([outs_LDC, attention.out_proj.weight.t()[None]]))
            shifts_LC = centred(torch.cat([shifts_LC, own_shift_C[None]]))
            place_queries_HdN = split_heads(attention.q_proj(place_NC + shift_C), attention.heads)
            self.image_to_token.append(
                ImageToTokenWeights(attention, norm, place_queries_HdN, own_shift_C, outs_LDC, shifts_LC)
            )
            outs_LDC, shifts_LC, shift_C = outs_LDC * norm.weight, shifts_LC * norm.weight, norm.bias
        self.token_to_image.append(self._weights(decoder.transformer.final_attn_token_to_image, shift_C))

    def _weights(self, attention: Attention, shift_C: Tensor) -> TokenToImageWeights:
        place_keys_HdN = split_heads(self._place_NC @ attention.k_proj.weight.t(), attention.heads)
        return TokenToImageWeights(attention, place_keys_HdN, attention.v_proj(shift_C))

    def share(self, embedding_1Cgg: Tensor) -> SharedImage:
        """What one encoded crop's prompts have in common."""
        image_NC = embedding_1Cgg[0].flatten(1).t() + self._no_mask_1C
        token_to_image = [_share_token_to_image(self.token_to_image[0], image_NC)]
        token_to_image[0].keys_HdN.add_(self.token_to_image[0].place_keys_HdN)
        image_to_token: list[SharedImageToToken] = []
        for weights, next_weights in zip(self.image_to_token, self.token_to_image[1:], strict=True):
            centred_NC = centred(image_NC)
            image_to_token.append(_share_image_to_token(weights, image_NC, centred_NC))
            image_NC = centred_NC * weights.norm.weight
            token_to_image.append(_share_token_to_image(next_weights, image_NC))
        image_to_token[0].queries_HdN.add_(self.image_to_token[0].place_queries_HdN)
        return SharedImage(tuple(token_to_image), tuple(image_to_token), image_NC @ self._upscale_CE)


def _share_token_to_image(weights: TokenToImageWeights, image_NC: Tensor) -> SharedTokenToImage:
    attention = weights.attention
    keys_HdN = split_heads(image_NC @ attention.k_proj.weight.t(), attention.heads)
    values_HdN = split_heads(image_NC @ attention.v_proj.weight.t(), attention.heads)
    return SharedTokenToImage(keys_HdN, values_HdN.transpose(1, 2).contiguous())


def _share_image_to_token(weights: ImageToTokenWeights, image_NC: Tensor, centred_NC: Tensor) -> SharedImageToToken:
    attention, twice = weights.attention, 2 / image_NC.shape[1]
    return SharedImageToToken(
        queries_HdN=split_heads(image_NC @ attention.q_proj.weight.t(), attention.heads),
        square_N=centred_NC.square().mean(dim=1),
        outs_LHdN=torch.stack(
            [split_heads(centred_NC @ out_DC.t() * twice, attention.heads) for out_DC in weights.outs_LDC]
        ),
        shifts_LN=weights.shifts_LC @ centred_NC.t() * twice,
    )


def split_heads(x_ND: Tensor, heads: int) -> Tensor:
    """(N, H d) -> (H, d, N), contiguous."""
    return x_ND.t().unflatten(0, (heads, -1)).contiguous()
