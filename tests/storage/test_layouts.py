"""Layouts as other programs write them: WebDataset's tars, GNU tar's, folders of Hugging Face's datasets; and globs of
every kind of shard, on disk and in a store."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.member_bytes import ByteRange
from pipeline.storage.shards import find_shards, index_shard
from pipeline.storage.store import Store
from tests.fakes_run import drawn_image, write_folder
from tests.storage.samples import members_of, tar_of

IMAGES = {f"sa_{number}.jpg": drawn_image(number) for number in range(4)}


def images_of(source: str, store: Store) -> dict[str, bytes]:
    """By `shard/name`."""
    found: dict[str, bytes] = {}
    for shard in find_shards(source, store).shards:
        for member in members_of(index_shard(shard, store)):
            found[f"{shard.name}/{member.key}"] = ByteRange.of(member, kind=shard.kind, column=None).read(store)
    return found


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_tar_that_webdataset_wrote_is_its_images(store: Store, tmp_path: Path, ending: str) -> None:
    """Whatever else a sample has; with the slashes and long names of its keys."""
    wds: Any = pytest.importorskip("webdataset")
    keys = [f"n{number:08d}/{'part' * 40}/0001.crop" for number in range(3)]
    with wds.TarWriter(str(tmp_path / f"train-000000.{ending}")) as writer:
        for number, key in enumerate(keys):
            writer.write({"__key__": key, "jpg": drawn_image(number), "cls": 7, "json": {"a": 1}, "seg.png": b"mask"})
    found = images_of(str(tmp_path), store)
    photos = {name: data for name, data in found.items() if not name.endswith(".seg.png")}
    assert photos == {f"train-000000/{key}.jpg": drawn_image(number) for number, key in enumerate(keys)}
    assert len(found) == 2 * len(photos)


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar program")
@pytest.mark.parametrize("dialect", ["gnu", "pax", "ustar"])
def test_a_tar_that_gnu_tar_wrote_in_the_layout_of_sa_1b_is_its_images(
    store: Store, tmp_path: Path, dialect: str
) -> None:
    """Names longer than a header's field where the dialect has a place for them."""
    folder = "d" * 90 if dialect == "ustar" else "d" * 130
    images = {f"{folder}/{name}": data for name, data in IMAGES.items()}
    annotations = {name.replace("jpg", "json"): b"{}" for name in images}
    write_folder(tmp_path / "in", images | annotations | {f"{folder}/._sa_0.jpg": b"fork"})
    command = [
        "tar",
        f"--format={dialect}",
        "--sort=name",
        "-C",
        str(tmp_path / "in"),
        "-cf",
        str(tmp_path / "a.tar"),
        ".",
    ]
    subprocess.run(command, check=True)
    assert images_of(f"{tmp_path}/a.tar", store) == {f"a/./{name}": data for name, data in images.items()}
    (shard,) = find_shards(f"{tmp_path}/a.tar", store).shards
    counted = {each.kind: each.count for each in index_shard(shard, store).ignored}
    assert counted == {".json": 4, "hidden": 1, "folder": 2}


def test_a_folder_of_a_hugging_face_dataset_is_its_parquet_files(store: Store, tmp_path: Path) -> None:
    """With the card, and what a download leaves beside it."""
    datasets: Any = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": data, "path": name} for name, data in IMAGES.items()]}
    whole = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image(decode=False)}))
    for number in range(2):
        whole.shard(2, number).to_parquet(tmp_path / "data" / f"train-{number:05d}-of-00002.parquet")
    shutil.copytree(tmp_path / "data", tmp_path / ".cache" / "huggingface")
    write_folder(tmp_path, {"README.md": b"---\n---\n", ".gitattributes": b"x", "dataset_infos.json": b"{}"})
    expected = {f"train-{n // 2:05d}-of-00002/{name}": data for n, (name, data) in enumerate(IMAGES.items())}
    for source in (f"{tmp_path}", f"{tmp_path}/data", f"{tmp_path}/data/train-*-of-00002.parquet"):
        assert images_of(source, store) == expected


def of_every_kind() -> dict[str, bytes]:
    archive, table = io.BytesIO(), pa.BufferOutputStream()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("i.jpg", b"zip")
    pq.write_table(pa.table({"image": [b"parquet"]}), table)
    return {
        "a1.tar": tar_of(("i.jpg", b"tar")),
        "a2.tar.gz": gzip.compress(tar_of(("i.jpg", b"gzip"))),
        "a3.zip": archive.getvalue(),
        "a4.parquet": table.getvalue().to_pybytes(),
        "a5.txt": b"deep/i.jpg\n",
        "a6.jpg": b"image",
        "deep/i.jpg": b"listed",
        "b.md": b"x",
    }


GLOBS = {
    "a1*.tar": {"a1/i.jpg": b"tar"},
    "*2.tar.gz": {"a2/i.jpg": b"gzip"},
    "?3.zip": {"a3/i.jpg": b"zip"},
    "a[34].*": {"a3/i.jpg": b"zip", "a4/a4.parquet#0": b"parquet"},
    "a5*": {"a5/deep/i.jpg": b"listed"},
    "a6.j*": {"a6-j/a6.jpg": b"image"},
    "d*": {"deep/i.jpg": b"listed"},
    "d*/*.jpg": {"in/deep/i.jpg": b"listed"},
}


@pytest.mark.parametrize("pattern", GLOBS)
def test_a_glob_finds_every_kind_of_shard_on_disk(store: Store, tmp_path: Path, pattern: str) -> None:
    write_folder(tmp_path / "in", of_every_kind())
    assert images_of(f"{tmp_path}/in/{pattern}", store) == GLOBS[pattern]


def test_a_glob_finds_every_kind_of_shard_in_a_bucket(s3_endpoint: str, s3_client: Any, s3_bucket: str) -> None:
    for name, data in of_every_kind().items():
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{name}", Body=data)
    store = connect(StoreSettings(endpoint_url=s3_endpoint))
    for pattern, expected in GLOBS.items():
        assert images_of(f"s3://{s3_bucket}/in/{pattern}", store) == expected
