"""Every number of a report, against pycocotools' pixels, NumPy's histograms and OpenCV's hulls."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from pipeline.records import Funnel, ImageRow, Status
from pipeline.report.collect import collect
from pipeline.report.figures import CELLS, SCORE_BINS, Figures, score_edges
from pipeline.report.records import Histogram, Report, ReportSettings
from pipeline.report.shapes import DEEPEST, PartShare, Shapes
from pipeline.settings import Format, Recipe, StoreSettings
from pipeline.storage.columns import open_columns
from pipeline.storage.connect import connect
from pipeline.storage.parts import write_part
from pipeline.storage.store import Store
from tests.masks.test_hull_and_overlap import opencv_hull_of_large
from tests.report.making import FUNNEL, VERSIONS, pixels, write_output

ALL = ReportSettings()


def assert_histogram(found: Histogram, values: Sequence[float] | np.ndarray) -> None:
    """And nothing is lost beside it."""
    values = np.asarray(values)
    assert list(found.counts) == np.histogram(values, found.edges)[0].tolist()
    assert (found.below, found.above) == ((values < found.edges[0]).sum(), (values > found.edges[-1]).sum())
    assert found.total == len(values)


def assert_totals(report: Report, rows: list[ImageRow], parts: int) -> None:
    assert report.statuses == dict(Counter(str(row.status) for row in rows))
    assert report.masks == sum(len(row.masks) for row in rows)
    assert report.funnel == Funnel(*(parts * getattr(FUNNEL, name) for name in Funnel.__slots__))
    scope = report.scope
    assert (scope.images_planned, scope.parts_planned) == (len(rows), parts)
    assert (scope.parts_committed, scope.parts_counted, scope.parts_sampled) == (parts, parts, parts)
    assert scope.images_sampled == sum(row.status is Status.OK for row in rows)
    assert scope.masks_sampled == report.masks
    assert scope.finished
    assert scope.whole


def assert_figures(report: Report, rows: list[ImageRow]) -> None:
    masks = [(row, mask) for row in rows for mask in row.masks]
    assert report.layers == Counter(mask.crop_layer for _, mask in masks)
    assert report.outputs == Counter(mask.multimask_index for _, mask in masks)
    assert_histogram(report.predicted_iou, [mask.predicted_iou for _, mask in masks])
    assert_histogram(report.stability, [mask.stability_score for _, mask in masks])
    sizes = [(mask_HW.sum() / mask_HW.size) ** 0.5 for row in rows for mask_HW in pixels(row)]
    assert_histogram(report.relative_size, sizes)
    per_image = [len(row.masks) for row in rows if row.status is Status.OK]
    small, more = sum(count <= 10 for count in per_image), sum(count > 10 for count in per_image)
    assert [(each.label, each.count) for each in report.masks_per_image] == [
        ("0-10", small),
        ("11-50", more),
        ("51-100", 0),
        ("101-200", 0),
        (">200", 0),
    ]
    assert more


def assert_centres(report: Report, rows: list[ImageRow]) -> None:
    """The middle between the outermost pixels' outer edges."""
    centre_YX = np.zeros((CELLS, CELLS), np.int64)
    for row in rows:
        for mask_HW in pixels(row):
            y, x = np.nonzero(mask_HW)
            middle = (y.min() + y.max() + 1) / 2 / row.height, (x.min() + x.max() + 1) / 2 / row.width
            centre_YX[int(middle[0] * CELLS), int(middle[1] * CELLS)] += 1
    assert np.array_equal(report.centres.counts, centre_YX)


def assert_concavity(report: Report, rows: list[ImageRow]) -> None:
    by_size: list[list[float]] = [[] for _ in report.concavity.drawn_per_size]
    for row in rows:
        for mask_HW in pixels(row):
            size = (mask_HW.sum() / mask_HW.size) ** 0.5
            bin = int(np.digitize(size, report.concavity.size_edges[1:-1]))
            by_size[bin].append(1 - mask_HW.sum() / opencv_hull_of_large(mask_HW))
    assert report.concavity.drawn_per_size == tuple(map(len, by_size))
    assert_histogram(report.concavity.histogram, [value for values in by_size for value in values])


def assert_overlap(report: Report, rows: list[ImageRow], bound: float = 0.9) -> None:
    shares, depths, pairs = [], Counter[int](), []
    for row in rows:
        if row.status is Status.OK:
            depth_HW = np.sum([np.zeros((row.height, row.width), int), *pixels(row)], axis=0)
            shares.append((depth_HW > 0).mean())
            depths.update(np.minimum(depth_HW[depth_HW > 0], DEEPEST).tolist())
            rles: Any = [{"size": [row.height, row.width], "counts": mask.counts.encode()} for mask in row.masks]
            pairs.append((np.triu(coco.iou(rles, rles, [0] * len(rles)), 1) > bound).sum() if rles else 0)
    overlap = report.overlap
    assert (overlap.images, overlap.duplicate_iou) == (len(shares), bound)
    assert_histogram(overlap.coverage, shares)
    assert overlap.mean_coverage == pytest.approx(np.mean(shares))
    assert list(overlap.depth.values()) == pytest.approx(
        [depths[depth] / depths.total() for depth in range(1, DEEPEST + 1)]
    )
    assert list(overlap.depth)[-1] == f"{DEEPEST} or more"
    assert overlap.near_duplicates == sum(pairs) > 0
    assert overlap.images_with_near_duplicates == sum(count > 0 for count in pairs)


def assert_all(report: Report, rows: list[ImageRow]) -> None:
    assert_totals(report, rows, parts=11)
    assert_figures(report, rows)
    assert_centres(report, rows)
    assert_concavity(report, rows)
    assert_overlap(report, rows)
    assert report.broken == ()


@pytest.mark.parametrize("format", list(Format))
def test_every_figure_of_an_output_on_disk_is_what_its_pixels_say(
    outs: dict[Format, str], rows: list[ImageRow], store: Store, format: Format
) -> None:
    """Ellipses, rectangles and rings, images without masks and images that failed."""
    assert_all(collect(outs[format], store, settings=ALL), rows)


@pytest.mark.parametrize("format", list(Format))
def test_every_figure_of_an_output_in_s3_is_what_its_pixels_say(
    rows: list[ImageRow], s3_endpoint: str, s3_bucket: str, format: Format
) -> None:
    """There parts are looked at by ranges."""
    store = connect(StoreSettings(endpoint_url=s3_endpoint, retry_deadline_s=5.0))
    write_output(rows, f"s3://{s3_bucket}/out", store, format=format)
    assert_all(collect(f"s3://{s3_bucket}/out", store, settings=ALL), rows)


def test_failures_of_one_kind_are_counted_together_with_names(out: str, store: Store) -> None:
    """Numbers and names differ from image to image; a table of as many rows as failures tells nothing."""
    failures = collect(out, store, settings=ALL).failures
    assert {(each.status, each.reason): (each.count, each.examples) for each in failures} == {
        ("unreadable", "the file is empty"): (2, ("im6.png", "im27.png")),
        ("too_large", "N x N pixels are more than N"): (2, ("im13.png", "im34.png")),
        ("missing", "… does not exist"): (2, ("im20.png", "im41.png")),
    }


def test_a_single_failure_keeps_its_own_words(store: Store, rows: list[ImageRow], tmp_path) -> None:
    """Here the number is what one wants to know."""
    write_output(rows[12:16], str(tmp_path / "out"), store)
    (failure,) = collect(str(tmp_path / "out"), store, settings=ALL).failures
    assert failure.reason == "22000 x 9000 pixels are more than 1000"


def test_the_provenance_begins_with_the_model_and_names_parts_of_other_versions(
    store: Store, rows: list[ImageRow], out: str, tmp_path
) -> None:
    """Two outputs that look different may have been made by different things."""
    said = collect(out, store, settings=ALL).provenance
    assert list(said)[:4] == ["model.name", "model.precision", "model.weights_sha256", "recipe.points_per_side"]
    assert said["model.weights_sha256"] == "ab" * 32
    assert said["version of numpy"] == "2.0"
    assert "parts of other versions" not in said
    write_output(rows[:8], str(tmp_path / "out"), store, versions=VERSIONS | {"numpy": "3.0"})
    said = collect(str(tmp_path / "out"), store, settings=ALL).provenance
    assert said["parts of other versions"] == "2 (numpy 2.0 -> 3.0)"


@pytest.mark.parametrize(
    ("threshold", "most", "low"), [(0.88, 1.1, 0.85), (0.95, 1.0, 0.9), (0.0, 1.1, 0.0), (1.0, 1.0, 0.95)]
)
def test_scores_are_binned_from_below_their_threshold(threshold: float, most: float, low: float) -> None:
    """A score of float32 may lie below the threshold that it reached."""
    edges = score_edges(threshold, most)
    assert (edges[0], edges[-1], len(edges)) == (low, most, SCORE_BINS + 1)
    assert list(edges) == sorted(set(edges))
    assert edges[0] < np.float32(threshold) or not threshold


def test_the_order_in_which_parts_are_added_changes_nothing(rows: list[ImageRow]) -> None:
    """They are read by several threads, and a figure must not change from one reading to the next."""
    settings = ReportSettings(concavity_masks_per_size=5, overlap_images=10)
    parts = [rows[start : start + 7] for start in range(0, 42, 7)]

    def added(order: Sequence[int], *, limited: bool) -> tuple[object, ...]:
        figures, shapes = Figures(Recipe()), Shapes(settings)
        for number in order:
            data = write_part(parts[number], format=Format.PARQUET, metadata={})
            columns = open_columns(io.BytesIO(data), format=Format.PARQUET)
            images, masks = columns.images(), columns.masks()
            own, own_shapes = Figures(Recipe()), Shapes(settings)
            own.count(number, images, masks)
            limits = (shapes if limited else own_shapes).limits()
            own_shapes.count(PartShare(number, "a part", 2), images, masks, limits)
            figures.add(own)
            shapes.add(own_shapes)
        return figures.failures(), figures.centres(), shapes.concavity(), shapes.overlap()

    forward = added(range(6), limited=True)
    assert forward == added(range(5, -1, -1), limited=True) == added([3, 0, 5, 1, 4, 2], limited=False)
