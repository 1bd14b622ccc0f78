"""What a training can be told to do: schedules, layer-wise rates, skipped branches, rounds of prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from model.mask_decoder import Embedded
from model.sam import CONFIGS, Sam
from model.training.forward import Intent, Step, follow_up_loss
from model.training.learner import Learner
from model.training.loop import Training
from model.training.optimiser import Optimiser
from model.training.settings import Schedule
from tests.training.conftest import SMALL

CONFIG = replace(CONFIGS["tiny"], input_side=64)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [(Schedule.COSINE, (1.0, 0.5, 0.25, 0.01)), (Schedule.STEPS, (1.0, 1.0, 0.1, 0.01))],
)
def test_the_learning_rate_warms_up_and_falls(schedule: Schedule, shares: tuple[float, ...]) -> None:
    """At the begin, the middle, two thirds and the end; the paper's steps are a tenth at 60 of 90 thousand."""
    training = Training(replace(SMALL, schedule=schedule, steps=900, warm_up_steps=10, learning_rate=2.0))
    rates: list[float] = []
    for step in (9, 450, 600, 899):
        training.progress.step = step
        rates.append(training.learning_rate)
    assert rates == pytest.approx([2 * share for share in shares], rel=0.01)
    training.progress.step = 0
    assert training.learning_rate == pytest.approx(0.2)


def test_layer_decay_slows_the_encoder_from_its_end_to_its_begin() -> None:
    """Block i of n learns at decay^(n - i) of the rate, patches and positions at decay^(n + 1), all else fully."""
    sam = Sam(CONFIG)
    names = {id(parameter): name for name, parameter in sam.named_parameters()}
    optimiser = Optimiser(sam, learning_rate=1.0, weight_decay=0.0, layer_decay=0.5)
    optimiser.step(1.0)
    rate_of = {names[id(p)]: rate for rate, parameters in optimiser.rates() for p in parameters}
    assert rate_of.keys() == set(names.values())
    depth = CONFIG.depth
    assert rate_of["image_encoder.pos_embed"] == rate_of["image_encoder.patch_embed.proj.weight"] == 0.5 ** (depth + 1)
    assert rate_of["image_encoder.blocks.0.attn.qkv.weight"] == 0.5**depth
    assert rate_of[f"image_encoder.blocks.{depth - 1}.norm1.bias"] == 0.5
    others = {rate for name, rate in rate_of.items() if "image_encoder" not in name or ".neck." in name}
    assert others == {1.0}


def test_skipped_branches_follow_the_seed_and_only_while_training() -> None:
    """Dropped in use, or dropped differently on a resume, they would change the model that is exported."""
    torch.manual_seed(0)
    learner = Learner(CONFIG, drop_path=0.6)
    images_B3SS = torch.randn(4, 3, 64, 64)

    def encoded(seed: int) -> torch.Tensor:
        learner.seed(torch.Generator().manual_seed(seed))
        return learner.sam.image_encoder(images_B3SS).detach()

    learner.eval()
    assert torch.equal(encoded(1), encoded(2))
    in_use = encoded(1)
    learner.train()
    assert torch.equal(encoded(1), encoded(1))
    assert not torch.equal(encoded(1), encoded(2))
    assert not torch.equal(encoded(1), in_use)
    assert [drop.chance for drop in learner.drops[:2]] == [0.0, 0.0]
    assert learner.drops[-1].chance == 0.6


@pytest.mark.parametrize("box_share", [0.0, 1.0])
def test_eleven_rounds_bring_eight_points_and_two_rounds_bring_none(box_share: float) -> None:
    """The paper's: a point or a box, eight points of the error, a round without one among them and one at the end."""
    torch.manual_seed(0)
    sam = Sam(CONFIG)
    calls: list[dict[str, Any]] = []
    sam.prompt_encoder.register_forward_pre_hook(lambda _m, _a, given: calls.append(given), with_kwargs=True)
    side = CONFIG.mask_side
    truth_Phw = torch.zeros(2, side, side, dtype=torch.bool)
    truth_Phw[:, 2:9, 3:12] = True
    previous_Phw = torch.full((2, side, side), -40.0)
    intent = Intent(truth_Phw, previous_Phw, (torch.full((2, 1, 2), 20.0), torch.ones(2, 1)))
    step = Step(
        replace(SMALL, follow_ups=10, box_share=box_share), follow_up=True, rng=torch.Generator().manual_seed(3)
    )
    images = Embedded(torch.randn(2, CONFIG.decoder_dim, CONFIG.grid_side, CONFIG.grid_side))
    loss = follow_up_loss(sam, images, intent, step)
    loss.backward()
    points = [0 if call["points"] is None else call["points"][0].shape[1] for call in calls]
    assert len(points) == 10
    gained = [later - earlier for earlier, later in zip([1, *points[:-1]], points, strict=True)]
    if box_share:
        assert (points[0], calls[0]["masks_P1hw"]) == (0, None)
        assert all(call["boxes_P4"] is not None for call in calls)
        gained = gained[1:]
    else:
        assert all(call["boxes_P4"] is None for call in calls)
    assert gained[-1] == 0
    assert sorted(gained) == [0, 0, *[1] * (len(gained) - 2)]
    assert all(float(call["masks_P1hw"].abs().max()) <= 32 for call in calls[bool(box_share) :])
    extra_P12, labels_P1 = (column[:, -1] for column in calls[1]["points"])
    cells_P2 = ((extra_P12 + 0.5) / (CONFIG.input_side / side)).floor().long()
    assert truth_Phw[range(2), cells_P2[:, 1], cells_P2[:, 0]].tolist() == labels_P1.bool().tolist()
