"""A user's table: how it names images, what its groups have, and what is refused."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.records import ImageRow, Status
from pipeline.report.collect import collect
from pipeline.report.groups import MOST_GROUPS
from pipeline.report.records import Grouping, ReportSettings
from pipeline.settings import Format, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from tests.report.making import write_output

FEW = ReportSettings(images=1, overlap_images=1, concavity_masks_per_size=1)
"""Groups are of all images, whatever is sampled."""
Table = dict[str, list[str]]


def country_of(row: ImageRow) -> str:
    return "" if row.image_id % 9 == 8 else ("Peru", "Laos", "Chad")[row.image_id % 3]


def table_of(rows: list[ImageRow], key: str) -> Table:
    """Of all but five images, and of two that are not there; one column says a country, one a single image."""
    named = rows[5:]
    return {
        key: [*(str(getattr(row, key)) for row in named), "900", "901"],
        "country": [*map(country_of, named), "Peru", "Laos"],
        "only": ["this one", *[""] * (len(named) + 1)],
    }


def as_csv(table: Table) -> bytes:
    sink = io.StringIO()
    lines = csv.writer(sink)
    lines.writerow(table)
    lines.writerows(zip(*table.values(), strict=True))
    return b"\xef\xbb\xbf" + sink.getvalue().encode()


def as_parquet(table: Table) -> bytes:
    sink = io.BytesIO()
    columns: dict[str, object] = {name: [value or None for value in values] for name, values in table.items()}
    if "image_id" in columns:
        columns["image_id"] = pa.array(map(int, table["image_id"]), pa.int64())
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def grouped(out: str, store: Store, table: bytes, folder: Path) -> tuple[Grouping, ...]:
    path = folder / "table"
    path.write_bytes(table)
    return collect(out, store, settings=FEW, groups=str(path)).groupings


def assert_groups(groupings: tuple[Grouping, ...], rows: list[ImageRow]) -> None:
    """By the statistics module, over the images that are ok."""
    by_country, only = groupings
    per_image: dict[str, list[int]] = defaultdict(list)
    for row in rows[5:]:
        if row.status is Status.OK:
            per_image[country_of(row)].append(len(row.masks))
    without = len(per_image.pop("")) + sum(row.status is Status.OK for row in rows[:5])
    assert (by_country.column, by_country.level) == ("country", 0.95)
    assert (by_country.unmatched_rows, by_country.ungrouped_images) == (2, without)
    assert {group.name for group in by_country.groups} == set(per_image) == {"Peru", "Laos", "Chad"}
    for group in by_country.groups:
        counts = per_image[group.name]
        half = 1.959964 * statistics.stdev(counts) / len(counts) ** 0.5
        assert (group.images, group.masks) == (len(counts), sum(counts))
        assert group.masks_per_image == pytest.approx(statistics.mean(counts))
        assert group.interval == pytest.approx((group.masks_per_image - half, group.masks_per_image + half), rel=1e-6)
    (single,) = only.groups
    assert (single.name, single.images) == ("this one", 1)
    assert all(map(math.isnan, single.interval))
    sizes = [group.images for group in by_country.groups]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("format", list(Format))
@pytest.mark.parametrize("key", ["image_id", "file_name", "source"])
def test_the_groups_of_a_table_have_their_images_and_masks(
    outs: dict[Format, str], rows: list[ImageRow], store: Store, tmp_path: Path, format: Format, key: str
) -> None:
    """By each way to name an image, in CSV and in Parquet, though one part alone is sampled."""
    table = table_of(rows, key)
    for data in (as_csv(table), as_parquet(table)):
        assert_groups(grouped(outs[format], store, data, tmp_path), rows)


def test_output_and_table_may_lie_in_s3(rows: list[ImageRow], s3_endpoint: str, s3_bucket: str) -> None:
    """As they do where an output is large."""
    store = connect(StoreSettings(endpoint_url=s3_endpoint, retry_deadline_s=5.0))
    out, table = f"s3://{s3_bucket}/out", f"s3://{s3_bucket}/countries.csv"
    write_output(rows, out, store)
    store.put_if_absent(table, as_csv(table_of(rows, "file_name")))
    assert_groups(collect(out, store, settings=FEW, groups=table).groupings, rows)


NAMES = b"file_name,country\n"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (b"", "a table without rows"),
        (NAMES, "a table without rows"),
        (b"name,country\nim0.png,Peru\n", r"must name its images in a column .*its columns are 'name', 'country'"),
        (b"file_name\nim0.png\n", "add a column of values"),
        (b"image_id,file_name\n0,im0.png\n", "add a column of values"),
        (NAMES + b"im0.png\n", "line 2: 1 values for 2 columns"),
        (NAMES + b"im0.png,Peru\nim0.png,Laos\n", "'im0.png' in two rows"),
        (NAMES + b"other.png,Peru\n", r"names no image of this output: .*'other.png'.*'im0.png'"),
        (b"image_id,country\nim0,Peru\n", "'im0' is no whole number"),
        (b"file_name,file_name\nim0.png,Peru\n", "'file_name' twice"),
        (b"file_name,\nim0.png,Peru\n", "one without a name"),
        (b"\xff\xfe\x00", "neither CSV in UTF-8 nor Parquet"),
        (b'file_name,country\n"im0.png,Peru\n', "neither CSV in UTF-8 nor Parquet"),
        (b"PAR1 and no more", "damaged Parquet"),
        (NAMES + b"".join(b"im%d.png,%d\n" % (n, n) for n in range(MOST_GROUPS + 1)), "201 different values"),
    ],
)
def test_a_table_that_groups_nothing_is_refused_with_a_sentence(
    out: str, store: Store, tmp_path: Path, table: bytes, said: str
) -> None:
    """With the file's name and what it has instead."""
    with pytest.raises(ConfigError, match=f"report.groups=.*table.*{said}"):
        grouped(out, store, table, tmp_path)


def test_a_table_that_is_not_there_or_holds_lists_is_refused(out: str, store: Store, tmp_path: Path) -> None:
    """The one is a wrong path, the other a column that nobody meant."""
    with pytest.raises(ConfigError, match=r"report\.groups=.*gone\.csv cannot be read"):
        collect(out, store, settings=FEW, groups=str(tmp_path / "gone.csv"))
    sink = io.BytesIO()
    pq.write_table(pa.table({"file_name": ["im0.png"], "tags": [["a"]]}), sink)
    with pytest.raises(ConfigError, match="its column 'tags' holds what is no word"):
        grouped(out, store, sink.getvalue(), tmp_path)
