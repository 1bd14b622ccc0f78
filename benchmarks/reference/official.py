"""The released segment_anything 1.0: importable, of any size, and behind our `Segmenter` protocol.

torchvision is not a dependency of ours. Where it is missing, a stand-in has the four functions that the released code
takes from it. It is there while that code is imported, and no other library sees it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks.reference.stand_in import standing_in
from model.config import SamConfig
from model.point_decoder import Predictions
from pipeline.masks.crops import grid_points
from pipeline.settings import Recipe


def box_area(boxes_N4: torch.Tensor) -> torch.Tensor:
    """torchvision.ops.boxes.box_area for XYXY boxes."""
    return (boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """torchvision.ops.boxes.batched_nms on the CPU, one box at a time: stable by falling score, IoU in float32."""
    boxes_N4, category_N = boxes.cpu().numpy(), idxs.cpu().numpy()
    area_N = box_area(boxes).cpu().numpy()
    order_N: npt.NDArray[np.int64] = torch.sort(scores, descending=True, stable=True).indices.cpu().numpy()
    kept_N, count = np.empty_like(order_N), 0
    for i in order_N.tolist():
        j_K = kept_N[:count]
        lower_K2 = np.maximum(boxes_N4[i, :2], boxes_N4[j_K, :2])
        upper_K2 = np.minimum(boxes_N4[i, 2:], boxes_N4[j_K, 2:])
        shared_K = (upper_K2 - lower_K2).clip(min=0).prod(axis=1)
        union_K = area_N[i] + area_N[j_K] - shared_K
        some_K = (category_N[j_K] == category_N[i]) & (union_K > 0)
        iou_K = (shared_K[some_K] / union_K[some_K]).astype(np.float64)
        if not (iou_K > iou_threshold).any():
            kept_N[count] = i
            count += 1
    return torch.tensor(kept_N[:count], device=boxes.device)


def to_pil_image(image_HW3: npt.NDArray[np.uint8]) -> Image.Image:
    """torchvision.transforms.functional.to_pil_image for 8-bit RGB."""
    return Image.fromarray(image_HW3)


def resize(image: Image.Image, size_hw: Sequence[int]) -> Image.Image:
    """torchvision.transforms.functional.resize of a Pillow image: bilinear, which Pillow antialiases.

    Along the rows first, as every Pillow did until 13, which picks the order by size (a grey level here and there).
    """
    height, width = size_hw
    return image.resize((width, image.height), Image.Resampling.BILINEAR).resize(
        (width, height), Image.Resampling.BILINEAR
    )


@contextmanager
def torchvision_stand_in() -> Generator[None]:
    """The real one if it is installed, else the stand-in for the duration of the block.

    It must not stay in sys.modules: transformers asks there whether torchvision exists.
    """
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    names: dict[str, dict[str, Any]] = {
        "torchvision": {},
        "torchvision.ops": {},
        "torchvision.ops.boxes": {"batched_nms": batched_nms, "box_area": box_area},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {"resize": resize, "to_pil_image": to_pil_image},
    }
    with standing_in(names):
        yield


with torchvision_stand_in():
    segment_anything: Any = importlib.import_module("segment_anything")
_modeling: Any = importlib.import_module("segment_anything.modeling")


def build_official(config: SamConfig, *, modeling: Any = _modeling) -> Any:
    """A released `Sam` of the given sizes with fresh random weights (seed torch yourself), ready to predict.

    modeling  the package of its parts: the released one, or a fork's with the same constructors
    """
    sam = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            depth=config.depth,
            embed_dim=config.embed_dim,
            img_size=config.input_side,
            mlp_ratio=(config.mlp_channels + 0.5) / config.embed_dim,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=config.heads,
            patch_size=config.patch,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=config.global_blocks,
            window_size=config.window,
            out_chans=config.decoder_dim,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=config.decoder_dim,
            image_embedding_size=(config.grid_side, config.grid_side),
            input_image_size=(config.input_side, config.input_side),
            mask_in_chans=16,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=config.multimask_outputs,
            transformer=modeling.TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.decoder_dim,
                mlp_dim=config.decoder_mlp,
                num_heads=config.decoder_heads,
            ),
            transformer_dim=config.decoder_dim,
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_dim,
        ),
    )
    return sam.eval().requires_grad_(requires_grad=False)


@dataclass(frozen=True)
class OfficialCrop:
    embedding: torch.Tensor
    crop_hw: tuple[int, int]
    resized_hw: tuple[int, int]


class OfficialSegmenter:
    """A released `Sam` as our `Segmenter`: the very calls of SamPredictor, up to the low-resolution masks.

    Where the released resize would leave no pixel (an aspect above twice the input side) one is kept.
    """

    def __init__(self, sam: Any) -> None:
        self._sam = sam
        self._transform = segment_anything.utils.transforms.ResizeLongestSide(self.frame_side)

    @property
    def frame_side(self) -> int:
        return self._sam.image_encoder.img_size

    @property
    def outputs_per_prompt(self) -> int:
        return self._sam.mask_decoder.num_multimask_outputs

    @property
    def points_at_once(self) -> int | None:
        return None

    @property
    def crops_at_once(self) -> int | None:
        return None

    def spare_memory(self) -> None:
        pass

    @torch.no_grad()
    def encode(self, crops_HW3: Sequence[npt.NDArray[np.uint8]]) -> list[OfficialCrop]:
        return [self._encode_one(crop_HW3) for crop_HW3 in crops_HW3]

    def _encode_one(self, crop_HW3: npt.NDArray[np.uint8]) -> OfficialCrop:
        crop_hw = crop_HW3.shape[0], crop_HW3.shape[1]
        height, width = self._transform.get_preprocess_shape(*crop_hw, self.frame_side)
        resized_hw = max(height, 1), max(width, 1)
        functions = segment_anything.utils.transforms  # torchvision's own where it is installed
        resized_HW3 = np.array(functions.resize(functions.to_pil_image(crop_HW3), resized_hw))
        image_13HW = torch.as_tensor(resized_HW3).permute(2, 0, 1).contiguous()[None]
        embedding = self._sam.image_encoder(self._sam.preprocess(image_13HW))
        return OfficialCrop(embedding, crop_hw, resized_hw)

    @torch.no_grad()
    def decode(
        self, crop: OfficialCrop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float
    ) -> Predictions:
        (height, width), (resized_height, resized_width) = crop.crop_hw, crop.resized_hw
        scaled_P2 = points_xy_P2 * np.array([resized_width / width, resized_height / height])
        coords_P12 = torch.as_tensor(scaled_P2)[:, None]
        labels_P1 = torch.ones(len(coords_P12), 1, dtype=torch.int)
        sparse, dense = self._sam.prompt_encoder(points=(coords_P12, labels_P1), boxes=None, masks=None)
        logits_PMhw, predicted_iou_PM = self._sam.mask_decoder(
            image_embeddings=crop.embedding,
            image_pe=self._sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return Predictions(predicted_iou_PM, predicted_iou_PM > pred_iou_thresh, logits_PMhw)


def calibrated_official(config: SamConfig, image_HW3: npt.NDArray[np.uint8], *, seed: int) -> Any:
    """A random `Sam` whose masks on `image_HW3` behave like those of a trained one: local, and a good share survives.

    Fresh random weights answer every point with the same scattered pixels, logits near 0 and predicted IoUs near 0:
    nothing survives, and a comparison would compare nothing. So
    (1) smooth waves go into the encoder's position embedding (zero when fresh), so that masks are local blobs;
    (2) the decoder's matrices grow four times, so that answers differ from point to point;
    (3) measured on an 8x8 grid of points over the image, the two output layers are rescaled: to steep logits of which
        one pixel in twelve is above 0, and to predicted IoUs of 0.1 around the recipe's threshold.
    """
    cast(Any, torch).manual_seed(seed)
    sam = build_official(config)
    sam.image_encoder.pos_embed.copy_(_waves(config))
    calibrate(sam, image_HW3)
    return sam


def calibrate(sam: Any, image_HW3: npt.NDArray[np.uint8]) -> None:
    """Steps 2 and 3 of `calibrated_official`, in a model with any encoder."""
    decoder = sam.mask_decoder
    for part in (decoder.transformer, decoder.output_hypernetworks_mlps):
        for parameter in part.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    # The last upscaled channel becomes the constant 10, with which a mask's logits can be shifted.
    decoder.output_upscaling[3].weight[:, -1] = 0
    decoder.output_upscaling[3].bias[-1] = 10
    for mlp in decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight[-1] = 0
        mlp.layers[-1].bias[-1] = 0
    segmenter = OfficialSegmenter(sam)
    height, width = image_HW3.shape[:2]
    points_xy_P2 = grid_points((height, width), 8)
    answer = segmenter.decode(segmenter.encode([image_HW3])[0], points_xy_P2, pred_iou_thresh=-math.inf)
    for output in range(segmenter.outputs_per_prompt):
        # Output 0 of the network is the single-mask answer, which is not asked for here.
        logits_Phw, predicted_iou_P = answer.logits_PMhw[:, output], answer.predicted_iou_PM[:, output]
        _rescale_output(decoder, output + 1, logits_Phw.contiguous(), predicted_iou_P.contiguous())


def _waves(config: SamConfig) -> torch.Tensor:
    """(1, g, g, C) sines of random direction, at most one and a half periods over the grid."""
    position_g = torch.linspace(0, 1, config.grid_side)
    fx_C, fy_C, phase_C = torch.rand(3, config.embed_dim) * 3 - 1.5
    turns_ggC = position_g[:, None, None] * fy_C + position_g[None, :, None] * fx_C + phase_C
    return 2 * torch.sin(2 * math.pi * turns_ggC)[None]


def _rescale_output(decoder: Any, row: int, logits_Phw: torch.Tensor, predicted_iou_P: torch.Tensor) -> None:
    last = decoder.output_hypernetworks_mlps[row].layers[-1]
    gain = 500 / logits_Phw.std()
    last.weight.mul_(gain)
    last.bias.mul_(gain)
    last.bias[-1] = -gain * logits_Phw.flatten()[:: max(1, logits_Phw.numel() // 10**6)].quantile(11 / 12) / 10
    head = decoder.iou_prediction_head.layers[-1]
    gain = 0.1 / predicted_iou_P.std()
    head.weight[row].mul_(gain)
    head.bias[row] = Recipe.pred_iou_thresh + gain * (head.bias[row] - predicted_iou_P.mean())
