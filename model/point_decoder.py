"""Single foreground points of one encoded crop -> masks and scores, without work that prompts have in common.

The same function as `MaskDecoder.forward` on the prompts that `PromptEncoder` makes of such points, to float rounding.
With the released sizes it takes a tenth of the operations up to the scores, and a fifth with the masks of a 3:2 image
(docs/cost.md). Built from a loaded model; only for inference.

Points go through in blocks of a fixed size, the last one filled up: a matrix product rounds by its shape, and no result
may depend on how many points are asked at once. In products of equal shape every row rounds alike whatever its place,
neighbours or number of threads; the tests hold torch with MKL on x86 to that, with one and two threads.

Legend: P points, B points of a block, T tokens of a prompt, M masks a prompt, N masks kept, C channels, D = C/2 inner
width of the attentions, g embedding cells a side, h w = 4g, c channels of the upscaled image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.prompted_image import PromptedImage
from model.sam import Sam
from model.shared_image import ImageSide, SharedImage
from model.upscaling import MaskUpscaler

LARGE_IMAGE = 1024
"""Image positions above which a CPU's cache wants fewer points at once."""
CUDA_BLOCK = 64
"""Points at once on a GPU, whose cores want work."""
COLUMNS = ("point_index_N", "mask_index_N", "predicted_iou_N", "logits_Nhw")


@dataclass(frozen=True, slots=True)
class Predictions:
    """Candidates above the predicted-IoU threshold, in (point, output) order; logits in the padded input square."""

    point_index_N: Tensor
    mask_index_N: Tensor
    predicted_iou_N: Tensor
    logits_Nhw: Tensor


class PointDecoder:
    """A model's decoder with its weights combined for single points; they must not change afterwards.

    Working memory, beside `SharedImage` for each crop, with the released sizes: on a CPU 33 MB, and with the steps of a
    GPU 0.44 GB up to the scores and 1.58 GB for masks, however few points are asked. What is kept comes on top.
    """

    def __init__(self, sam: Sam) -> None:
        place_1Cgg = sam.prompt_encoder.get_dense_pe()
        on_cpu = place_1Cgg.device.type == "cpu"
        self._g = sam.config.grid_side
        self._block, self._chunk, self._upscaled = _steps(self._g**2, on_cpu=on_cpu)
        self._prompt_encoder, self._decoder = sam.prompt_encoder, sam.mask_decoder
        self._upscaler = MaskUpscaler(sam.mask_decoder, grid_side=self._g, chunk=self._chunk)
        self._image_side = ImageSide(
            sam.mask_decoder,
            no_mask_1C=sam.prompt_encoder.no_mask_embed.weight,
            place_NC=place_1Cgg[0].flatten(1).t(),
            upscale_CE=self._upscaler.first_CE,
        )

    def share(self, embedding_1Cgg: Tensor) -> SharedImage:
        """The work on an encoded crop that all its prompts share."""
        return self._image_side.share(embedding_1Cgg)

    def decode(
        self, image: SharedImage, coords_P2: Tensor, *, pred_iou_thresh: float, cells_hw: tuple[int, int]
    ) -> Predictions:
        """Answer points of one crop; only masks with predicted IoU > `pred_iou_thresh` are formed.

        coords_P2  (x, y) float64, pixels of the padded input square
        cells_hw   rows and columns of embedding cells to form masks on; logits are 0 elsewhere
        """
        B = self._block
        rows_BRN = coords_P2.new_empty(self._rows_shape(), dtype=torch.float32)
        none = coords_P2.new_zeros(0, dtype=torch.int64)
        blocks = [Predictions(none, none, rows_BRN.new_zeros(0), rows_BRN.new_zeros(0, 4 * self._g, 4 * self._g))]
        for start in range(0, len(coords_P2), B):
            block_B2 = coords_P2[start : start + B]
            filled_B2 = torch.cat([block_B2, block_B2[-1:].expand(B - len(block_B2), 2)])
            tokens_BTC, seen = self._attend(image, filled_B2, rows_BRN)
            predicted_iou_BM = self._decoder.predicted_iou(tokens_BTC)[:, 1:]
            kept_BM = predicted_iou_BM > pred_iou_thresh
            kept_BM[len(block_B2) :] = False
            point_index_N, mask_index_N = kept_BM.nonzero(as_tuple=True)
            logits_Nhw = self._logits(tokens_BTC, seen, kept_BM, cells_hw)
            blocks.append(Predictions(start + point_index_N, mask_index_N, predicted_iou_BM[kept_BM], logits_Nhw))
        return Predictions(*(torch.cat([getattr(block, name) for block in blocks]) for name in COLUMNS))

    def _rows_shape(self) -> tuple[int, int, int]:
        layers = self._decoder.transformer.two_way_layers()
        heads, tokens = layers[0].cross_attn_image_to_token.heads, 1 + len(self._decoder.mask_tokens.weight) + 2
        return self._block, len(layers) * heads * tokens, self._g**2

    def _attend(self, image: SharedImage, coords_B2: Tensor, rows_BRN: Tensor) -> tuple[Tensor, PromptedImage]:
        """The transformer: tokens of scores and wanted masks (B, 1 + M, C), and the image as each prompt sees it."""
        transformer = self._decoder.transformer
        seen = PromptedImage(image, self._image_side, rows_BRN, chunk=self._chunk)
        tokens_BTC = places_BTC = self._prompt_tokens(coords_B2)
        for index, layer in enumerate(transformer.two_way_layers()):
            tokens_BTC = layer.attend_to_self(tokens_BTC, places_BTC)
            attended_BTC = seen.token_to_image(index, tokens_BTC + places_BTC)
            tokens_BTC = layer.norm2(tokens_BTC + attended_BTC)
            tokens_BTC = layer.norm3(tokens_BTC + layer.mlp(tokens_BTC))
            seen.image_to_token(index, tokens_BTC + places_BTC, tokens_BTC)
        outputs = len(self._decoder.mask_tokens.weight)
        wanted = [0, *range(2, 1 + outputs)]  # not the single-mask answer, and not the prompt
        tokens_BTC, places_BTC = tokens_BTC[:, wanted], places_BTC[:, wanted]
        attended_BTC = seen.token_to_image(len(transformer.layers), tokens_BTC + places_BTC)
        return transformer.norm_final_attn(tokens_BTC + attended_BTC), seen

    def _prompt_tokens(self, coords_B2: Tensor) -> Tensor:
        labels_B1 = torch.ones(len(coords_B2), 1, dtype=torch.int64, device=coords_B2.device)
        sparse_BKC, _ = self._prompt_encoder(points=(coords_B2[:, None], labels_B1))
        own_TC = torch.cat([self._decoder.iou_token.weight, self._decoder.mask_tokens.weight])
        return torch.cat([own_TC.expand(len(coords_B2), -1, -1), sparse_BKC], dim=1)

    def _logits(self, tokens_BTC: Tensor, seen: PromptedImage, kept_BM: Tensor, cells_hw: tuple[int, int]) -> Tensor:
        """(N, h, w): the kept masks of the prompts that have one, a few prompts at a time."""
        parts = [tokens_BTC.new_zeros(0, 4 * self._g, 4 * self._g)]
        if not kept_BM.any():
            return parts[0]
        mlps = self._decoder.output_hypernetworks_mlps[1:]
        weights_BMc = torch.stack([mlp(tokens_BTC[:, 1 + m]) for m, mlp in enumerate(mlps)], dim=1)
        for start in range(0, self._block, self._upscaled):
            prompts = slice(start, start + self._upscaled)
            if kept_BM[prompts].any():
                logits_BMhw = self._upscaler.logits(seen, prompts, weights_BMc[prompts], cells_hw=cells_hw)
                parts.append(logits_BMhw[kept_BM[prompts]])
        return torch.cat(parts)


def _steps(positions: int, *, on_cpu: bool) -> tuple[int, int, int]:
    """Points in a block, image positions in a chunk, and points upscaled at once.

    On a CPU such that what one step touches stays in a cache of 1 MiB (measured: 4 to 32 points, 64 to 1024 positions);
    on a GPU so that there are few launches.
    """
    if not on_cpu:
        return CUDA_BLOCK, positions, CUDA_BLOCK
    return (8, 512, 1) if positions > LARGE_IMAGE else (16, 128, 1)
