"""The command: figures of the bundled model on drawn scenes, as a document and as a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.evaluate import EvaluateJob, evaluate
from model.load import load_segmenter
from model.training.scenes import HELD_OUT_FROM, draw_scene
from pipeline.errors import ConfigError
from pipeline.evaluation.truths import Truths
from pipeline.masks.generator import generate_masks
from pipeline.settings import ModelSettings, Recipe


def test_the_figures_are_of_held_out_scenes_and_the_recipes_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands on a model card must say of what it is, and count every truth of every level
    that the recipe can find at all."""
    recipe = Recipe(points_per_side=5, pred_iou_thresh=0.5, stability_score_thresh=0.5)
    model = ModelSettings(device="cpu")
    job = EvaluateJob(model, recipe, scenes=2, recall_scenes=1, scene_side=256, processes=1, out=str(tmp_path))
    assert evaluate(job) == 0
    told = json.loads((tmp_path / "evaluation.json").read_text())
    segmenter = load_segmenter(name="small", device="cpu")
    scenes = [draw_scene(0, HELD_OUT_FROM + number, size_hw=(256, 256)) for number in range(2)]
    truths = [int((Truths.of_labels(scene.labels_3HW).area_T >= job.least_area).sum()) for scene in scenes]
    assert told["weights_sha256"] == segmenter.weights_sha256
    assert told["centre point"]["all"]["truths"] == told["random point"]["all"]["truths"] == sum(truths)
    assert told["centre point"]["large"]["best_iou"] > 0.4  # a trained model, and its masks lie on the truths
    for kind in ("centre point", "random point"):
        assert 0 < told[kind]["all"]["top_iou"] <= told[kind]["all"]["best_iou"] < 1
        assert told[kind]["all"]["top_iou"] <= told[kind]["all"]["top_nearest_iou"]
    (found,) = generate_masks([scenes[0].rgb_HW3], segmenter, recipe)
    assert told["AR@1000"]["masks_per_image"] == len(found.masks) > 2
    assert told["AR@1000"]["all"]["truths"] == truths[0]
    assert told["AR@1000"]["all"]["average_recall"] > 0
    assert capsys.readouterr().out == (tmp_path / "evaluation.md").read_text()


def test_half_a_comparison_and_unusable_weights_are_refused(tmp_path: Path) -> None:
    """Said before an hour is spent on another question than the one that was asked."""
    with pytest.raises(ConfigError, match="go together"):
        evaluate(EvaluateJob(masks=str(tmp_path)))
    (tmp_path / "wrong.pth").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"wrong\.pth"):
        evaluate(EvaluateJob(ModelSettings(checkpoint=str(tmp_path / "wrong.pth"), device="cpu")))
