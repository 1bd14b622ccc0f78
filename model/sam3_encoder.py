"""SAM 3's image encoder, as the package `transformers` has it, behind the interface of our own.

The only file that imports transformers, and only when such a model is made: who asks for another needs none of it.

Legend: B images, S input side.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor, nn

from model.config import Sam3Config
from model.hiera import Maps
from model.opening import CheckpointError

NEEDED = "transformers>=5.4,<6"
"""SAM 3 came with 5.0, whose file imports torchvision at its top; 5.4.0 does not."""


class Sam3Encoder(nn.Module):
    """Normalised images of the input's side -> maps for the decoder.

    The tensors of `vision` have the names of `Sam3TrackerModel.vision_encoder`. Its neck's coarsest map, which no point
    is answered from, is left out.

    raises  CheckpointError where transformers is missing or too old
    """

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        self.vision = _vision_model(config)

    def forward(self, images_B3SS: Tensor) -> Maps:
        fine_0, fine_1, embedding_BDgg = self.vision(images_B3SS).fpn_hidden_states
        return Maps(embedding_BDgg, fine_0, fine_1)


def _vision_model(config: Sam3Config) -> Any:
    needs = f"model={config.name} takes its image encoder from transformers"
    try:
        # Here, because it takes seconds of CPU time to import, and is optional.
        from transformers import Sam3VisionConfig, Sam3VisionModel, Sam3ViTConfig
    except ImportError as error:
        found = _version()
        what = f"{found} does not have it ({error})" if found else "it is not installed"
        raise CheckpointError(f"{needs}, and {what}: pip install '{NEEDED}'") from error
    config_of_trunk = Sam3ViTConfig(
        hidden_size=config.embed_dim,
        intermediate_size=config.mlp_dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        image_size=config.input_side,
        patch_size=config.patch,
        window_size=config.window,
        global_attn_indexes=list(config.global_blocks),
        pretrain_image_size=config.table_side * config.patch,
    )
    sides = [[factor * config.grid_side] * 2 for factor in (4, 2, 1)]
    return Sam3VisionModel(
        Sam3VisionConfig(
            backbone_config=config_of_trunk,
            fpn_hidden_size=config.decoder_dim,
            backbone_feature_sizes=sides,
            scale_factors=[4.0, 2.0, 1.0],
        )
    )


def _version() -> str:
    """Empty where it is not installed."""
    try:
        return f"transformers {version('transformers')}"
    except PackageNotFoundError:
        return ""
