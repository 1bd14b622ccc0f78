"""Running a model on a batch: images once, then prompts of several kinds on them.

Legend: B images, K points of an image, P = B * K prompts, M outputs, L levels, h w low-resolution cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.sam import Sam
from model.training.batches import Batch
from model.training.dense import Learner, dense_loss
from model.training.losses import PromptLoss, ambiguous_point_loss, single_mask_loss
from model.training.settings import LossSettings


def encode(sam: Sam, batch: Batch) -> Tensor:
    """(B, C, g, g): every image's embedding."""
    images = [image[None, :, :h, :w] for image, (h, w) in zip(batch.images_B3SS, batch.sizes_hw, strict=True)]
    standard_B3SS = torch.cat([sam.normalise(image) for image in images])
    return sam.image_encoder(standard_B3SS)


def decode(
    sam: Sam,
    embedding_PCgg: Tensor,
    *,
    points: tuple[Tensor, Tensor] | None = None,
    boxes_P4: Tensor | None = None,
    masks_P1hw: Tensor | None = None,
    several: bool,
) -> tuple[Tensor, Tensor]:
    """(logits_PMhw, predicted_iou_PM) of prompts; three outputs for points alone (`several`), else one."""
    # bfloat16 keeps 8 bits of a position, too few to tell neighbouring cells apart.
    with torch.autocast("cpu", enabled=False):
        sparse, dense = sam.prompt_encoder(points=points, boxes_P4=boxes_P4, masks_P1hw=masks_P1hw)
        image_pe = sam.prompt_encoder.get_dense_pe()
    return sam.mask_decoder(
        image_embeddings=embedding_PCgg,
        image_pe=image_pe,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=several,
    )


def first_points(batch: Batch) -> tuple[Tensor, Tensor]:
    """(coords_P12, labels_P1): the single foreground point of every prompt."""
    coords_P12 = batch.points_BK2.flatten(0, 1)[:, None]
    return coords_P12, torch.ones(coords_P12.shape[:2])


def predict_points(sam: Sam, batch: Batch) -> tuple[Tensor, Tensor]:
    """The three outputs for each point of a batch."""
    embedding_PCgg = encode(sam, batch).repeat_interleave(batch.points_BK2.shape[1], dim=0)
    return decode(sam, embedding_PCgg, points=first_points(batch), several=True)


def batch_loss(
    learner: Learner, batch: Batch, settings: LossSettings, *, bfloat16: bool, follow_up: bool
) -> PromptLoss:
    """The loss of one step; with `follow_up` every prompt gets a second, unambiguous one."""
    sam = learner.sam
    truths_PLhw, valid_PL = batch.truths_BKLhw.flatten(0, 1), batch.valid_BKL.flatten(0, 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        embedding_BCgg = encode(sam, batch)
        embedding_PCgg = embedding_BCgg.repeat_interleave(batch.points_BK2.shape[1], dim=0)
        logits_PMhw, predicted_PM = decode(sam, embedding_PCgg, points=first_points(batch), several=True)
        dense = dense_loss(learner.dense, embedding_BCgg, batch.labels_BLhw, settings)
    logits_PMhw = logits_PMhw.float()
    loss = ambiguous_point_loss(logits_PMhw, predicted_PM.float(), truths_PLhw, valid_PL, settings)
    total = loss.total + settings.dense_weight * dense
    asked_P = valid_PL.any(1)
    if follow_up and bool(asked_P.any()):
        intent = _choose_intent(logits_PMhw.detach()[asked_P], loss.true_iou_PML[asked_P], batch, asked_P)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits, predicted = _ask_again(sam, embedding_PCgg[asked_P], intent)
        total = total + single_mask_loss(logits[:, 0].float(), predicted[:, 0].float(), intent.truth_Phw, settings)
    return replace(loss, total=total, dense=dense.detach())


@dataclass(frozen=True, slots=True)
class Intent:
    """What the second prompt of each first prompt means: one truth, and the answer it got nearest to it."""

    truth_Phw: Tensor
    previous_Phw: Tensor
    first: tuple[Tensor, Tensor]


def _choose_intent(logits_PMhw: Tensor, true_iou_PML: Tensor, batch: Batch, asked_P: Tensor) -> Intent:
    """A level at random, so that the second prompt, not habit, has to say it."""
    truths_PLhw, valid_PL = batch.truths_BKLhw.flatten(0, 1)[asked_P], batch.valid_BKL.flatten(0, 1)[asked_P]
    level_P = torch.multinomial(valid_PL.float(), 1).squeeze(1)
    rows_P = torch.arange(len(level_P))
    nearest_P = true_iou_PML[rows_P, :, level_P].argmax(1)
    coords_P12, labels_P1 = first_points(batch)
    return Intent(
        truths_PLhw[rows_P, level_P], logits_PMhw[rows_P, nearest_P], (coords_P12[asked_P], labels_P1[asked_P])
    )


def _ask_again(sam: Sam, embedding_PCgg: Tensor, intent: Intent) -> tuple[Tensor, Tensor]:
    """The single-mask answer to a box, or to the first point, a correction point and the previous logits."""
    cell = sam.config.input_side / sam.config.mask_side
    if torch.rand(()) < 0.5:
        return decode(sam, embedding_PCgg, boxes_P4=noisy_boxes(intent.truth_Phw, cell), several=False)
    extra_P12, extra_P1 = correction_points(intent.previous_Phw > 0, intent.truth_Phw, cell)
    points = torch.cat([intent.first[0], extra_P12], 1), torch.cat([intent.first[1], extra_P1], 1)
    masks_P1hw = intent.previous_Phw[:, None].clamp(-32, 32)
    return decode(sam, embedding_PCgg, points=points, masks_P1hw=masks_P1hw, several=False)


def correction_points(masks_Phw: Tensor, truths_Phw: Tensor, cell: float) -> tuple[Tensor, Tensor]:
    """A random point of each mask's error: (coords_P12 in input pixels, labels_P1). Without error, any true cell."""
    wrong_PN = (masks_Phw ^ truths_Phw).flatten(1)
    truths_PN = truths_Phw.flatten(1)
    wrong_PN = torch.where(wrong_PN.any(1, keepdim=True), wrong_PN, truths_PN)
    cells_P1 = torch.multinomial(wrong_PN.float(), 1)
    width = masks_Phw.shape[2]
    xy_P12 = torch.stack([cells_P1 % width, cells_P1 // width], dim=-1)
    return (xy_P12 + 0.5) * cell - 0.5, truths_PN.gather(1, cells_P1).float()


def noisy_boxes(truths_Phw: Tensor, cell: float) -> Tensor:
    """(P, 4) XYXY in input pixels: the truths' boxes, sides moved by about a tenth (arXiv:2304.02643)."""
    boxes: list[Tensor] = []
    for truth_hw in truths_Phw:
        ys, xs = truth_hw.nonzero(as_tuple=True)
        box = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float() * cell
        extent = (box[2:] - box[:2]).repeat(2)
        boxes.append(box + (torch.randn(4) * 0.1 * extent).clamp(-20, 20) - 0.5)
    return torch.stack(boxes)
