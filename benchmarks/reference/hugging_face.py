"""Segment Anything of transformers, with the weights of one of our models."""

from __future__ import annotations

from typing import Any

from model.config import SamConfig
from model.layouts import to_hugging_face
from model.sam import Sam


def hugging_face(sam: Sam) -> Any:
    """transformers' SamModel of the same sizes and weights."""
    # Here, because it takes some five seconds of CPU time to import.
    from transformers import SamConfig as HuggingFaceConfig
    from transformers import SamModel

    c = sam.config
    if not isinstance(c, SamConfig):
        raise TypeError(f"transformers has no {c.name}")
    model = SamModel(
        HuggingFaceConfig(
            vision_config={
                "hidden_size": c.embed_dim,
                "num_hidden_layers": c.depth,
                "num_attention_heads": c.heads,
                "global_attn_indexes": list(c.global_blocks),
                "image_size": c.input_side,
                "patch_size": c.patch,
                "window_size": c.window,
                "output_channels": c.decoder_dim,
                "num_pos_feats": c.decoder_dim // 2,
                "mlp_dim": c.mlp_channels,
            },
            prompt_encoder_config={
                "hidden_size": c.decoder_dim,
                "image_size": c.input_side,
                "patch_size": c.patch,
                "image_embedding_size": c.grid_side,
            },
            mask_decoder_config={
                "hidden_size": c.decoder_dim,
                "mlp_dim": c.decoder_mlp,
                "num_hidden_layers": c.decoder_depth,
                "iou_head_hidden_dim": c.iou_head_dim,
                "iou_head_depth": c.iou_head_depth,
            },
        )
    )
    model.load_state_dict(to_hugging_face(sam.state_dict()))
    return model.eval()
