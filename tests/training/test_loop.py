"""The loop on two images a step: it goes on, it exports what the loader reads, its figures are right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.reference.official import segment_anything
from model.load import load_sam
from model.training.evaluate import outputs_and_truths, stability, summarise
from model.training.export import export_weights
from model.training.loop import Training
from model.training.settings import KEEP_IOU, KEEP_STABILITY, LossSettings
from pipeline.settings import Recipe
from tests.training.conftest import SMALL

SETTINGS = replace(SMALL, follow_up_share=0.5)


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums in a fixed order; the suite shares its cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_replicas_find_the_same_gradient_as_one_model() -> None:
    """Slices of a batch on several threads are a matter of speed."""
    # Without the terms that draw random numbers: every slice has its own.
    plain = replace(SETTINGS, steps=1000, follow_up_share=0.0, loss=LossSettings(dense_weight=0.0))
    norms: list[float] = []
    for replicas in (1, 2):
        training = Training(replace(plain, replicas=replicas))
        batch = training.source.make(0)
        if not bool(batch.valid_BKL.flatten(1).any(1).all()):
            pytest.fail("choose another seed: a view without valid points weighs the slices differently")
        norms.append(float(training.step(batch)["norm"]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_a_training_exports_what_the_loader_reads_and_another_starts_from_it(tmp_path: Path) -> None:
    """The file is used by the generator; its keys and sizes are the released model's."""
    training = Training(SETTINGS)
    evaluation = training.run(tmp_path / "end.pt")
    assert training.progress.step == 4
    assert 0 <= evaluation.truth_iou <= 1
    export_weights(training.averaged(), tmp_path / "small.safetensors", notes={"steps": "4"})
    sam = load_sam((tmp_path / "small.safetensors").read_bytes())
    for key, value in sam.state_dict().items():
        assert torch.allclose(value, training.average[key], atol=2e-3), key
    after = Training(replace(SETTINGS, start=str(tmp_path / "small.safetensors")))
    for weights in (after.sam.state_dict(), after.average):
        assert all(torch.equal(weights[key], value) for key, value in sam.state_dict().items())


def test_a_finished_training_only_evaluates_again(tmp_path: Path) -> None:
    """Repeating the command after the end is how the export is made again."""
    training = Training(replace(SETTINGS, steps=2))
    training.progress.step = 2
    training.save(tmp_path / "end.pt")
    resumed = Training.resume(tmp_path / "end.pt", replace(SETTINGS, steps=2))
    resumed.run(tmp_path / "end.pt")
    assert resumed.progress.step == 2


def test_figures_of_a_model_that_knows_the_truth() -> None:
    """The evaluation's own arithmetic, on outputs made by hand: one perfect, one half right, one empty."""
    columns = {
        "true_iou_PML": torch.tensor([[[1.0, 0.5, 0.0], [0.5, 0.25, 0.0], [0.0, 0.0, 0.0]]]),
        "valid_PL": torch.tensor([[True, True, False]]),
        "predicted_iou_PM": torch.tensor([[0.9, 0.95, 0.1]]),
        "stability_PFM": torch.tensor([[[0.99, 0.2, 0.0]]]),
    }
    found = summarise(columns)
    assert found.truth_iou == pytest.approx(0.75)
    assert found.best_iou == pytest.approx(1.0)
    assert found.top_iou == pytest.approx(0.5)
    assert found.share_confident == pytest.approx(2 / 3)
    assert found.share_kept == pytest.approx(1 / 3)
    assert found.kept_iou == pytest.approx(1.0)


def test_evaluation_leaves_out_points_without_truth_and_stability_of_nothing_is_zero() -> None:
    """0/0 would poison the means."""
    assert stability(torch.full((1, 1, 4, 4), -5.0)).tolist() == [[0.0]]
    training = Training(SETTINGS)
    batch = training.source.make(0)
    batch = replace(batch, valid_BKL=(torch.arange(2) == 0)[:, None, None].expand_as(batch.valid_BKL))
    columns = outputs_and_truths(training.averaged(), [batch])
    assert len(columns["valid_PL"]) == 2


def test_a_training_asks_of_masks_what_the_generator_asks() -> None:
    """model/ imports nothing of ours, so it has the recipe's thresholds and the score of stability a second time."""
    assert (Recipe.pred_iou_thresh, Recipe.stability_score_thresh) == (KEEP_IOU, KEEP_STABILITY)
    torch.manual_seed(5)
    logits_PMhw = 3 * torch.randn(2, 3, 20, 30)
    released_PM = segment_anything.utils.amg.calculate_stability_score(logits_PMhw, 0.0, Recipe.stability_score_offset)
    assert torch.equal(stability(logits_PMhw), released_PM)
