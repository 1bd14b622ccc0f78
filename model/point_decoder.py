"""Single foreground points of one encoded crop -> masks and scores, without work that prompts have in common.

The same function as `MaskDecoder.forward` on the prompts that `PromptEncoder` makes of such points, to float rounding.
With the released sizes it takes a tenth of the operations up to the scores, and a fifth with the masks of a 3:2 image
(docs/cost.md). Built from a loaded model; only for inference.

Points go through in blocks of a fixed size, the last one filled up: a matrix product rounds by its shape, and no result
may depend on how many points are asked at once. For a GPU there are two sizes, and whoever asks it has to split a grid
of points in one way only. In products of equal shape every row rounds alike whatever its place, neighbours or number of
threads; the tests hold torch with MKL on x86 to that, with one and two threads.

Legend: P points, F points with those that fill the last block, B of a block, T tokens of a prompt, M masks a prompt,
C channels, D = C/2 inner width of the attentions, g embedding cells a side, h w = 4g, c channels of the upscaled image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from model.graphs import Graphs
from model.precisions import FORMS
from model.prompted_image import PromptedImage
from model.sam import Sam
from model.shared_image import ImageSide, SharedImage
from model.transfers import sent
from model.upscaling import MaskUpscaler

if TYPE_CHECKING:
    from model.fused_decoder import FusedDecoder, FusedImage

Seen: TypeAlias = "PromptedImage | FusedImage"
"""The image as each prompt of a block sees it."""
LARGE_IMAGE = 1024
"""Image positions above which a CPU's cache wants fewer points at once."""
GPU_BLOCK, GPU_SMALL_BLOCK = 256, 64
"""Points in a block on a GPU, whose cores want work, and where fewer than that are asked."""
FUSED_BLOCK = 1024
"""Points in a block where the passes over positions are fused, which takes 2.6 MB a point: few launches, and products
of tokens large enough for all cores."""
GPU_POINTS = 1024
"""Points to ask a GPU at once: those of the largest grid of the recipes, whose masks take 0.8 GB in released sizes."""
GPU_UPSCALED = 64
"""Points whose masks are formed at once on a GPU, which bounds its memory."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Every mask of every point, in its place whether it is wanted or not, so that nobody has to know which are.

    predicted_iou_PM  never clipped
    live_PM           bool, whether that is above the threshold
    logits_PMhw       in the padded input square; of a mask that is not live there may be anything
    """

    predicted_iou_PM: Tensor
    live_PM: Tensor
    logits_PMhw: Tensor


@dataclass(frozen=True, slots=True)
class _Answered:
    """A block of prompts whose masks are not formed yet.

    weights_BMc  what the channels of the upscaled image are summed with
    """

    predicted_iou_BM: Tensor
    weights_BMc: Tensor
    seen: Seen


class PointDecoder:
    """A model's decoder with its weights combined for single points; they must not change afterwards.

    On a GPU nothing here needs a value on the host, so that all of it can be queued at once.

    Working memory, beside `SharedImage` for each crop, with the released sizes: on a CPU 33 MB, and with the steps of a
    GPU 1.1 GB below 256 points and 1.8 GB from there on. The masks come on top: 0.8 MB a point, of which a CPU gives
    memory to the live ones alone.

    fused  what the precisions for a GPU's tensor cores use, None where nothing is fused
    """

    def __init__(self, sam: Sam, precision: str = "fp32") -> None:
        place_1Cgg = sam.prompt_encoder.get_dense_pe()
        device = place_1Cgg.device
        self._on_cpu = device.type == "cpu"
        self._g = sam.config.grid_side
        self._chunk = _chunk(self._g**2, on_cpu=self._on_cpu)
        self._graphs = Graphs["tuple[SharedImage, Tensor]", _Answered](device)
        self._prompt_encoder, self._decoder = sam.prompt_encoder, sam.mask_decoder
        self._outputs = sam.config.multimask_outputs
        # Not the single-mask answer, and not the prompt.
        first = sam.mask_decoder.iou_place
        self._wanted_T = sent(np.array([first, *range(first + 2, first + 2 + self._outputs)]), device)
        self._upscaler = MaskUpscaler(sam.mask_decoder, grid_side=self._g, chunk=self._chunk)
        self._image_side = ImageSide(
            sam.mask_decoder,
            no_mask_1C=sam.prompt_encoder.no_mask_embed.weight,
            place_NC=place_1Cgg[0].flatten(1).t(),
            upscale_CE=self._upscaler.first_CE,
        )
        self.fused = self._fused(sam, precision)

    def _fused(self, sam: Sam, precision: str) -> FusedDecoder | None:
        """None on a CPU, in fp32, without Triton, and for sizes that no released model has."""
        if self._on_cpu or precision not in FORMS or find_spec("triton") is None:
            return None
        from model.fused_decoder import FusedDecoder, fits  # who has no GPU never imports Triton
        from model.fused_tokens import FusedTokens

        if not fits(sam.config):
            return None
        tokens = FusedTokens(sam.prompt_encoder, sam.mask_decoder, self._image_side.token_to_image, self._wanted_T)
        return FusedDecoder(self._image_side, self._upscaler, sam.config, tokens)

    @property
    def _tokens(self) -> int:
        """Of a prompt: the decoder's own, the point, and the one that stands after points."""
        return self._decoder.iou_place + 1 + len(self._decoder.mask_tokens.weight) + 2

    def share(self, embedding_1Cgg: Tensor, fine: tuple[Tensor, Tensor] | None = None) -> SharedImage:
        """The work on an encoded crop that all its prompts share; see `mask_decoder.Embedded`."""
        shared = self._image_side.share(embedding_1Cgg)
        if fine is not None:
            shared = replace(shared, fine=self._upscaler.fine(*fine))
        return shared if self.fused is None else replace(shared, parts=self.fused.parts(shared))

    def decode(
        self, image: SharedImage, coords_P2: Tensor, *, pred_iou_thresh: float, cells_hw: tuple[int, int]
    ) -> Predictions:
        """Answer points of one crop; of masks with predicted IoU > `pred_iou_thresh` there are logits.

        coords_P2  (x, y) float64 or float32, pixels of the input square
        cells_hw   rows and columns of embedding cells to form masks on; logits are 0 elsewhere
        """
        P, M, side = len(coords_P2), self._outputs, 4 * self._g
        B, upscaled = _block(self._g**2, P, on_cpu=self._on_cpu, fused=self.fused is not None)
        filled = -(-P // B) * B
        coords_F2 = torch.cat([coords_P2, coords_P2[-1:].expand(filled - P, 2)])
        predicted_iou_FM = coords_P2.new_empty(filled, M, dtype=torch.float32)
        logits_FMhw = coords_P2.new_empty(filled, M, side, side, dtype=torch.float32)
        rows_BRN = None if self._graphs.wanted or self.fused else self._rows(B, coords_P2)
        for start in range(0, filled, B):
            block = slice(start, start + B)
            asked = image, coords_F2[block]
            answered = self._by_graph(asked) if self._graphs.wanted else self._answer(*asked, rows_BRN)
            seen, predicted_iou_FM[block] = answered.seen, answered.predicted_iou_BM
            if not isinstance(seen, PromptedImage):
                live_BM = predicted_iou_FM[block] > pred_iou_thresh
                live_BM[max(P - start, 0) :] = False
                seen.fill(logits_FMhw[block], answered.weights_BMc, live_BM, cells_hw)
                continue
            wanted_B = [True] * B
            if self._on_cpu:
                wanted_B = (predicted_iou_FM[block] > pred_iou_thresh).any(dim=1).tolist()
                wanted_B[P - start :] = []
            for prompts in _stretches(wanted_B, upscaled):
                weights_bMc = answered.weights_BMc[prompts]
                self._upscaler.fill(logits_FMhw[block][prompts], seen, prompts, weights_bMc, cells_hw=cells_hw)
        predicted_iou_PM = predicted_iou_FM[:P]
        return Predictions(predicted_iou_PM, predicted_iou_PM > pred_iou_thresh, logits_FMhw[:P])

    def spare_memory(self) -> None:
        """Give back what only saves time, and do not take it again."""
        self._graphs.give_up()

    def _by_graph(self, asked: tuple[SharedImage, Tensor]) -> _Answered:
        """See `_answer`; by the graph of blocks of that size, whose next call writes over it."""
        return self._graphs.of(len(asked[1]), self.with_rows_of_its_own, asked).borrowed(asked)

    def with_rows_of_its_own(self, asked: tuple[SharedImage, Tensor]) -> _Answered:
        return self._answer(*asked, None)

    def _answer(self, image: SharedImage, coords_B2: Tensor, rows_BRN: Tensor | None) -> _Answered:
        """`rows_BRN` as `PromptedImage` takes them, or None for some of its own."""
        if self.fused is not None:
            return _Answered(*self.fused.answers(image, coords_B2))
        tokens_BTC, seen = self._attend(image, coords_B2, rows_BRN)
        scores_BM = self._decoder.predicted_iou(tokens_BTC)[:, 1:]
        return _Answered(scores_BM, self._mask_weights(tokens_BTC), seen)

    def _rows(self, block: int, like: Tensor) -> Tensor:
        return like.new_empty(self._rows_shape(block), dtype=torch.float32)

    def _rows_shape(self, block: int) -> tuple[int, int, int]:
        layers = self._decoder.transformer.two_way_layers()
        return block, len(layers) * layers[0].cross_attn_image_to_token.heads * self._tokens, self._g**2

    def _attend(self, image: SharedImage, coords_B2: Tensor, rows_BRN: Tensor | None) -> tuple[Tensor, PromptedImage]:
        """The transformer: tokens of scores and wanted masks (B, 1 + M, C), and the image as each prompt sees it."""
        rows_BRN = self._rows(len(coords_B2), coords_B2) if rows_BRN is None else rows_BRN
        seen = PromptedImage(image, self._image_side, rows_BRN, chunk=self._chunk)
        transformer = self._decoder.transformer
        tokens_BTC = places_BTC = self._prompt_tokens(coords_B2)
        for index, layer in enumerate(transformer.two_way_layers()):
            tokens_BTC = layer.attend_to_self(tokens_BTC, places_BTC)
            attended_BTC = seen.token_to_image(index, tokens_BTC + places_BTC)
            tokens_BTC = layer.norm2(tokens_BTC + attended_BTC)
            tokens_BTC = layer.norm3(tokens_BTC + layer.mlp(tokens_BTC))
            seen.image_to_token(index, tokens_BTC + places_BTC, tokens_BTC)
        tokens_BTC, places_BTC = (each.index_select(1, self._wanted_T) for each in (tokens_BTC, places_BTC))
        attended_BTC = seen.token_to_image(len(transformer.layers), tokens_BTC + places_BTC)
        return transformer.norm_final_attn(tokens_BTC + attended_BTC), seen

    def _prompt_tokens(self, coords_B2: Tensor) -> Tensor:
        labels_B1 = torch.ones(len(coords_B2), 1, dtype=torch.int64, device=coords_B2.device)
        sparse_BKC, _ = self._prompt_encoder(points=(coords_B2[:, None], labels_B1))
        own_TC = self._decoder.own_tokens()
        return torch.cat([own_TC.expand(len(coords_B2), -1, -1), sparse_BKC], dim=1)

    def _mask_weights(self, tokens_BTC: Tensor) -> Tensor:
        """(B, M, c): what the channels of the upscaled image are summed with."""
        mlps = self._decoder.output_hypernetworks_mlps[1:]
        return torch.stack([mlp(tokens_BTC[:, 1 + m]) for m, mlp in enumerate(mlps)], dim=1)


def _stretches(wanted_B: list[bool], size: int) -> list[slice]:
    """`size` neighbours each, without those of which none is wanted."""
    starts = [start for start in range(0, len(wanted_B), size) if any(wanted_B[start : start + size])]
    return [slice(start, start + size) for start in starts]


def _chunk(positions: int, *, on_cpu: bool) -> int:
    """Image positions in a chunk, and see `_block`."""
    if not on_cpu:
        return positions
    return 512 if positions > LARGE_IMAGE else 128


def _block(positions: int, points: int, *, on_cpu: bool, fused: bool) -> tuple[int, int]:
    """Points in a block, and points whose masks are formed at once.

    On a CPU such that what one step touches stays in a cache of 1 MiB (measured: 4 to 32 points, 64 to 1024 positions);
    on a GPU so that there are few launches, and small grids do not fill large blocks with copies.
    """
    if not on_cpu:
        sizes = (FUSED_BLOCK, GPU_BLOCK) if fused else (GPU_BLOCK,)
        return next((size for size in sizes if points >= size), GPU_SMALL_BLOCK), GPU_UPSCALED
    return (8, 1) if positions > LARGE_IMAGE else (16, 1)
