"""Regions of interest of a run: found by the images' names, never left out in silence."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import ConfigError, InputError
from pipeline.records import Attempt
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from pipeline.work.chunk import process_chunk
from pipeline.work.device import Device
from pipeline.work.regions import check_regions, region_name
from tests.fake_segmenter import FakeSegmenter
from tests.fakes_run import as_png, drawn_image, write_folder
from tests.small_runs import RECIPE, context_of, rows_of

GRID = replace(RECIPE, stability_score_thresh=0.0, box_nms_thresh=1.0)


def on_left(hw: tuple[int, int], *, mode: str = "L", value: Any = 255) -> bytes:
    picture = Image.new(mode, (hw[1], hw[0]))
    picture.paste(value, (0, 0, hw[1] // 2, hw[0]))
    return as_png(picture)


def hw_of(data: bytes) -> tuple[int, int]:
    size = Image.open(io.BytesIO(data)).size
    return size[1], size[0]


def done(settings: Settings, store: Store) -> list[Any]:
    context = context_of(settings, store)
    context = replace(context, generate=Device(FakeSegmenter(), context.plan.settings.recipe).generate)
    for chunk in context.plan.chunks():
        process_chunk(Attempt(chunk), context)
        process_chunk(Attempt(chunk, number=2, careful=True), context)
    return rows_of(context)


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_points_outside_of_the_region_are_not_prompted(
    place: str, settings: Settings, store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In the folder of the image, under its name with the ending .png."""
    pictures = {"sub/a.png": drawn_image(1), "b.b.jpg": drawn_image(2)}
    source = write_folder(tmp_path / "in", pictures)
    masks = {
        "sub/a.png": on_left(hw_of(drawn_image(1))),
        "b.b.png": as_png(Image.new("1", Image.open(io.BytesIO(drawn_image(2))).size)),
    }
    if place == "s3":
        client, bucket = request.getfixturevalue("s3_client"), request.getfixturevalue("s3_bucket")
        store = connect(StoreSettings(endpoint_url=request.getfixturevalue("s3_endpoint")))
        for name, data in masks.items():
            client.put_object(Bucket=bucket, Key=f"roi/{name}", Body=data)
        roi = f"s3://{bucket}/roi/"
    else:
        roi = f"{write_folder(tmp_path / 'roi', masks)}/"
    settings = replace(settings, source=str(source), recipe=replace(GRID, roi=roi))
    nothing, half = done(settings, store)
    assert (nothing.file_name, str(nothing.status), nothing.masks) == ("b.b.jpg", "ok", ())
    assert half.masks
    assert all(mask.point_xy[0] < half.width // 2 for mask in half.masks)


def test_an_image_without_a_region_that_fits_is_a_row_that_says_so(
    settings: Settings, store: Store, tmp_path: Path
) -> None:
    """Done whole it would look like all the others."""
    data = drawn_image(1)
    hw = hw_of(data)
    names = ("good", "missing", "small", "broken", "deep", "bad")
    source = write_folder(tmp_path / "in", {f"{name}.png": data for name in names} | {"bad.png": b"no image"})
    masks = {
        "good": on_left(hw, mode="P", value=1),
        "small": on_left((hw[0] // 2, hw[1] // 2)),
        "broken": on_left(hw)[:40],
        "deep": on_left(hw, mode="I;16", value=1),
    }
    roi = write_folder(tmp_path / "roi", {f"{name}.png": mask for name, mask in masks.items()})
    settings = replace(settings, source=str(source), recipe=replace(GRID, roi=str(roi)))
    rows = {row.file_name.removesuffix(".png"): row for row in done(settings, store)}
    statuses = {name: str(row.status) for name, row in rows.items()}
    bad = dict.fromkeys(("small", "broken", "bad"), "unreadable")
    assert statuses == bad | {"missing": "missing", "good": "ok", "deep": "ok"}
    assert rows["missing"].error == f"there is no region of interest for it: {roi}/missing.png is not there"
    assert (
        f"small.png cannot be used: it is {hw[1] // 2} x {hw[0] // 2} pixels, the image {hw[1]} x"
        in rows["small"].error
    )
    assert "broken.png cannot be used: a PNG" in rows["broken"].error
    assert rows["bad"].error.startswith("no JPEG")
    assert [(row.width, row.height) for row in (rows["missing"], rows["small"])] == [hw[::-1]] * 2
    assert rows["missing"].sha256 == rows["good"].sha256
    assert rows["deep"].masks  # 1 of 65,535 is on, however dark


def test_a_nodata_colour_needs_no_file(settings: Settings, store: Store, tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 48), (255, 0, 255))
    picture.paste((200, 200, 200), (0, 0, 32, 48))
    source = write_folder(tmp_path / "in", {"a.png": as_png(picture)})
    [row] = done(replace(settings, source=str(source), recipe=replace(GRID, nodata=(255, 0, 255))), store)
    assert row.masks
    assert all(mask.point_xy[0] < 32 for mask in row.masks)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a.jpg", "a.png"),
        ("x/y.z.TIFF", "x/y.z.png"),
        ("/data/a.jpeg", "data/a.png"),
        ("table.parquet#7", "table.parquet#7.png"),
        ("noending", "noending.png"),
        (".jpg", ".jpg.png"),
    ],
)
def test_a_region_has_the_name_of_its_image(key: str, name: str) -> None:
    assert region_name(key) == name


@pytest.mark.parametrize("key", ["../a.jpg", "a/../../b.png", "a//b.png", "./a.png", "a\0.png", ""])
def test_no_name_leads_out_of_the_folder(key: str) -> None:
    """Members of tars have whatever names somebody gave them."""
    with pytest.raises(InputError, match="no region of interest can have the name"):
        region_name(key)


def test_a_folder_with_nothing_in_it_is_refused_before_the_work(store: Store, tmp_path: Path) -> None:
    """A typing error would otherwise cost every image of the run."""
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        with pytest.raises(ConfigError, match=rf"recipe\.roi=.*{folder}"):
            check_regions(str(tmp_path / folder), store)
