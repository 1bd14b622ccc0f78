"""Segment Anything of transformers, with the weights of one of our models; and its SAM 3, with random ones."""

from __future__ import annotations

from typing import Any, cast

import torch

from model import sam2_layouts
from model.config import HieraConfig, Sam3Config, SamConfig
from model.layouts import to_hugging_face
from model.sam import Sam
from model.sam3_encoder import Sam3Encoder


def hugging_face(sam: Sam, *, norm_eps: float = 1e-6) -> Any:
    """transformers' SamModel of the same sizes and weights.

    norm_eps  of the norms in the decoder's layers: transformers has 1e-6 and the released code 1e-5, which shows in the
              fifth digit of logits
    """
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
                "layer_norm_eps": norm_eps,
            },
        )
    )
    model.load_state_dict(to_hugging_face(sam.state_dict()))
    return model.eval()


def hugging_face_2(sam: Sam) -> Any:
    """transformers' Sam2Model of the same sizes and weights, and with the head of the object's presence at random."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2Model,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    c = sam.config
    if not isinstance(c, HieraConfig):
        raise TypeError(f"{c.name} is no SAM 2")
    backbone = Sam2HieraDetConfig(
        hidden_size=c.dims[0],
        num_attention_heads=c.heads,
        image_size=[c.input_side, c.input_side],
        blocks_per_stage=list(c.depths),
        embed_dim_per_stage=list(c.dims),
        num_attention_heads_per_stage=[c.heads * 2**stage for stage in range(4)],
        window_size_per_stage=list(c.windows),
        global_attention_blocks=list(c.global_blocks),
        window_positional_embedding_background_size=[c.background, c.background],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=list(reversed(c.dims)),
        backbone_feature_sizes=[[factor * c.grid_side] * 2 for factor in (4, 2, 1)],
        fpn_hidden_size=c.decoder_dim,
    )
    prompts = Sam2PromptEncoderConfig(hidden_size=c.decoder_dim, image_size=c.input_side, patch_size=c.patch)
    decoder = Sam2MaskDecoderConfig(
        hidden_size=c.decoder_dim,
        mlp_dim=c.decoder_mlp,
        num_attention_heads=c.decoder_heads,
        num_hidden_layers=c.decoder_depth,
        iou_head_hidden_dim=c.iou_head_dim,
        iou_head_depth=c.iou_head_depth,
    )
    config = Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    model = Sam2Model(config)
    head = {name: value for name, value in model.state_dict().items() if "pred_obj_score_head" in name}
    model.load_state_dict(sam2_layouts.hugging_face(sam.state_dict()) | head)
    return model.eval()


def hugging_face_3(config: Sam3Config, *, seed: int) -> Any:
    """transformers' Sam3TrackerModel of these sizes, every tensor at random.

    Its neck has the three maps that points are answered from. With the fourth one, which the files have too,
    transformers 5.23 adds `no_memory_embedding` to that one, and so to nothing that is used; the released code leaves
    the fourth map out first.
    """
    from transformers import (
        Sam3TrackerConfig,
        Sam3TrackerMaskDecoderConfig,
        Sam3TrackerModel,
        Sam3TrackerPromptEncoderConfig,
    )

    c, encoder = config, cast(Any, Sam3Encoder(config))
    decoder = Sam3TrackerMaskDecoderConfig(
        hidden_size=c.decoder_dim, mlp_dim=c.decoder_mlp, iou_head_hidden_dim=c.iou_head_dim
    )
    prompts = Sam3TrackerPromptEncoderConfig(hidden_size=c.decoder_dim, image_size=c.input_side, patch_size=c.patch)
    model = Sam3TrackerModel(
        Sam3TrackerConfig(
            vision_config=encoder.vision.config, prompt_encoder_config=prompts, mask_decoder_config=decoder
        )
    )
    return randomised(model, seed=seed)


def randomised(model: Any, *, seed: int) -> Any:
    """Every tensor of a state at random, large enough to show; ready to be asked."""
    cast(Any, torch).manual_seed(seed)
    positions = "positional_embedding"
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.1
            offset = 1.0 if tensor.dim() == 1 and name.endswith(("weight", "running_var")) else 0.0
            tensor.copy_(offset + scale * torch.randn_like(tensor))
    same = model.shared_image_embedding.get_buffer(positions)
    model.prompt_encoder.shared_embedding.get_buffer(positions).copy_(same)
    return model.eval().requires_grad_(requires_grad=False)
