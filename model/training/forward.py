"""Running a model on a batch: images once, then prompts of several kinds on them.

Every random choice comes from the generator that is passed in, so a step depends on nothing that ran before it.

Legend: B images, K points of an image, P = B * K prompts, M outputs, L levels, h w cells of the truths, which are as
many as the low-resolution ones or a multiple (`fineness` along a side).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.mask_decoder import Embedded
from model.sam import Sam
from model.training.batches import Batch
from model.training.dense import dense_loss
from model.training.learner import Learner
from model.training.losses import PromptLoss, ambiguous_point_loss, single_mask_loss
from model.training.settings import TrainSettings


def encode(sam: Sam, batch: Batch) -> Embedded:
    """Every image as the decoder starts from it."""
    steps_S = torch.arange(sam.config.input_side, device=batch.images_B3SS.device)
    inside_BS2 = steps_S[:, None] < batch.sizes_B2[:, None]
    inside_B1SS = (inside_BS2[:, :, None, 0] & inside_BS2[:, None, :, 1])[:, None]
    # The padding is black in the batch; it has to be zero after the normalisation, as it is in use.
    return sam.embed(sam.normalise(batch.images_B3SS) * inside_B1SS)


def for_prompts(images: Embedded, rows: Tensor) -> Embedded:
    """The images of these numbers, one for each prompt."""
    fine = images.fine
    taken = None if fine is None else (fine[0].index_select(0, rows), fine[1].index_select(0, rows))
    return Embedded(images.embedding_1Cgg.index_select(0, rows), taken)


def rows_of(batch: Batch) -> Tensor:
    """(P,): the number of each prompt's image."""
    B, K, _ = batch.points_BK2.shape
    return torch.arange(B, device=batch.points_BK2.device).repeat_interleave(K)


def decode(
    sam: Sam,
    images: Embedded,
    *,
    points: tuple[Tensor, Tensor] | None = None,
    boxes_P4: Tensor | None = None,
    masks_P1hw: Tensor | None = None,
    several: bool,
) -> tuple[Tensor, Tensor]:
    """(logits_PMhw, predicted_iou_PM) of prompts; three outputs for points alone (`several`), else one."""
    # bfloat16 keeps 8 bits of a position, too few to tell neighbouring cells apart.
    with torch.autocast(images.embedding_1Cgg.device.type, enabled=False):
        sparse, dense = sam.prompt_encoder(points=points, boxes_P4=boxes_P4, masks_P1hw=masks_P1hw)
        image_pe = sam.prompt_encoder.get_dense_pe()
    decoder, wanted = sam.mask_decoder, slice(1, None) if several else slice(0, 1)
    tokens_PTC, image_PCgg = decoder.attend(images.embedding_1Cgg, image_pe, sparse, dense)
    logits_PMhw = decoder.mask_logits(tokens_PTC, image_PCgg, wanted, images.fine)
    return logits_PMhw, decoder.predicted_iou(tokens_PTC)[:, wanted]


def first_points(batch: Batch) -> tuple[Tensor, Tensor]:
    """(coords_P12, labels_P1): the single foreground point of every prompt."""
    coords_P12 = batch.points_BK2.flatten(0, 1)[:, None]
    return coords_P12, torch.ones(coords_P12.shape[:2], device=coords_P12.device)


def predict_points(sam: Sam, batch: Batch) -> tuple[Tensor, Tensor]:
    """The three outputs for each point of a batch."""
    return decode(sam, for_prompts(encode(sam, batch), rows_of(batch)), points=first_points(batch), several=True)


def at_cells_of(logits_PMhw: Tensor, truths_PLhw: Tensor) -> Tensor:
    """float32 logits with a value at every cell of the truths, interpolated as they are in use."""
    side = truths_PLhw.shape[-1]
    if logits_PMhw.shape[-1] == side:
        return logits_PMhw.float()
    return F.interpolate(logits_PMhw.float(), (side, side), mode="bilinear", align_corners=False)


class Step(NamedTuple):
    """What one step is besides its batch."""

    settings: TrainSettings
    follow_up: bool
    """Whether every prompt is followed up by unambiguous ones."""
    rng: torch.Generator
    """On the batch's device."""


def batch_loss(learner: Learner, batch: Batch, step: Step) -> PromptLoss:
    """The loss of one step."""
    sam, settings = learner.sam, step.settings.loss
    truths_PLhw, valid_PL = batch.truths_BKLhw.flatten(0, 1), batch.valid_BKL.flatten(0, 1)
    device = truths_PLhw.device.type
    with torch.autocast(device, torch.bfloat16, enabled=step.settings.bfloat16):
        images, rows_P = encode(sam, batch), rows_of(batch)
        logits_PMhw, predicted_PM = decode(sam, for_prompts(images, rows_P), points=first_points(batch), several=True)
        dense = dense_loss(learner.dense, images.embedding_1Cgg, batch.labels_BLhw, settings, step.rng)
    logits_PMhw = logits_PMhw.float()
    fine_PMhw = at_cells_of(logits_PMhw, truths_PLhw)
    loss = ambiguous_point_loss(fine_PMhw, predicted_PM.float(), truths_PLhw, valid_PL, settings)
    total = loss.total + settings.dense_weight * dense
    asked_P = valid_PL.any(1)
    if step.follow_up and bool(asked_P.any()):
        intent = _choose_intent(logits_PMhw.detach()[asked_P], loss.true_iou_PML[asked_P], batch, step.rng)
        total = total + follow_up_loss(sam, for_prompts(images, rows_P[asked_P]), intent, step)
    return replace(loss, total=total, dense=dense.detach())


@dataclass(frozen=True, slots=True)
class Intent:
    """What follows up each first prompt: one truth that is meant, the point, and the answer nearest to the truth, which
    has the decoder's own cells."""

    truth_Phw: Tensor
    previous_Phw: Tensor
    points: tuple[Tensor, Tensor]


def _choose_intent(logits_PMhw: Tensor, true_iou_PML: Tensor, batch: Batch, rng: torch.Generator) -> Intent:
    """A level at random, so that the second prompt, not habit, has to say it."""
    valid_PL = batch.valid_BKL.flatten(0, 1)
    asked_P = valid_PL.any(1)
    level_P = torch.multinomial(valid_PL[asked_P].float(), 1, generator=rng).squeeze(1)
    rows_P = torch.arange(len(level_P), device=level_P.device)
    nearest_P = true_iou_PML[rows_P, :, level_P].argmax(1)
    coords_P12, labels_P1 = first_points(batch)
    return Intent(
        batch.truths_BKLhw.flatten(0, 1)[asked_P][rows_P, level_P],
        logits_PMhw[rows_P, nearest_P],
        (coords_P12[asked_P], labels_P1[asked_P]),
    )


def follow_up_loss(sam: Sam, images: Embedded, intent: Intent, step: Step) -> Tensor:
    """Mean loss of the single-mask answers to `follow_ups` prompts, each made from the answer before it.

    With a chance of `box_share` the first of them is a noised box alone, and the point is forgotten. Every other one is
    all points so far, the previous logits as mask prompt and, but in idle rounds, a point of the previous error.
    """
    settings, rng = step.settings, step.rng
    cell = sam.config.input_side / intent.truth_Phw.shape[-1]
    begins_anew = float(_uniform(1, rng)) < settings.box_share
    boxes_P4 = noisy_boxes(intent.truth_Phw, cell, rng) if begins_anew else None
    points = None if begins_anew else intent.points
    idle = _idle_rounds(settings.follow_ups, rng)
    previous_Phw, total = intent.previous_Phw, intent.previous_Phw.new_zeros(())
    for number in range(settings.follow_ups):
        masks_P1hw = None
        if not (begins_anew and number == 0):
            masks_P1hw = previous_Phw[:, None].clamp(-32, 32)
            if number not in idle:
                fine_Phw = at_cells_of(previous_Phw[:, None], intent.truth_Phw)[:, 0]
                points = _joined(points, correction_points(fine_Phw > 0, intent.truth_Phw, cell, rng))
        with torch.autocast(previous_Phw.device.type, torch.bfloat16, enabled=settings.bfloat16):
            logits, predicted = decode(
                sam, images, points=points, boxes_P4=boxes_P4, masks_P1hw=masks_P1hw, several=False
            )
        fine_Phw = at_cells_of(logits, intent.truth_Phw)[:, 0]
        total = total + single_mask_loss(fine_Phw, predicted[:, 0].float(), intent.truth_Phw, settings.loss)
        previous_Phw = logits[:, 0].float().detach()
    return total / settings.follow_ups


def _idle_rounds(follow_ups: int, rng: torch.Generator) -> set[int]:
    """Those without a new point: the last and a random earlier one (arXiv:2304.02643, appendix A); of 1 or 2 none."""
    if follow_ups < 3:
        return set()
    return {follow_ups - 1, 1 + int(float(_uniform(1, rng)) * (follow_ups - 2))}


def _joined(points: tuple[Tensor, Tensor] | None, more: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return more if points is None else (torch.cat([points[0], more[0]], 1), torch.cat([points[1], more[1]], 1))


def _uniform(count: int, rng: torch.Generator) -> Tensor:
    return torch.rand(count, generator=rng, device=rng.device)


def correction_points(
    masks_Phw: Tensor, truths_Phw: Tensor, cell: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random point of each mask's error: (coords_P12 in input pixels, labels_P1). Without error, any true cell."""
    wrong_PN = (masks_Phw ^ truths_Phw).flatten(1)
    truths_PN = truths_Phw.flatten(1)
    wrong_PN = torch.where(wrong_PN.any(1, keepdim=True), wrong_PN, truths_PN)
    cells_P1 = torch.multinomial(wrong_PN.float(), 1, generator=rng)
    width = masks_Phw.shape[2]
    xy_P12 = torch.stack([cells_P1 % width, cells_P1 // width], dim=-1)
    return (xy_P12 + 0.5) * cell - 0.5, truths_PN.gather(1, cells_P1).float()


def noisy_boxes(truths_Phw: Tensor, cell: float, rng: torch.Generator) -> Tensor:
    """(P, 4) XYXY in input pixels: the truths' boxes, sides moved by about a tenth of the extent, at most 20 px.

    source  arXiv:2304.02643, appendix A
    """
    ends = [end for dim in (1, 2) for end in _ends(truths_Phw.any(dim))]
    boxes_P4 = torch.stack([ends[0], ends[2], ends[1], ends[3]], dim=1).float() * cell
    extents_P4 = (boxes_P4[:, 2:] - boxes_P4[:, :2]).repeat(1, 2)
    noise_P4 = torch.randn(boxes_P4.shape, generator=rng, device=truths_Phw.device) * 0.1 * extents_P4
    return boxes_P4 + noise_P4.clamp(-20, 20) - 0.5


def _ends(present_PN: Tensor) -> tuple[Tensor, Tensor]:
    """The first True of each row, and one after the last."""
    present_PN = present_PN.to(torch.int8)
    return present_PN.argmax(1), present_PN.shape[1] - present_PN.flip(1).argmax(1)
