"""What the released SAM 2 answers: `python -m tests.model.sam2_oracle FOLDER`, in a process of its own.

FOLDER/answers.json has what is said of sizes and the generators' masks, FOLDER/prompts.npz the predictor's arrays.

Two models: a small random one, and in place of a network a function of the point and of the pixels that the network
would see, which answers with blobs and so fills every step of the generator.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.config import MODELS, TRAINABLE, HieraConfig
from model.point_decoder import Predictions
from model.preprocess import StretchResize
from model.sam import Sam
from model.training.scenes import held_out_scene
from tests.model.sam2 import SMALL

Image_HW3 = npt.NDArray[np.uint8]

CONFIG = replace(SMALL, name="sam2.1_tiny", decoder_dim=256, decoder_mlp=2048, iou_head_dim=256)
"""The released decoder behind a small encoder: the released code has these sizes of the decoder alone."""
IMAGE: Image_HW3 = held_out_scene(77, size_hw=(180, 271)).rgb_HW3
NETWORK_OPTIONS: dict[str, Any] = {
    "points_per_side": 8,
    "stability_score_thresh": 0.9,
    "box_nms_thresh": 0.97,
    "crop_nms_thresh": 0.95,
    "crop_n_layers": 1,
    "crop_n_points_downscale_factor": 2,
}
REFINED_OPTIONS: dict[str, Any] = {
    "points_per_side": 4,
    "pred_iou_thresh": 0.3,
    "stability_score_thresh": 0.7,
    "box_nms_thresh": 1.0,
    "use_m2m": True,
}
_MANY_DUPLICATES = {"box_nms_thresh": 0.5, "crop_nms_thresh": 0.4}
BLOB_OPTIONS: list[dict[str, Any]] = [
    {"points_per_side": 9, **_MANY_DUPLICATES},
    {"points_per_side": 8, "crop_n_layers": 1, **_MANY_DUPLICATES},
    {
        "points_per_side": 16,
        "crop_n_layers": 2,
        "crop_n_points_downscale_factor": 2,
        "stability_score_offset": 1.3,
        **_MANY_DUPLICATES,
    },
]
PROMPTS: list[dict[str, Any]] = [
    {"point_coords": [[100, 60], [30, 150]], "point_labels": [1, 0]},
    {"box": [20, 30, 200, 140]},
    {"point_coords": [[80, 90]], "point_labels": [1], "box": [20.5, 30, 200, 140]},
]
SIZES = [name for name, config in MODELS.items() if isinstance(config, HieraConfig) and name not in TRAINABLE]


def blobs(square_13SS: Tensor, coords_P2: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (P, 3, h, w) and scores (P, 3); another bit in a pixel or a point gives another answer."""
    side, cells = square_13SS.shape[-1], square_13SS.shape[-1] // 4
    seen = float(square_13SS.double().mean()) + float(square_13SS[0, 1, 7::31, 5::17].double().std())
    xy_P2, output_3 = coords_P2.double() / side, torch.arange(3, dtype=torch.float64)
    turn_P = xy_P2 @ torch.tensor([12.9898, 78.233], dtype=torch.float64) + 7 * seen
    chance_P3 = ((turn_P[:, None] + 37.719 * output_3).sin() * 43758.5453).frac().abs()
    line = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    dx_Pw, dy_Ph = line - xy_P2[:, :1], line - xy_P2[:, 1:]
    distance_Phw = (dx_Pw[:, None].square() + dy_Ph[..., None].square()).sqrt()
    noise_Phw = ((9 * dx_Pw).sin()[:, None] + (11 * dy_Ph + 5 * chance_P3[:, :1]).cos()[..., None]) * 0.02
    radius_P3 = 0.06 * 2**output_3 * (0.9 + 0.2 * chance_P3)
    steep_P3 = 200 + 1500 * chance_P3.flip(1)
    logits = (radius_P3[..., None, None] - (distance_Phw + noise_Phw)[:, None]) * steep_P3[..., None, None]
    return logits.float(), (0.6 + 0.4 * chance_P3).float()


@dataclass(frozen=True)
class Crop:
    square_13SS: Tensor
    crop_hw: tuple[int, int]
    resized_hw: tuple[int, int]


class BlobSegmenter:
    """The function behind our seam, with our resize and our way of placing points."""

    outputs_per_prompt = 3
    points_at_once = crops_at_once = None

    def __init__(self) -> None:
        with torch.device("cpu"):
            self._preprocess = StretchResize(Sam(SMALL))
        self.frame_side = self._preprocess.frame_side

    def spare_memory(self) -> None:
        pass

    def encode(self, crops_HW3: Sequence[Image_HW3]) -> list[Crop]:
        sizes = [(crop_HW3.shape[0], crop_HW3.shape[1]) for crop_HW3 in crops_HW3]
        squares = map(self._preprocess.square, crops_HW3)
        return [Crop(square, hw, self._preprocess.inside(hw)) for square, hw in zip(squares, sizes, strict=True)]

    def decode(self, crop: Crop, points_xy_P2: npt.NDArray[np.float64], *, pred_iou_thresh: float) -> Predictions:
        placed_P2 = torch.from_numpy(self._preprocess.place(points_xy_P2, crop.crop_hw))
        logits, scores = blobs(crop.square_13SS, placed_P2)
        return Predictions(scores, scores > pred_iou_thresh, logits)


class _BlobModel:
    """The function as the released predictor calls its network: the square is the embedding, points are sparse."""

    image_size = SMALL.input_side
    device = torch.device("cpu")
    directly_add_no_mem_embed = False

    def __init__(self) -> None:
        self.sam_prompt_encoder = self
        self._square = torch.zeros(0)

    def forward_image(self, square_13SS: Tensor) -> Tensor:
        self._square = square_13SS
        return square_13SS

    def _prepare_backbone_features(self, square_13SS: Tensor) -> tuple[Any, list[Tensor], Any, Any]:
        cells = self.image_size // 4
        return None, [torch.zeros((cells >> level) ** 2, 1, 1) for level in range(3)], None, None

    def __call__(self, *, points: tuple[Tensor, Tensor], boxes: None, masks: None) -> tuple[Tensor, Tensor]:
        return points[0][:, 0], points[0]

    def get_dense_pe(self) -> Tensor:
        return torch.zeros(1)

    def sam_mask_decoder(self, *, sparse_prompt_embeddings: Tensor, **_given: Any) -> tuple[Any, ...]:
        return *blobs(self._square, sparse_prompt_embeddings), None, None


def _shape_of(name: str) -> dict[str, Any]:
    """Names and shapes, and of each block what shapes do not show."""
    from benchmarks.reference import sam2_released

    config, family = MODELS[name], name.partition("_")[0]
    file = f"configs/{family}/{family}_hiera_{sam2_released.FILES[name.partition('_')[2]]}.yaml"
    model = sam2_released.bare(file)
    trunk = model.image_encoder.trunk
    blocks = [[block.window_size, block.attn.num_heads, block.q_stride is not None] for block in trunk.blocks]
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    return {"shapes": shapes, "blocks": blocks, "side": model.image_size, "name": config.name}


def _answers(folder: Path) -> None:
    from benchmarks.reference import sam2_released
    from benchmarks.reference.random_sam_2 import calibrated_sam_2

    model = sam2_released.with_weights(calibrated_sam_2(CONFIG, IMAGE, seed=0))
    generator = sam2_released.generator(model, NETWORK_OPTIONS)
    told: dict[str, Any] = {"sizes": [_shape_of(name) for name in SIZES], "network": generator.generate(IMAGE)}
    told["refined"] = sam2_released.generator(model, REFINED_OPTIONS).generate(IMAGE)
    told["blobs"] = [sam2_released.generator(_BlobModel(), options).generate(IMAGE) for options in BLOB_OPTIONS]
    (folder / "answers.json").write_text(json.dumps(told))
    predictor = generator.predictor
    predictor.set_image(IMAGE)
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for number, prompt in enumerate((*PROMPTS, {"mask_input": None})):
        given = {name: np.array(value) for name, value in prompt.items()}
        if "mask_input" in prompt:
            given["mask_input"] = arrays[answer_of(0, multimask=True, part=2)][:1]
        for multimask in (True, False):
            answer = predictor.predict(**given, multimask_output=multimask, return_logits=True)
            arrays |= {answer_of(number, multimask=multimask, part=part): each for part, each in enumerate(answer)}
    np.savez(folder / "prompts.npz", **arrays)  # pyright: ignore[reportArgumentType]


def answer_of(prompt: int, *, multimask: bool, part: int) -> str:
    """The name in prompts.npz of logits (0), scores (1) or low-resolution logits (2); the last prompt is a mask."""
    return f"{prompt} {multimask} {part}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    _answers(Path(sys.argv[1]))
