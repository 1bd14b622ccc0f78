"""Datumaro's JSON, held against what the package itself writes of the same masks."""

from __future__ import annotations

from pathlib import Path

from pipeline.export.records import Form
from pipeline.work.chunk import WorkerContext
from tests.export.making import STEMS, exported, ok_rows, read_json

WRITTEN_BY_DATUMARO = {
    "dm_format_version": "1.0",
    "media_type": 2,
    "infos": {},
    "categories": {
        "label": {"labels": [{"name": "object", "parent": "", "attributes": []}], "label_groups": [], "attributes": []}
    },
    "items": [
        {
            "id": "a b",
            "annotations": [
                {
                    "id": 7,
                    "type": "mask",
                    "attributes": {"score": 0.5},
                    "group": 0,
                    "label_id": 0,
                    "rle": {"counts": "c26>0000000000000U;", "size": [20, 30]},
                    "z_order": 0,
                }
            ],
            "image": {"path": "a b.jpg", "size": [20, 30]},
        }
    ],
}
"""`Dataset.export(..., "datumaro", save_media=True)` of one RleMask, by datumaro 1.13.12."""


def test_the_file_has_the_keys_and_types_that_datumaro_writes(output: WorkerContext, tmp_path: Path) -> None:
    """And every mask of every image, once, beside the image."""
    exported(output, tmp_path, Form.DATUMARO, images=True)
    told = read_json(tmp_path / "annotations" / "default.json")
    items = told.pop("items")
    assert told == {key: value for key, value in WRITTEN_BY_DATUMARO.items() if key != "items"}
    (theirs,) = WRITTEN_BY_DATUMARO["items"]  # type: ignore[misc]
    rows = ok_rows(output)
    assert [item["id"] for item in items] == [STEMS[row.file_name] for row in rows]
    for item, row in zip(items, rows, strict=True):
        assert item.keys() == theirs.keys()
        assert item["image"] == {"path": f"{item['id']}.png", "size": [row.height, row.width]}
        assert (tmp_path / "images" / "default" / item["image"]["path"]).exists()
        assert [each["rle"]["counts"] for each in item["annotations"]] == [mask.counts for mask in row.masks]
        for each in item["annotations"]:
            assert {key: type(value) for key, value in each.items()} == {
                key: type(value) for key, value in theirs["annotations"][0].items()
            }
