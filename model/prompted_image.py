"""The decoder's image as each prompt of a block sees it, in few rows instead of `positions x channels`.

See `shared_image` for the form. Positions are walked in chunks, in a fixed order; the caller says how large they are.

Legend: B prompts of a block, T tokens of a prompt, H heads, d channels a head, C channels, N positions, n of a chunk,
Q = H T rows a layer adds, R rows so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.shared_image import ImageSide, SharedImage, SharedImageToToken, centred


class PromptedImage:
    """Changes as the layers pass. `rows_BRN` is the caller's workspace, with room for the rows of all layers."""

    def __init__(self, shared: SharedImage, side: ImageSide, rows_BRN: Tensor, *, chunk: int) -> None:
        self.shared, self._side, self._all_rows_BRN = shared, side, rows_BRN
        B, _, N = rows_BRN.shape
        self._chunks = [slice(start, min(start + chunk, N)) for start in range(0, N, chunk)]
        self._values: list[Tensor] = []
        """For each layer passed, its tokens as values for the image, (H, B T, d)."""
        self._inverse_scales: list[Tensor] = []
        self.rows_BRN = rows_BRN[:, :0]
        self.scale_BN = rows_BRN.new_ones(B, N)
        self.vectors_BRC = rows_BRN.new_zeros(B, 0, shared.upscaled_NE.shape[1])

    def token_to_image(self, index: int, placed_BTC: Tensor) -> Tensor:
        """Token-to-image attention at stage `index`, (B, T, C).

        placed_BTC  tokens with their place added
        """
        weights, shared = self._side.token_to_image[index], self.shared.token_to_image[index]
        heads = weights.attention.heads
        B, T, _ = placed_BTC.shape
        queries = self._project(weights.attention.q_proj(placed_BTC), weights.attention.k_proj, heads)
        scores_BQN = placed_BTC.new_empty(B, heads * T, self.scale_BN.shape[1])
        for n in self._chunks:
            self._score(queries, shared.keys_HdN, weights.place_keys_HdN, n, scores_BQN[..., n])
        shares_BQN = torch.softmax(scores_BQN, dim=-1)

        shared_HMd = shared.values_HNd.new_zeros(heads, B * T, shared.values_HNd.shape[2])
        own_BQR = shares_BQN.new_zeros(B, heads * T, self.rows_BRN.shape[1])
        for n in self._chunks:
            shares_BQn = shares_BQN[..., n] * self.scale_BN[:, None, n]
            shares_HMn = shares_BQn.unflatten(1, (heads, T)).transpose(0, 1).flatten(1, 2)
            shared_HMd.baddbmm_(shares_HMn, shared.values_HNd[:, n])
            own_BQR.baddbmm_(shares_BQn, self.rows_BRN[..., n].transpose(1, 2))
        vectors_BHRd = _split(self.vectors_BRC @ weights.attention.v_proj.weight.t(), heads)
        seen_BHTd = _by_prompt(shared_HMd, B) + own_BQR.unflatten(1, (heads, T)) @ vectors_BHRd
        return weights.attention.out_proj(seen_BHTd.transpose(1, 2).flatten(2) + weights.value_shift_D)

    def image_to_token(self, index: int, placed_BTC: Tensor, tokens_BTC: Tensor) -> None:
        """Image-to-token attention of layer `index` and the LayerNorm after it."""
        weights, shared = self._side.image_to_token[index], self.shared.image_to_token[index]
        heads, T = weights.attention.heads, tokens_BTC.shape[1]
        keys = self._project(weights.attention.k_proj(placed_BTC), weights.attention.q_proj, heads)
        values_BTD = weights.attention.v_proj(tokens_BTC)
        R, Q = self.rows_BRN.shape[1], heads * T
        rows_BRN = self._all_rows_BRN[:, : R + Q]
        inverse_BN = self.scale_BN.reciprocal()
        vectors_BRC = torch.cat([self.vectors_BRC, weights.new_vectors(values_BTD)], dim=1)
        square = _MeanSquare(
            shared,
            values=[*self._values, _by_head(values_BTD, heads)],
            inverse_scales=[*self._inverse_scales, inverse_BN],
            vectors_BRC=centred(vectors_BRC),
        )
        scale_BN = torch.empty_like(self.scale_BN)
        for n in self._chunks:
            scores_BQn = inverse_BN.new_empty(len(inverse_BN), Q, n.stop - n.start)
            self._score(keys, shared.queries_HdN, weights.place_queries_HdN, n, scores_BQn)
            shares_BQn = torch.softmax(scores_BQn.unflatten(1, (heads, T)), dim=2).flatten(1, 2)
            torch.mul(shares_BQn, inverse_BN[:, None, n], out=rows_BRN[:, R:, n])
            scale_BN[:, n] = torch.rsqrt(square.at(n, rows_BRN) + weights.norm.eps * inverse_BN[:, n].square())
        self._values, self._inverse_scales = square.values, square.inverse_scales
        self.rows_BRN, self.scale_BN = rows_BRN, scale_BN
        self.vectors_BRC = square.vectors_BRC * weights.norm.weight

    def _project(self, tokens_BTD: Tensor, image_side: nn.Linear, heads: int) -> _Projected:
        """Projected tokens, for products with the image under `image_side`; the softmax's scale goes in here."""
        tokens_BTD = tokens_BTD * (tokens_BTD.shape[2] // heads) ** -0.5
        vectors_BHRd = _split(self.vectors_BRC @ image_side.weight.t(), heads)
        own_BQR = (_split(tokens_BTD, heads) @ vectors_BHRd.transpose(2, 3)).flatten(1, 2)
        return _Projected(_by_head(tokens_BTD, heads), own_BQR)

    def _score(self, tokens: _Projected, shared_HdN: Tensor, place_HdN: Tensor, n: slice, out_BQn: Tensor) -> None:
        """Products of tokens and image positions in each head, (B, H T, n)."""
        B, heads = len(out_BQn), len(shared_HdN)
        shared_BHTn = _by_prompt(torch.bmm(tokens.shared_HMd, shared_HdN[..., n]), B)
        out_BHTn = out_BQn.unflatten(1, (heads, -1))
        if not self._values:
            out_BHTn.copy_(shared_BHTn)
            return
        scores_BQn = shared_BHTn.flatten(1, 2).baddbmm_(tokens.own_BQR, self.rows_BRN[..., n])
        scores_BHTn = scores_BQn.unflatten(1, (heads, -1))
        place_BHTn = _by_prompt(torch.bmm(tokens.shared_HMd, place_HdN[..., n]), B)
        torch.addcmul(place_BHTn, scores_BHTn, self.scale_BN[:, None, None, n], out=out_BHTn)


@dataclass(frozen=True, slots=True)
class _Projected:
    """Tokens, for the products with the shared part and with the own rows of the image."""

    shared_HMd: Tensor
    own_BQR: Tensor


class _MeanSquare:
    """Mean over channels of the squared image before a LayerNorm, centred: what the norm divides by.

    It is that of the shared part, plus a quadratic form of the rows, plus twice their products, each expanded so that
    nothing of width C is formed at a position.
    """

    def __init__(
        self, shared: SharedImageToToken, *, values: list[Tensor], inverse_scales: list[Tensor], vectors_BRC: Tensor
    ) -> None:
        self._shared, self.values, self.inverse_scales, self.vectors_BRC = shared, values, inverse_scales, vectors_BRC
        R, C = vectors_BRC.shape[1:]
        Q = R // len(values)
        products_BRR = vectors_BRC @ vectors_BRC.transpose(1, 2) / C
        self._layers = [slice(start, start + Q) for start in range(0, R, Q)]
        # The form is symmetric: a layer's rows meet themselves and, twice, those of later layers.
        self._forms = [products_BRR[:, own, own.start :].clone() for own in self._layers]
        for form in self._forms:
            form[:, :, Q:] *= 2

    def at(self, n: slice, rows_BRN: Tensor) -> Tensor:
        """(B, n), divided by the scale before this layer squared; `rows_BRN` with this layer's."""
        B = len(rows_BRN)
        square_Bn = self._shared.square_N[n].expand(B, -1)
        for layer, own in enumerate(self._layers):
            products_HMn = torch.bmm(self.values[layer], self._shared.outs_LHdN[layer][..., n])
            products_BQn = _by_prompt(products_HMn, B).flatten(1, 2)
            products_BQn.baddbmm_(self._forms[layer], rows_BRN[:, own.start :, n])
            square_Bn = square_Bn + products_BQn.mul_(rows_BRN[:, own, n]).sum(dim=1)
            square_Bn = square_Bn + self._shared.shifts_LN[layer, n] * self.inverse_scales[layer][:, n]
        return square_Bn.clamp_(min=0)


def _split(x_BTD: Tensor, heads: int) -> Tensor:
    """(B, T, H d) -> (B, H, T, d), a view"""
    return x_BTD.unflatten(2, (heads, -1)).transpose(1, 2)


def _by_head(x_BTD: Tensor, heads: int) -> Tensor:
    """(B, T, H d) -> (H, B T, d)"""
    return x_BTD.flatten(0, 1).unflatten(1, (heads, -1)).transpose(0, 1).contiguous()


def _by_prompt(x_HMn: Tensor, prompts: int) -> Tensor:
    """(H, B T, n) -> (B, H, T, n), a view"""
    return x_HMn.unflatten(1, (prompts, -1)).transpose(0, 1)
