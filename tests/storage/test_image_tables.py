"""Images in columns of Parquet files: which column, which names, which bytes, in how many requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from boto3.session import Session

from pipeline.errors import ChangedError, ConfigError, InputError, TooManyBytesError
from pipeline.records import Member
from pipeline.settings import StoreSettings
from pipeline.storage import image_tables as module
from pipeline.storage.connect import RoutedStore
from pipeline.storage.image_tables import ImageTables, image_column
from pipeline.storage.shards import ShardKind, find_shards, index_shard
from pipeline.storage.store import ObjectInfo, Store
from tests.storage.samples import members_of

BINARY, STRUCT = pa.binary(), pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LIMIT = 2**30
IMAGES = [bytes([65 + row]) * (3000 + row) for row in range(10)]


class RequestsNoted(RoutedStore):
    def __init__(self) -> None:
        super().__init__(StoreSettings())
        self.reads: list[int | None] = []

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        self.reads.append(length)
        return super().read(uri, offset=offset, length=length, etag=etag, limit=limit)


def write(path: Path, columns: dict[str, Any], **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    usual: dict[str, Any] = {"row_group_size": 4, "use_dictionary": False, "compression": "none"}
    pq.write_table(pa.table(columns), path, **usual | how)
    return path


def structs(images: Sequence[bytes | None]) -> Any:
    return pa.array([{"bytes": data, "path": f"photos/{row}.jpg"} for row, data in enumerate(images)], STRUCT)


def plain(images: Sequence[bytes | None]) -> Any:
    return pa.array(images, BINARY)


def members(path: Path, store: Store, column: str | None = None) -> tuple[Member, ...]:
    [shard] = find_shards(str(path), store).shards
    assert shard.kind is ShardKind.PARQUET
    return members_of(index_shard(shard, store, image_column=column))


def read(member: Member, tables: ImageTables, *, limit: int = LIMIT) -> bytes:
    return tables.read(ObjectInfo(member.uri, member.length, member.etag), member.offset, limit=limit)


@pytest.mark.parametrize("make", [structs, plain])
def test_every_row_is_an_image_with_its_bytes(store: Store, tmp_path: Path, make: Any) -> None:
    path = write(tmp_path / "train.parquet", {"label": list(range(10)), "image": make(IMAGES)})
    found = members(path, store)
    names = [f"photos/{row}.jpg" if make is structs else f"train.parquet#{row}" for row in range(10)]
    assert [member.key for member in found] == names
    tables = ImageTables(store, None)
    for order in (found, found[::-1]):
        assert [read(member, tables) for member in order] == IMAGES[:: 1 if order is found else -1]


def test_a_dataset_that_hugging_face_wrote_is_read(store: Store, tmp_path: Path) -> None:
    datasets: Any = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(IMAGES)], "label": [0] * 10}
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text("---\n---\n")
    found = members(tmp_path, store)
    assert [member.key for member in found] == [f"{row}.png" for row in range(10)]
    assert [read(member, ImageTables(store, None)) for member in found] == IMAGES


def test_names_of_sa_1b_keep_their_numbers(store: Store, tmp_path: Path) -> None:
    images = pa.array([{"bytes": data, "path": f"sa_{900 + row}.jpg"} for row, data in enumerate(IMAGES)], STRUCT)
    path = write(tmp_path / "a.parquet", {"image": images})
    assert [member.image_id for member in members(path, store)] == list(range(900, 910))


@pytest.mark.parametrize(
    ("columns", "asked", "expected"),
    [
        ({"anything": BINARY, "label": pa.int64()}, None, ("anything", None)),
        ({"mask": BINARY, "image": STRUCT}, None, ("image.bytes", "image.path")),
        ({"mask": BINARY, "image": STRUCT}, "mask", ("mask", None)),
        ({"left": pa.large_binary(), "right": pa.large_binary()}, "right", ("right", None)),
        ({"photo": pa.struct([("bytes", BINARY)])}, None, ("photo.bytes", None)),
    ],
)
def test_the_column_is_found_or_the_one_that_is_asked_for(columns: Any, asked: str | None, expected: Any) -> None:
    assert image_column(pa.schema(list(columns.items())), asked, "a.parquet") == expected


@pytest.mark.parametrize(
    ("columns", "asked", "sentence"),
    [
        ({"a": pa.int64(), "b": pa.string()}, None, "a.parquet has no column of image bytes; it has a, b"),
        ({"left": BINARY, "right": BINARY}, None, "bytes in left, right; say which are images: run.image_column="),
        ({"image": BINARY, "url": pa.string()}, "url", "no column 'url' with image bytes; it has image, url"),
        ({f"c{n}": pa.int64() for n in range(10)}, None, "c7 and 2 more"),
    ],
)
def test_without_one_the_columns_are_told(columns: Any, asked: str | None, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        image_column(pa.schema(list(columns.items())), asked, "a.parquet")
    assert sentence in str(caught.value)


@pytest.mark.parametrize("kept", [0, module.KEPT_GROUP], ids=["walked", "kept"])
def test_a_row_without_bytes_costs_no_neighbour(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(module, "KEPT_GROUP", kept)
    images: list[bytes | None] = [*IMAGES[:3], None, *IMAGES[4:]]
    both = pa.array([None if data is None else {"bytes": data, "path": None} for data in images], STRUCT)
    for name, column in (("plain", plain(images)), ("struct", both), ("inner", structs(images))):
        found = members(write(tmp_path / f"{name}.parquet", {"image": column}), store)
        tables = ImageTables(store, None)
        for row, member in enumerate(found):
            if row == 3:
                with pytest.raises(InputError, match=r"row 3 of .* has no image bytes"):
                    read(member, tables)
            else:
                assert read(member, tables) == IMAGES[row]


def test_a_damaged_row_group_costs_no_other(store: Store, tmp_path: Path) -> None:
    """The checksums of its pages find it."""
    path = write(tmp_path / "a.parquet", {"image": plain(IMAGES)}, write_page_checksum=True, compression="none")
    data = bytearray(path.read_bytes())
    data[data.index(IMAGES[5]) + 100] ^= 1
    path.write_bytes(data)
    tables = ImageTables(store, None)
    for row, member in enumerate(members(path, store)):
        if 4 <= row < 8:
            with pytest.raises(InputError, match=f"row {row} of .* cannot be read"):
                read(member, tables)
        else:
            assert read(member, tables) == IMAGES[row]


def test_a_row_in_the_middle_costs_the_end_of_the_file_and_its_row_group(tmp_path: Path) -> None:
    """And its neighbours nothing."""
    path = write(tmp_path / "a.parquet", {"other": ["x" * 1000] * 10, "image": plain([data * 40 for data in IMAGES])})
    found, store = members(path, RoutedStore(StoreSettings())), RequestsNoted()
    tables = ImageTables(store, None)
    read(found[5], tables)
    assert len(store.reads) <= 3
    assert sum(length or 0 for length in store.reads) < path.stat().st_size
    before = len(store.reads)
    assert [read(member, tables) for member in (found[4], found[7], found[5])] == [
        IMAGES[4] * 40,
        IMAGES[7] * 40,
        IMAGES[5] * 40,
    ]
    assert len(store.reads) == before
    read(found[8], tables)
    assert len(store.reads) == before + 1


def test_a_row_group_that_is_too_large_to_keep_is_walked_over_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward reading opens it once; going back begins anew."""
    monkeypatch.setattr(module, "KEPT_GROUP", 0)
    path = write(tmp_path / "a.parquet", {"image": structs(IMAGES)}, row_group_size=100)
    found, tables = members(path, store), ImageTables(store, None)
    assert [read(member, tables) for member in found] == IMAGES
    assert read(found[2], tables) == IMAGES[2]
    assert [read(member, tables) for member in found[3:]] == IMAGES[3:]


def test_another_file_in_its_place_is_changed(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": plain(IMAGES)})
    found = members(path, store)
    write(path, {"image": plain(IMAGES[::-1])})
    with pytest.raises(ChangedError):
        read(found[0], ImageTables(store, None))


def test_bytes_above_the_limit_are_too_many(store: Store, tmp_path: Path) -> None:
    found = members(write(tmp_path / "a.parquet", {"image": plain(IMAGES)}), store)
    with pytest.raises(TooManyBytesError, match=r"row 9 of .* has 3,009 bytes"):
        read(found[9], ImageTables(store, None), limit=3008)


@pytest.mark.parametrize("data", [b"", b"no parquet", b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_what_is_no_parquet_is_told(store: Store, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(ConfigError, match=r"a\.parquet is no Parquet file that can be read"):
        members(tmp_path / "a.parquet", store)


def test_beside_images_or_tars_a_parquet_file_is_a_table_about_them(store: Store, tmp_path: Path) -> None:
    """A folder of Parquet files alone is a dataset; by name or glob each is a shard."""
    write(tmp_path / "set" / "a.parquet", {"image": plain(IMAGES)})
    write(tmp_path / "set" / "deep" / "b.parquet", {"image": plain(IMAGES)})
    assert [shard.name for shard in find_shards(str(tmp_path / "set"), store).shards] == ["a", "b"]
    assert [shard.name for shard in find_shards(f"{tmp_path}/set/*.parquet", store).shards] == ["a"]
    (tmp_path / "set" / "photo.jpg").write_bytes(b"x")
    [folder] = find_shards(str(tmp_path / "set"), store).shards
    assert folder.kind is ShardKind.FOLDER
    assert [(each.kind, each.count) for each in index_shard(folder, store).ignored] == [(".parquet", 2)]


def test_it_is_read_from_s3(s3_endpoint: str, s3_bucket: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": structs(IMAGES)})
    Session().client("s3", endpoint_url=s3_endpoint).put_object(
        Bucket=s3_bucket, Key="set/a.parquet", Body=path.read_bytes()
    )
    store = RoutedStore(StoreSettings(endpoint_url=s3_endpoint))
    [shard] = find_shards(f"s3://{s3_bucket}/set/", store).shards
    found = members_of(index_shard(shard, store))
    assert [read(member, ImageTables(store, None)) for member in found] == IMAGES
