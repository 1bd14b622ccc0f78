"""Tars that were compressed as a whole: their members, what a cut or damaged stream leaves of them, and their cost."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import ChangedError, InputError, TooManyBytesError
from pipeline.plan.planning import create_or_load_plan
from pipeline.records import Member
from pipeline.settings import StoreSettings
from pipeline.storage.connect import RoutedStore
from pipeline.storage.member_bytes import ByteRange
from pipeline.storage.s3 import S3Store
from pipeline.storage.shards import ShardKind, find_shards, index_shard
from pipeline.storage.store import Store
from tests.fakes_run import Notes, drawn_image, write_tar
from tests.fault_proxy import FaultProxy, Torn
from tests.output.test_verify import run_without_a_cluster, verified, whats
from tests.plan.making import shape_of
from tests.small_runs import context_of, rows_of, small_run, work
from tests.storage.samples import members_of, tar_of

RANDOM = np.random.default_rng(7)
BODIES = {f"{'d' * 120}/é{number}.jpg": RANDOM.bytes(3000 + 700 * number) for number in range(30)}
TAR = tar_of(("readme.txt", b"x" * 900), *BODIES.items())


def zstd(data: bytes) -> bytes:
    sink: Any = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


SKIPPED = struct.pack("<2I", 0x184D2A50, 5) + b"empty"
PACKED = {
    "a.tar.gz": gzip.compress(TAR),
    "b.TGZ": gzip.compress(TAR[:50_000]) + gzip.compress(TAR[50_000:]),
    "c.tar.zst": zstd(TAR),
    "d.tzst": SKIPPED + zstd(TAR[:50_000]) + SKIPPED + zstd(TAR[50_000:]),
}


class OpensNoted(RoutedStore):
    def __init__(self) -> None:
        super().__init__(StoreSettings())
        self.opens = 0

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        self.opens += 1
        return super().open(uri, etag=etag)


def members(uri: str, store: Store) -> tuple[Member, ...]:
    (shard,) = find_shards(uri, store).shards
    assert shard.kind is ShardKind.COMPRESSED_TAR
    return members_of(index_shard(shard, store))


def read(member: Member, store: Store, **how: Any) -> bytes:
    return ByteRange.of(member, kind=ShardKind.COMPRESSED_TAR, column=None).read(store, **how)


@pytest.fixture
def noted() -> OpensNoted:
    return OpensNoted()


@pytest.mark.parametrize("name", PACKED)
def test_every_member_has_its_bytes_in_any_order(noted: OpensNoted, tmp_path: Path, name: str) -> None:
    """As one stream, as several put end to end, and with the empty frames of parallel packers."""
    (tmp_path / name).write_bytes(PACKED[name])
    found = members(str(tmp_path / name), noted)
    assert {member.key: read(member, noted) for member in found} == BODIES
    assert [read(found[number], noted) for number in (20, 3, 29)] == [
        list(BODIES.values())[number] for number in (20, 3, 29)
    ]


def test_members_in_order_cost_one_pass_and_so_does_the_chunk_behind_them(noted: OpensNoted, tmp_path: Path) -> None:
    """A stream stays where it was left; going back begins anew."""
    (tmp_path / "a.tar.gz").write_bytes(PACKED["a.tar.gz"])
    found = members(str(tmp_path / "a.tar.gz"), noted)
    before = noted.opens
    for member in found[:8] + found[8:16] + found[24:]:
        read(member, noted)
    assert noted.opens - before == 1
    read(found[0], noted)
    assert noted.opens - before == 2


def test_two_chunks_at_work_do_not_disturb_each_other(noted: OpensNoted, tmp_path: Path) -> None:
    (tmp_path / "a.tar.zst").write_bytes(PACKED["c.tar.zst"])
    found = members(str(tmp_path / "a.tar.zst"), noted)
    read(found[15], noted)
    before = noted.opens
    for near, far in zip(found[:14], found[16:], strict=True):
        assert (read(near, noted), read(far, noted)) == (BODIES[near.key], BODIES[far.key])
    assert noted.opens - before == 1


@pytest.mark.parametrize("share", [0.02, 0.31, 0.5, 0.77, 0.999])
def test_a_cut_stream_keeps_every_member_before_the_cut(store: Store, tmp_path: Path, share: float) -> None:
    """To the last one that zlib itself can unpack."""
    cut = PACKED["a.tar.gz"][: int(len(PACKED["a.tar.gz"]) * share)]
    (tmp_path / "a.tar.gz").write_bytes(cut)
    *whole, broken = members(str(tmp_path / "a.tar.gz"), store)
    left = len(zlib.decompressobj(wbits=31).decompress(cut))
    places = {name: TAR.index(body) + len(body) for name, body in BODIES.items()}
    assert [member.key for member in whole] == [name for name, end in places.items() if end <= left]
    assert {member.key: read(member, store) for member in whole} == {m.key: BODIES[m.key] for m in whole}
    assert "of the unpacked tar: its compressed stream is cut or damaged" in broken.broken


@pytest.mark.parametrize("name", PACKED)
def test_damage_in_the_last_bytes_costs_no_member(store: Store, tmp_path: Path, name: str) -> None:
    """pyarrow gives none of the last 64 KiB then, and there may be many images in them. What is damaged is gzip's
    checksum; of Zstandard it is what follows the frame."""
    whole_stream = PACKED[name][: -1 if name.lower().endswith("gz") else None]
    (tmp_path / name).write_bytes(whole_stream + b"\x01\x02\x03")
    *whole, broken = members(str(tmp_path / name), store)
    assert {member.key: read(member, store) for member in whole} == BODIES
    assert "its compressed stream is cut or damaged" in broken.broken


@pytest.mark.parametrize(
    ("data", "said"), [(b"no tar", "expected gzip or Zstandard, found b'no t'"), (b"", "empty file")]
)
def test_what_is_no_compressed_tar_is_one_broken_member(store: Store, tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "a.tgz").write_bytes(data)
    (broken,) = members(str(tmp_path / "a.tgz"), store)
    assert broken.key == "a.tgz@0"
    assert said in broken.broken


def test_a_member_is_of_the_planned_version_or_an_error(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(PACKED["a.tar.gz"])
    found = members(str(path), store)
    path.write_bytes(gzip.compress(tar_of(("b.jpg", b"b"))))
    with pytest.raises(ChangedError, match="was changed"):
        read(found[0], store)
    path.write_bytes(PACKED["a.tar.gz"][:20_000])
    with pytest.raises(InputError, match=r"is damaged at byte .* of the unpacked tar"):
        read(found[-1], store, of_any_version=True)
    with pytest.raises(TooManyBytesError):
        read(found[0], store, limit=100)


def test_a_line_that_breaks_is_taken_up_again_in_the_same_version(
    proxy: FaultProxy, s3_store: S3Store, s3_client: Any, s3_bucket: str
) -> None:
    """By a range with the etag, so that no two versions are unpacked as one."""
    s3_client.put_object(Bucket=s3_bucket, Key="a.tar.gz", Body=PACKED["a.tar.gz"])
    found = members(f"s3://{s3_bucket}/a.tar.gz", s3_store)
    proxy.forget()
    proxy.harm("GET", Torn(30_000), Torn(40_000))
    assert {member.key: read(member, s3_store) for member in found} == BODIES
    assert len(proxy.headers) == 3
    assert all(headers["if-match"] for _, headers in proxy.headers)


def test_a_run_has_the_rows_of_the_plain_tar_in_few_chunks(store: Store, tmp_path: Path) -> None:
    """And says beforehand that it is slower."""
    images = {f"sa_{number}.png": drawn_image(number) for number in range(20)}
    plain = write_tar(tmp_path / "plain" / "s.tar", images)
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    settings, notes = small_run(tmp_path / "s.tar.gz", tmp_path / "out"), Notes()
    settings = replace(settings, run=replace(settings.run, images_per_chunk=2))
    create_or_load_plan(shape_of(settings), out=settings.out, store=store, say=notes.say)
    assert "plain tars are read faster" in notes.sentences[0]
    context = run_without_a_cluster(settings, store)
    assert [chunk.stop - chunk.start for chunk in context.plan.chunks()] == [3, 3, 3, 3, 3, 3, 2]
    assert whats(verified(settings.out, store)) == ""
    of_plain = context_of(small_run(plain, tmp_path / "of-plain"), store)
    work(of_plain)
    assert [replace(row, source="") for row in rows_of(context)] == [
        replace(row, source="") for row in rows_of(of_plain)
    ]


def test_a_folder_of_compressed_tars_is_a_shard_each_and_their_names_lose_both_endings(
    store: Store, tmp_path: Path
) -> None:
    for name in ("x.tar.gz", "y.tgz", "z.tar.zst", "._z.tgz"):
        (tmp_path / name).write_bytes(PACKED["a.tar.gz"])
    found = find_shards(str(tmp_path), store).shards
    assert [(shard.name, shard.kind) for shard in found] == [(name, ShardKind.COMPRESSED_TAR) for name in "xyz"]
    globbed = find_shards(f"{tmp_path}/*.t*gz,{tmp_path}/*.tar.gz", store).shards
    assert [shard.name for shard in globbed] == ["x", "y"]
