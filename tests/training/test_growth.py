"""A larger model that begins as a smaller one, and what a training takes off the weights that it starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.load import CheckpointError
from model.sam import CONFIGS, Sam
from model.training.batches import held_out_batches
from model.training.calibrate import Calibration, apply
from model.training.export import export_weights
from model.training.forward import predict_points
from model.training.growth import grown
from model.training.loop import Training
from model.training.views import ViewSettings
from tests.training.conftest import SMALL
from tests.training.mini import MINI

TINY = replace(CONFIGS["tiny"], input_side=128)


@pytest.fixture
def small() -> Sam:
    torch.manual_seed(0)
    sam = Sam(TINY).eval()
    for parameter in (sam.image_encoder.get_parameter("pos_embed"), *_tables(sam)):
        torch.nn.init.normal_(parameter, std=0.1)
    return sam


def _tables(sam: Sam) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in sam.named_parameters() if ".rel_pos_" in name]


def test_a_deeper_model_begins_with_the_same_masks(small: Sam) -> None:
    """New blocks hand on what they get until they have learned; an old one at another place would not."""
    deeper = grown(small, replace(CONFIGS["small"], input_side=128)).eval()
    (batch,) = held_out_batches(ViewSettings(128, 32, 2, 6), images=1, batch=1)
    with torch.no_grad():
        for found, wanted in zip(predict_points(deeper, batch), predict_points(small, batch), strict=True):
            assert torch.allclose(found, wanted, atol=1e-5)
    blocks = [name for name, _ in deeper.named_parameters() if name.endswith("attn.proj.weight")]
    assert len(blocks) == 2 * len([name for name, _ in small.named_parameters() if name.endswith("attn.proj.weight")])


def test_a_larger_input_keeps_distances_and_spreads_positions(small: Sam) -> None:
    """A token next to another is as far from it in a larger picture, which has the same pixels a token."""
    larger = grown(small, replace(TINY, input_side=256))
    table, wider = (sam.image_encoder.get_parameter("blocks.5.attn.rel_pos_h") for sam in (small, larger))
    assert torch.equal(wider[len(wider) // 2 - 7 : len(wider) // 2 + 8], table)
    assert torch.equal(wider[0], table[0])
    assert torch.equal(wider[-1], table[-1])
    old, new = (sam.image_encoder.get_parameter("pos_embed").permute(0, 3, 1, 2) for sam in (small, larger))
    assert torch.allclose(torch.nn.functional.avg_pool2d(new, 2), old, atol=0.1)


def test_another_width_or_neighbourhood_is_no_growth(small: Sam) -> None:
    """It would train, and with weights in places where they mean nothing."""
    with pytest.raises(CheckpointError, match=r"mask_decoder|image_encoder"):
        grown(small, replace(TINY, decoder_dim=64))
    with pytest.raises(CheckpointError, match="window"):
        grown(small, replace(TINY, global_blocks=(1, 5)))
    with pytest.raises(CheckpointError, match="depth"):
        grown(small, replace(TINY, depth=8, global_blocks=(2, 5)))


def test_a_training_starts_from_the_weights_before_their_calibration(tmp_path: Path) -> None:
    """Logits that were made decisive for the thresholds learn little where they are wrong."""
    sam = Sam(MINI)
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    apply(sam, Calibration(4.0, 1.3, -0.2))
    note = '{"logit_factor": 4.0, "iou_slope": 1.3, "iou_offset": -0.2}'
    export_weights(sam, tmp_path / "calibrated.safetensors", notes={"calibration": note})
    training = Training(replace(SMALL, start=str(tmp_path / "calibrated.safetensors")))
    for name, value in training.sam.state_dict().items():
        assert torch.allclose(value, before[name], atol=1e-3), name
