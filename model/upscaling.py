"""The decoder's image -> mask logits, for the prompts and on the cells that are wanted; and which cells an image needs.

Both transposed convolutions have kernel 2 and stride 2, so that each is a matrix product at every position. The first
is taken straight from the image's rows (see `shared_image`): the image itself is not formed, and what is formed on the
way to the logits is formed for a chunk of positions at a time.

Legend: B prompts, M masks, R rows, C channels, E = 4 C/4 first convolution's outputs (dy, dx, channel), c channels of
the upscaled image, f = 4 cells of a position, K = 4 c second convolution's outputs, N positions, n of a chunk, g
positions a side, h w = 4 g.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.image_encoder import LayerNorm2d
from model.mask_decoder import MaskDecoder
from model.prompted_image import PromptedImage
from model.shared_image import SharedFine


class MaskUpscaler:
    """The decoder's `output_upscaling` and the products with the hypernetworks' outputs."""

    def __init__(self, decoder: MaskDecoder, *, grid_side: int, chunk: int) -> None:
        first = cast(nn.ConvTranspose2d, decoder.output_upscaling[0])
        self.norm = cast(LayerNorm2d, decoder.output_upscaling[1])
        second = cast(nn.ConvTranspose2d, decoder.output_upscaling[3])
        self._grid_side, self._chunk = grid_side, chunk
        self.first_CE = first.weight.permute(0, 2, 3, 1).flatten(1)
        """What turns an image position into its four cells, without the bias."""
        last_shift_C = decoder.transformer.two_way_layers()[-1].norm4.bias
        self.first_shift_E = last_shift_C @ self.first_CE + cast(Tensor, first.bias).repeat(4)
        self.second = second.weight.permute(0, 2, 3, 1).flatten(1)
        self.second_shift = cast(Tensor, second.bias).repeat(4)

    def fine(self, fine_0: Tensor, fine_1: Tensor) -> SharedFine:
        """`Embedded.fine` as `fill` adds it."""
        g = self._grid_side
        first_gygxC = fine_1[0].permute(1, 2, 0).reshape(g, 2, g, 2, -1)
        second_gyygxxc = fine_0[0].permute(1, 2, 0).reshape(g, 2, 2, g, 2, 2, -1)
        return SharedFine(
            first_NE=first_gygxC.transpose(1, 2).reshape(g * g, -1) + self.first_shift_E,
            second_NfK=second_gyygxxc.permute(0, 3, 1, 4, 2, 5, 6).reshape(g * g, 4, -1) + self.second_shift,
        )

    def fill(
        self,
        out_BMhw: Tensor,
        image: PromptedImage,
        prompts: slice,
        weights_BMc: Tensor,
        *,
        cells_hw: tuple[int, int],
    ) -> None:
        """Logits of some `prompts` of the image's block, zero outside the first `cells_hw` rows and columns of cells.

        out_BMhw     (B, M, 4 g, 4 g), of any content
        weights_BMc  the hypernetworks' outputs for those prompts
        """
        g, (height, width) = self._grid_side, cells_hw
        B, M, _ = weights_BMc.shape
        out_BMhw[:, :, 4 * height :] = 0
        out_BMhw[:, :, : 4 * height, 4 * width :] = 0
        vectors_BRE = image.vectors_BRC[prompts] @ self.first_CE
        rows_BRgg = image.rows_BRN[prompts].unflatten(2, (g, g))
        scale_Bgg = image.scale_BN[prompts].unflatten(1, (g, g))
        shared_ggE, fine = image.shared.upscaled_NE.unflatten(0, (g, g)), image.shared.fine
        step = max(1, self._chunk // width)
        for top in range(0, height, step):
            y, x = slice(top, min(top + step, height)), slice(0, width)
            rows_BnR = rows_BRgg[..., y, x].flatten(2).transpose(1, 2)
            first_BnE = shared_ggE[y, x].flatten(0, 1) + rows_BnR @ vectors_BRE
            shift, second_nfK = self.first_shift_E, None
            if fine is not None:
                shift = fine.first_NE.unflatten(0, (g, g))[y, x].flatten(0, 1)
                second_nfK = fine.second_NfK.unflatten(0, (g, g))[y, x].flatten(0, 1)
            first_BnE = torch.addcmul(shift, first_BnE, scale_Bgg[:, y, x].flatten(1)[..., None])
            logits_BMn = self._finish(first_BnE, weights_BMc, second_nfK)
            cells_BMyx = logits_BMn.unflatten(2, (y.stop - y.start, width, 2, 2, 2, 2))
            out_BMhw[:, :, 4 * y.start : 4 * y.stop, : 4 * width] = cells_BMyx.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(
                B, M, 4 * (y.stop - y.start), 4 * width
            )

    def _finish(self, first_BnE: Tensor, weights_BMc: Tensor, second_nfK: Tensor | None) -> Tensor:
        """From the first convolution to the logits (B, M, n dy dx dy dx).

        second_nfK  instead of the second convolution's bias
        """
        B = len(first_BnE)
        fine = first_BnE.reshape(-1, len(self.norm.weight))
        fine = F.layer_norm(fine, fine.shape[1:], self.norm.weight, self.norm.bias, self.norm.eps)
        shift = self.second_shift if second_nfK is None else second_nfK.flatten(0, 1).repeat(B, 1)
        fine = torch.addmm(shift, F.gelu(fine), self.second)
        finer_Bmc = F.gelu(fine).view(B, -1, weights_BMc.shape[2])
        return weights_BMc @ finer_Bmc.transpose(1, 2)


def cells_inside(resized_hw: tuple[int, int], *, input_side: int, grid_side: int) -> tuple[int, int]:
    """Rows and columns of image positions that a bilinear enlargement of the masks touches inside the unpadded image.

    resized_hw  pixels of the unpadded image, at the top left of the input square
    """
    per_pixel = 4 * grid_side / input_side

    def cells(pixels: int) -> int:
        last_touched = int(max((pixels - 0.5) * per_pixel - 0.5, 0)) + 1
        return min(last_touched // 4 + 1, grid_side)

    return cells(resized_hw[0]), cells(resized_hw[1])
