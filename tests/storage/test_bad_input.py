"""A table of bad files, and two thousand that were damaged by chance: none crashes, hangs or costs another image."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, StorageError
from pipeline.records import ImageRow
from pipeline.settings import Settings
from pipeline.storage.store import Store
from tests.fakes_run import write_folder
from tests.small_runs import context_of, rows_of, with_run, work
from tests.storage.bad_files import MAX_PIXELS, RGB, sound, table
from tests.storage.damage import damaged
from tests.storage.pictures import encode
from tests.storage.samples import tar_of

ROOT = Path(__file__).parents[2]
EACH = 65
MOST_KIB = 200 * 1024
"""Memory that no file of 32 x 32 pixels may cost, whatever it says of itself."""

Outcomes = dict[str, tuple[str, str]]


def decoded_apart(files: dict[str, bytes], folder: Path) -> Outcomes:
    """Status and reason of each, from a process of its own; a file that ends that process fails here by its name."""
    (folder / "files").write_bytes(pickle.dumps(files))
    command = [sys.executable, "-m", "tests.storage.bad_files", str(folder / "files")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=240)
    lines = done.stdout.decode().splitlines()
    told = [line.split("\t")[1:] for line in lines if line.startswith("\t")]
    begun = [line for line in lines if line and not line.startswith("\t")]
    assert done.returncode == 0, (
        f"at {begun[-1:]} the decoder ended with {done.returncode}: {done.stderr.decode()[-2000:]}"
    )
    *outcomes, (_, grown, kib) = told
    assert grown == "grown"
    assert int(kib) < MOST_KIB
    return {name: (status, reason) for name, status, reason in outcomes}


def test_two_thousand_damaged_files_are_images_or_refused_with_a_reason(tmp_path: Path) -> None:
    files = dict(damaged(sound(), each=EACH, seed=16))
    assert len(files) >= 2000
    outcomes = decoded_apart(files, tmp_path)
    assert outcomes.keys() == files.keys()
    wrong = {name: outcome for name, outcome in outcomes.items() if outcome[0] not in ("ok", "unreadable", "too_large")}
    assert not wrong
    assert [name for name, (status, reason) in outcomes.items() if status != "ok" and not reason] == []
    statuses = [status for status, _ in outcomes.values()]
    assert statuses.count("unreadable") > 600
    assert statuses.count("ok") > 200  # a flipped bit among the pixels is a pixel


def test_every_file_of_the_table_becomes_its_row_and_its_neighbours_stay_as_they_are(
    settings: Settings, store: Store, tmp_path: Path
) -> None:
    """One row each, in order, with the status and the reason that the documentation has."""
    files = table()
    assert len(files) >= 60
    apart = decoded_apart({name: row.data for name, row in files.items()}, tmp_path)
    assert {name: status for name, (status, _) in apart.items()} == {name: row.status for name, row in files.items()}
    good = encode(RGB, "PNG")
    folder = write_folder(
        tmp_path / "in",
        {f"{number:03d}-{name}": row.data for number, (name, row) in enumerate(files.items())}
        | {f"{number:03d}-good.png": good for number in range(0, len(files), 10)},
    )
    context = context_of(
        with_run(replace(settings, source=str(folder)), max_pixels=MAX_PIXELS, images_per_chunk=64), store
    )
    work(context)
    rows = {row.file_name: row for row in rows_of(context)}
    assert list(rows) == sorted(path.name for path in folder.iterdir())
    for number, (name, expected) in enumerate(files.items()):
        row = rows[f"{number:03d}-{name}"]
        assert (str(row.status), expected.said in row.error) == (expected.status, True), row
        assert bool(row.error) == (row.status != "ok" or bool(expected.said)), row
        assert row.status == "ok" or not row.masks
    neighbours = [row for name, row in rows.items() if name.endswith("-good.png")]
    assert len({row.masks for row in neighbours}) == 1
    assert neighbours[0].masks


IMAGES = {f"{number}.png": encode(RGB.rotate(90 * number), "PNG") for number in range(4)}


def as_zip(images: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in images.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return sink.getvalue()


def as_parquet(images: dict[str, bytes]) -> bytes:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column: Any = pa.array([{"bytes": data, "path": name} for name, data in images.items()], kind)
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": column}), sink, row_group_size=2, write_page_checksum=True)
    return sink.getvalue()


def rows_from(path: Path, settings: Settings, store: Store) -> list[ImageRow] | str:
    """The rows of a run, or why there is none."""
    asked = with_run(replace(settings, source=str(path), out=f"{path}-out"), max_pixels=MAX_PIXELS, images_per_chunk=64)
    try:
        context = context_of(asked, store)
        work(context)
    except (ConfigError, StorageError) as refused:
        return str(refused)
    rows = rows_of(context)
    assert len(rows) == context.plan.image_count
    if all(row.status == "ok" for row in rows) and len(rows) < len(IMAGES):
        assert context.plan.ignored  # a name that ends otherwise now is no image's, and counted
    return rows


@pytest.mark.parametrize(
    ("ending", "pack", "each"),
    [("tar", lambda images: tar_of(*images.items()), 40), ("zip", as_zip, 40), ("parquet", as_parquet, 40)],
)
def test_a_damaged_container_is_refused_or_gives_rows_whose_images_are_the_ones_put_in(
    ending: str, pack: Any, each: int, settings: Settings, store: Store, tmp_path: Path
) -> None:
    """A row that is ok and has other bytes than any image would be masks of nothing."""
    whole = pack(IMAGES)
    (tmp_path / f"whole.{ending}").write_bytes(whole)
    expected = rows_from(tmp_path / f"whole.{ending}", settings, store)
    assert isinstance(expected, list)
    known = {row.sha256: row.masks for row in expected}
    assert len(known) == len(IMAGES)
    refused = 0
    for number, (how, data) in enumerate(damaged({ending: whole}, each=each, seed=7)):
        path = tmp_path / f"{number}.{ending}"
        path.write_bytes(data)
        rows = rows_from(path, settings, store)
        if isinstance(rows, str):
            assert rows, how
            refused += 1
            continue
        for row in rows:
            assert row.status == "ok" or row.error, (how, row)
            assert row.masks == known.get(row.sha256, row.masks), (how, row)
    assert refused < each


def test_bytes_damaged_inside_one_member_of_a_tar_cost_that_member_alone(
    settings: Settings, store: Store, tmp_path: Path
) -> None:
    whole = tar_of(*IMAGES.items())
    inside = whole.index(IMAGES["2.png"]) + 40
    for number in range(8):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(whole[:inside] + bytes([whole[inside] ^ 1 << number]) + whole[inside + 1 :])
        rows = rows_from(path, settings, store)
        assert isinstance(rows, list)
        assert [row.file_name for row in rows if row.status == "ok"] == ["0.png", "1.png", "3.png"]
