"""SAM 2 and later of any sizes with random weights, for benchmarks and tests: they tell of time, not of quality."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from model.config import HieraConfig, Sam2Config
from model.sam import Sam
from model.segmenter import TorchSegmenter
from pipeline.masks.crops import grid_points

THRESHOLD = 0.8
"""The predicted IoU around which `calibrated_sam_2` puts its scores: the default of sam2's generator."""
_NOT_WEIGHTS = ("pixel_mean", "pixel_std", "positions_1ssC", "position_ids", "inv_freq", "original_inv_freq")


def random_sam_2(config: Sam2Config, *, seed: int) -> Sam:
    """Every tensor at random, large enough to show; fresh ones are zero in many places."""
    cast(Any, torch).manual_seed(seed)
    sam = Sam(config).eval().requires_grad_(requires_grad=False)
    for module in sam.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if name not in _NOT_WEIGHTS:
                scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.1
                offset = 1.0 if tensor.dim() == 1 and name in ("weight", "running_var") else 0.0
                tensor.copy_(offset + scale * torch.randn_like(tensor))
    sam.load_state_dict(sam.state_dict())
    return sam


def calibrated_sam_2(config: Sam2Config, image_HW3: npt.NDArray[np.uint8], *, seed: int) -> Sam:
    """A random model whose masks on the image are local, steep and at the threshold, as those of a trained one are.

    As `official.calibrated_official` does it: smooth waves in the positions, a decoder whose answers differ from point
    to point, and output layers that are rescaled by what 64 points of the image answer.
    """
    sam = random_sam_2(config, seed=seed)
    if isinstance(config, HieraConfig):
        cast(Any, sam.image_encoder).trunk.pos_embed.copy_(_waves(config))
    decoder: Any = sam.mask_decoder
    for part in (decoder.transformer, decoder.output_hypernetworks_mlps):
        for parameter in part.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    # The last upscaled channel becomes the constant 10, with which a mask's logits can be shifted.
    decoder.output_upscaling[3].weight[:, -1] = 0
    decoder.output_upscaling[3].bias[-1] = 10
    decoder.conv_s0.weight[-1] = 0
    decoder.conv_s0.bias[-1] = 0
    for mlp in decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight[-1] = 0
        mlp.layers[-1].bias[-1] = 0
    sam.load_state_dict(sam.state_dict())
    _rescale(sam, image_HW3)
    return sam


def _waves(config: HieraConfig) -> torch.Tensor:
    """(1, C, b, b) sines of random direction, at most one and a half periods over the map."""
    position_b = torch.linspace(0, 1, config.background)
    fx_C, fy_C, phase_C = (torch.rand(3, config.dims[0]) * 3 - 1.5)[..., None, None]
    turns_Cbb = position_b[:, None] * fy_C + position_b[None, :] * fx_C + phase_C
    return 2 * torch.sin(2 * math.pi * turns_Cbb)[None]


def _rescale(sam: Sam, image_HW3: npt.NDArray[np.uint8]) -> None:
    """The last layers: one cell in twelve is above 0, and scores spread around the threshold."""
    segmenter, decoder = TorchSegmenter(sam, weights_sha256=""), cast(Any, sam.mask_decoder)
    points_xy_P2 = grid_points((image_HW3.shape[0], image_HW3.shape[1]), 8)
    [crop] = segmenter.encode([image_HW3])
    answer = segmenter.decode(crop, points_xy_P2, pred_iou_thresh=-math.inf)
    score_PM, head = answer.predicted_iou_PM.double().logit(), decoder.iou_prediction_head.layers[-1]
    for output in range(segmenter.outputs_per_prompt):
        # Output 0 of the network is the single-mask answer, which is not asked for here.
        row, logits_Phw = output + 1, answer.logits_PMhw[:, output].contiguous()
        last, gain = decoder.output_hypernetworks_mlps[row].layers[-1], 500 / logits_Phw.std()
        last.weight.mul_(gain)
        last.bias.mul_(gain)
        some = logits_Phw.flatten()[:: max(1, logits_Phw.numel() // 10**6)]
        last.bias[-1] = -gain * some.quantile(11 / 12) / 10
        gain = 0.6 / score_PM[:, output].std()
        head.weight[row].mul_(gain)
        centre = math.log(THRESHOLD / (1 - THRESHOLD))
        head.bias[row] = centre + gain * (head.bias[row] - score_PM[:, output].mean())
