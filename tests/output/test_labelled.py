"""Labelled images beside drawn scenes: overlapping masks become levels, and our own output trains the next model."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from jobs.draw_sample import SHARD
from jobs.evaluate import EvaluateJob, evaluate_masks
from jobs.train import TrainJob, scenes_of, train
from model.load import load_segmenter
from model.training.labelled import MixedScenes, UnusableImagesError, layered
from model.training.photographs import jpeg
from model.training.scenes import DrawnScenes, draw_scene
from pipeline.errors import ConfigError
from pipeline.evaluation.truths import Truths
from pipeline.masks.generator import generate_masks
from pipeline.output.labelled import open_labelled
from pipeline.plan.plan import OutputSettings
from pipeline.plan.planning import create_or_load_plan
from pipeline.records import Attempt, ImageRow
from pipeline.settings import Format, Recipe, RunSettings, Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.parts import read_part
from pipeline.work.chunk import WorkerContext, process_chunk
from pipeline.work.device import Device
from tests.training.conftest import SMALL

STORE = connect(StoreSettings())
EAGER = Recipe(points_per_side=4, pred_iou_thresh=0.6, stability_score_thresh=0.6)
"""A few points and masks that a weak model would not keep."""
TRAIN = replace(SMALL, model="tiny", steps=2)


def rectangle(y0: int, y1: int, x0: int, x1: int) -> npt.NDArray[np.bool_]:
    mask_HW = np.zeros((20, 20), np.bool_)
    mask_HW[y0:y1, x0:x1] = True
    return mask_HW


def test_nested_masks_get_levels_of_their_own_and_neighbours_share_one() -> None:
    """A point may mean each mask that holds it, so none may hide another; the fourth of four nested ones is dropped."""
    whole, part, subpart, crumb = (rectangle(0, n, 0, n) for n in (16, 12, 8, 4))
    beside = rectangle(17, 20, 0, 20)
    labels_LHW = layered([crumb, part, beside, whole, subpart], (20, 20))
    assert [np.unique(level_HW).tolist() for level_HW in labels_LHW] == [[0, 1, 4], [0, 2], [0, 3]]
    for level, own, mask_HW in ((0, 1, whole), (1, 2, part), (2, 3, subpart), (0, 4, beside)):
        assert np.array_equal(labels_LHW[level] == own, mask_HW)


class OneImage:
    """A labelled source whose second image has a sky for a mask; the first cannot be used."""

    def __init__(self, images: int = 2) -> None:
        self._images = images

    def __len__(self) -> int:
        return self._images

    def read(self, number: int) -> tuple[npt.NDArray[np.uint8], Sequence[npt.NDArray[np.bool_]]] | None:
        sky_HW = np.zeros((60, 90), np.bool_)
        sky_HW[:20] = True
        return (np.full((60, 90, 3), 7, np.uint8), [sky_HW]) if number else None


def test_scenes_are_mixed_by_number_alone_and_large_images_are_scaled() -> None:
    """A resumed training must see the same images, and an image that cannot be used must not end it."""
    mixed = MixedScenes(3, DrawnScenes(3), OneImage(), share=0.4, side=45)
    scenes = [mixed.scene(index) for index in range(30)]
    labelled = [scene.rgb_HW3.shape == (30, 45, 3) for scene in scenes]
    assert 5 < sum(labelled) < 20
    assert labelled == [mixed.scene(index).rgb_HW3.shape == (30, 45, 3) for index in range(30)]
    scaled = scenes[labelled.index(True)]
    assert (scaled.rgb_HW3 == 7).all()
    assert np.array_equal(scaled.labels_3HW[0] == 1, np.arange(30)[:, None].repeat(45, 1) < 10)
    with pytest.raises(UnusableImagesError, match=r"train\.source"):
        MixedScenes(3, DrawnScenes(3), OneImage(images=1), share=1.0, side=45).scene(0)
    drawn = labelled.index(False)
    assert np.array_equal(scenes[drawn].rgb_HW3, draw_scene(3, drawn).rgb_HW3)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of the sample shard, by `tiny`, in our own format."""
    out = tmp_path_factory.mktemp("closed") / "out"
    settings = Settings(source=str(SHARD), out=str(out), recipe=EAGER, run=RunSettings(images_per_chunk=4))
    segmenter = load_segmenter(name="tiny", device="cpu")
    output_settings = OutputSettings.of(settings, weights_sha256=segmenter.weights_sha256)
    plan = create_or_load_plan(output_settings, out=settings.out, store=STORE).plan
    context = WorkerContext(settings.out, plan, STORE, Device(segmenter, EAGER).generate)
    reports = [process_chunk(Attempt(chunk), context) for chunk in plan.chunks()]
    assert sum(report.masks for report in reports) > 8
    return out


def rows_of(out: Path) -> list[ImageRow]:
    parts = sorted((out / "data").iterdir())
    return [row for part in parts for row in read_part(part.read_bytes(), format=Format.PARQUET).rows]


def test_a_model_trained_on_our_own_output_loads_and_runs(generated: Path, tmp_path: Path) -> None:
    """The data engine's loop: what the pipeline generates trains the next model, which the pipeline runs."""
    exported = tmp_path / "next.safetensors"
    settings = replace(TRAIN, source=str(generated), source_share=1.0)
    assert train(TrainJob(str(tmp_path / "next.pt"), str(exported), train=settings)) == 0
    segmenter = load_segmenter(name="tiny", checkpoint=exported.read_bytes(), device="cpu")
    everything = replace(EAGER, pred_iou_thresh=-1e9, stability_score_thresh=0.0)
    (found,) = generate_masks([draw_scene(0, 1).rgb_HW3], segmenter, everything)
    assert found.masks
    assert str(generated) not in exported.read_bytes().decode("latin-1")


def test_what_a_training_sees_of_our_output_are_its_images_and_masks(generated: Path) -> None:
    """An image with another image's masks would teach nonsense, and no loss would show it."""
    job = TrainJob(train=replace(TRAIN, source=str(generated), source_share=1.0))
    rows = rows_of(generated)
    images = open_labelled(str(generated), STORE)
    assert [entry.image_id for entry in images.entries] == [row.image_id for row in rows]
    for number in (0, 5):
        assert images.masks(number).counts == tuple(mask.counts for mask in rows[number].masks)
        assert images.pixels(number, max_pixels=10**6).shape == (480, 640, 3)
    with tarfile.open(SHARD) as shard:
        data = shard.extractfile(shard.getmembers()[5])
        assert data is not None
        stored_HW3 = cv2.imdecode(np.frombuffer(data.read(), np.uint8), cv2.IMREAD_COLOR)
    assert stored_HW3 is not None
    seen_HW3 = images.pixels(5, max_pixels=10**6)
    assert np.abs(seen_HW3.astype(int) - stored_HW3[..., ::-1]).mean() < 1
    scene = scenes_of(job).scene(0)
    assert scene.rgb_HW3.shape == (480, 640, 3)
    assert scene.labels_3HW.any()


def sa1b_shard(path: Path, rows: Sequence[ImageRow]) -> Path:
    """A tar as SA-1B's are released: sa_<n>.jpg and sa_<n>.json side by side."""
    with tarfile.open(path, "w") as tar:
        for row in rows:
            scene = draw_scene(0, row.image_id, size_hw=(row.height, row.width))
            annotations = [
                {"segmentation": {"size": [row.height, row.width], "counts": mask.counts}, "predicted_iou": 0.9}
                for mask in row.masks
            ]
            told = {"image": {"width": row.width, "height": row.height}, "annotations": annotations}
            files = {"jpg": jpeg(scene.rgb_HW3, quality=90), "json": json.dumps(told).encode()}
            for extension, data in files.items():
                entry = tarfile.TarInfo(f"sa_{row.image_id}.{extension}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return path


def test_a_shard_of_sa1b_is_a_source_and_a_truth(generated: Path, tmp_path: Path) -> None:
    """Masks against themselves have a recall of 1, by image id and not by place; without some of them it is less."""
    rows = [row for row in rows_of(generated) if row.masks]
    shard = sa1b_shard(tmp_path / "sa_000000.tar", list(reversed(rows)))
    images = open_labelled(str(shard), STORE)
    assert [entry.image_id for entry in images.entries] == [row.image_id for row in rows]
    assert images.pixels(0, max_pixels=10**6).shape == (480, 640, 3)
    scene = scenes_of(TrainJob(train=replace(TRAIN, source=str(shard), source_share=1.0))).scene(4)
    assert scene.labels_3HW.any()
    document = evaluate_masks(EvaluateJob(masks=str(generated), truth=str(shard)))
    truths = sum(len(Truths.of(images.masks(n).counts, images.masks(n).hw)) for n in range(len(images)))
    assert document["AR@1000"]["all"] == {"truths": truths, "average_recall": 1.0}
    poorer = sa1b_shard(tmp_path / "poorer.tar", [replace(row, masks=row.masks[:1]) for row in rows])
    document = evaluate_masks(EvaluateJob(masks=str(poorer), truth=str(shard)))
    assert document["AR@1000"]["all"]["average_recall"] < 0.9


def test_a_truth_of_other_images_and_a_source_of_nothing_are_refused(generated: Path, tmp_path: Path) -> None:
    """A recall over the wrong images is a number like any other."""
    row = replace(next(row for row in rows_of(generated) if row.masks), image_id=4711)
    shard = sa1b_shard(tmp_path / "sa_000001.tar", [row])
    with pytest.raises(ConfigError, match="4711"):
        evaluate_masks(EvaluateJob(masks=str(generated), truth=str(shard)))
    with pytest.raises(ConfigError, match=r"annotation files"):
        scenes_of(TrainJob(train=replace(TRAIN, source=str(SHARD))))
