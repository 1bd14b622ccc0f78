"""What the decoder computes once per crop, because no prompt changes it.

Between its layers the decoder's image is never stored. After layer i it is, for one prompt,

    X_i = scale_i * (Y_i + A_i^T V_i) + shift_i

where Y_i is the same for all prompts, A_i are the attention weights of the image on the tokens so far (one row per
layer, head and token) and V_i is one vector per row: an update by attention is a sum over few tokens, and LayerNorm is
linear up to the one `scale` a position. Every projection of X_i is therefore a shared projection of Y_i plus a product
with few rows. Here is the shared part; `prompted_image` has the rest.

Legend: N image positions, C channels, H heads, d channels a head, L layers so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.mask_decoder import Attention, MaskDecoder


@dataclass(frozen=True, slots=True)
class SharedLook:
    """Y_i for tokens that look at the image. The first stage's keys hold the positions too."""

    keys_HdN: Tensor
    values_HNd: Tensor


@dataclass(frozen=True, slots=True)
class SharedAnswer:
    """Y_i for the image that looks at the tokens, and for the LayerNorm after it.

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
class SharedImage:
    """One crop as the decoder starts from it; with two layers and C channels 6.5 C floats a position.

    That is 27 MB with 256 channels and 64 x 64 positions, 0.9 MB with the tiny model's 128 and 16 x 16.

    upscaled_NE  Y after the last layer, in the first upscaling convolution (without its bias)
    """

    looks: tuple[SharedLook, ...]
    answers: tuple[SharedAnswer, ...]
    upscaled_NE: Tensor


@dataclass(frozen=True, slots=True)
class LookWeights:
    """Token-to-image attention of a layer, or of the end. Its softmax ignores what all positions have in common.

    place_keys_HdN  projected position encodings
    value_shift_D   projected shift_i, and the bias
    """

    attention: Attention
    place_keys_HdN: Tensor
    value_shift_D: Tensor


@dataclass(frozen=True, slots=True)
class AnswerWeights:
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
        self.looks: list[LookWeights] = []
        self.answers: list[AnswerWeights] = []
        shift_C = torch.zeros_like(no_mask_1C[0])
        C = len(shift_C)
        outs_LDC, shifts_LC = shift_C.new_zeros(0, C // 2, C), shift_C.new_zeros(0, C)
        for layer in decoder.transformer.two_way_layers():
            self.looks.append(self._look(layer.cross_attn_token_to_image, shift_C))
            attention, norm = layer.cross_attn_image_to_token, layer.norm4
            own_shift_C = shift_C + attention.out_proj.bias
            outs_LDC = centred(torch.cat([outs_LDC, attention.out_proj.weight.t()[None]]))
            shifts_LC = centred(torch.cat([shifts_LC, own_shift_C[None]]))
            place_queries_HdN = split_heads(attention.q_proj(place_NC + shift_C), attention.heads)
            self.answers.append(AnswerWeights(attention, norm, place_queries_HdN, own_shift_C, outs_LDC, shifts_LC))
            outs_LDC, shifts_LC, shift_C = outs_LDC * norm.weight, shifts_LC * norm.weight, norm.bias
        self.looks.append(self._look(decoder.transformer.final_attn_token_to_image, shift_C))

    def _look(self, attention: Attention, shift_C: Tensor) -> LookWeights:
        place_keys_HdN = split_heads(self._place_NC @ attention.k_proj.weight.t(), attention.heads)
        return LookWeights(attention, place_keys_HdN, attention.v_proj(shift_C))

    def share(self, embedding_1Cgg: Tensor) -> SharedImage:
        """What one encoded crop's prompts have in common."""
        image_NC = embedding_1Cgg[0].flatten(1).t() + self._no_mask_1C
        looks = [self._share_look(self.looks[0], image_NC)]
        looks[0].keys_HdN.add_(self.looks[0].place_keys_HdN)
        answers: list[SharedAnswer] = []
        for weights, next_look in zip(self.answers, self.looks[1:], strict=True):
            centred_NC = centred(image_NC)
            answers.append(_share_answer(weights, image_NC, centred_NC))
            image_NC = centred_NC * weights.norm.weight
            looks.append(self._share_look(next_look, image_NC))
        answers[0].queries_HdN.add_(self.answers[0].place_queries_HdN)
        return SharedImage(tuple(looks), tuple(answers), image_NC @ self._upscale_CE)

    def _share_look(self, weights: LookWeights, image_NC: Tensor) -> SharedLook:
        attention = weights.attention
        keys_HdN = split_heads(image_NC @ attention.k_proj.weight.t(), attention.heads)
        values_HdN = split_heads(image_NC @ attention.v_proj.weight.t(), attention.heads)
        return SharedLook(keys_HdN, values_HdN.transpose(1, 2).contiguous())


def _share_answer(weights: AnswerWeights, image_NC: Tensor, centred_NC: Tensor) -> SharedAnswer:
    attention, twice = weights.attention, 2 / image_NC.shape[1]
    return SharedAnswer(
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
