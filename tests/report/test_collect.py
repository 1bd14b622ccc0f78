"""What is read of an output, what of a broken or unfinished one is shown, and what is refused."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, DeniedError, StorageError
from pipeline.records import ImageRow
from pipeline.report.collect import collect
from pipeline.report.records import ReportSettings
from pipeline.settings import Format, StoreSettings
from pipeline.storage.connect import RoutedStore, connect
from pipeline.storage.store import Store
from tests.commands import snapshot
from tests.report.making import write_output

ALL = ReportSettings()


class RangesNoted(RoutedStore):
    """The usual stores; remembers how many bytes of which part were read at once."""

    def __init__(self) -> None:
        super().__init__(StoreSettings(retry_deadline_s=1.0))
        self.reads: dict[str, list[int]] = defaultdict(list)

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        data = super().read(uri, offset=offset, length=length, etag=etag, limit=limit)
        if "/data/" in uri:
            self.reads[uri.rpartition("/")[2]].append(-1 if length is None else len(data))
        return data

    @property
    def read_whole(self) -> list[str]:
        return sorted(name for name, lengths in self.reads.items() if -1 in lengths)


def part(out: str, number: int) -> Path:
    return sorted((Path(out) / "data").iterdir())[number]


def test_only_the_sampled_parts_are_read_and_of_the_others_one_range(out: str) -> None:
    """A report of a million images must not read them all, and its totals are of all of them."""
    store = RangesNoted()
    report = collect(out, store, settings=ReportSettings(images=10))
    assert (report.scope.parts_sampled, report.scope.parts_counted) == (3, 11)
    assert len(store.read_whole) == 3
    assert all(len(lengths) <= 2 for lengths in store.reads.values())
    assert report.masks == collect(out, store, settings=ALL).masks > report.scope.masks_sampled > 0
    assert not report.scope.whole
    assert report.relative_size.total == report.scope.masks_sampled


def test_the_seed_alone_decides_what_is_sampled(out: str, store: Store) -> None:
    """Parts, masks and images; a page can be made again."""
    settings = {"images": 12, "overlap_images": 5, "concavity_masks_per_size": 4}
    first, again, other = (collect(out, store, settings=ReportSettings(seed=seed, **settings)) for seed in (3, 3, 4))
    assert first == again
    assert first.relative_size != other.relative_size
    assert first.overlap.images == 5
    assert max(first.concavity.drawn_per_size) == 4


def test_nothing_is_written(out: str, store: Store) -> None:
    """An output is data that others read."""
    before = snapshot(Path(out).parent)
    collect(out, store, settings=ALL)
    assert snapshot(Path(out).parent) == before


@pytest.mark.parametrize("format", list(Format))
def test_of_an_unfinished_run_what_is_committed_is_counted(
    rows: list[ImageRow], tmp_path: Path, store: Store, format: Format
) -> None:
    """Nobody has written down what its parts hold, so they are asked."""
    out = str(tmp_path / "out")
    write_output(rows, out, store, format=format, chunks=3)
    report = collect(out, store, settings=ALL)
    scope = report.scope
    assert (scope.parts_planned, scope.parts_committed, scope.images_planned) == (11, 3, 42)
    assert not scope.finished
    assert scope.whole
    assert sum(report.statuses.values()) == 12
    assert report.statuses["unreadable"] == 1
    assert report.masks == sum(len(row.masks) for row in rows[:12]) == scope.masks_sampled


def test_an_output_without_a_single_mask_is_shown(rows: list[ImageRow], tmp_path: Path, store: Store) -> None:
    """Its failures are what one looks for."""
    failed = [row for row in rows if not row.masks]
    write_output(failed, str(tmp_path / "out"), store)
    report = collect(str(tmp_path / "out"), store, settings=ALL)
    assert (report.masks, report.relative_size.total, sum(report.concavity.drawn_per_size)) == (0, 0, 0)
    assert len(report.failures) == 3
    assert report.overlap.mean_coverage == 0


@pytest.mark.parametrize("format", list(Format))
def test_broken_parts_are_named_and_the_rest_is_shown(
    rows: list[ImageRow], tmp_path: Path, store: Store, format: Format
) -> None:
    """One is cut, one is another chunk's with fewer rows, one is empty."""
    out = str(tmp_path / "out")
    write_output(rows, out, store, format=format)
    part(out, 0).write_bytes(part(out, 0).read_bytes()[:100])
    part(out, 4).write_bytes(part(out, 10).read_bytes())
    part(out, 5).write_bytes(b"")
    report = collect(out, store, settings=ALL)
    assert (report.scope.parts_committed, report.scope.parts_counted, report.scope.parts_sampled) == (11, 8, 8)
    names = ["in-00000", "in-00004", "in-00005"]
    assert all(name in said for name, said in zip(names, report.broken, strict=True))
    assert "holds 2 rows" in report.broken[1]
    rest = [*rows[4:16], *rows[24:]]
    assert report.masks == sum(len(row.masks) for row in rest) == report.scope.masks_sampled


def test_a_part_that_is_damaged_inside_is_left_out_of_the_figures(
    rows: list[ImageRow], tmp_path: Path, store: Store
) -> None:
    """Its end is whole, so it is counted; the damage is found when its masks are read."""
    out = str(tmp_path / "out")
    write_output(rows, out, store)
    whole = part(out, 2).read_bytes()
    middle = whole.index(rows[8].masks[0].counts.encode()) if rows[8].masks[0].counts.encode() in whole else 700
    part(out, 2).write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    report = collect(out, store, settings=ALL)
    assert (report.scope.parts_counted, report.scope.parts_sampled) == (11, 10)
    (said,) = report.broken
    assert "in-00002.parquet is damaged" in said


def test_a_mask_whose_runs_do_not_fill_its_image_is_no_figure(
    rows: list[ImageRow], tmp_path: Path, store: Store
) -> None:
    """Whatever wrote it, its coverage and its hull would be of another image."""
    out = str(tmp_path / "out")
    wrong = [replace(rows[0], height=rows[0].height + 1), *rows[1:8]]
    write_output(wrong, out, store, format=Format.COCO_RLE)
    report = collect(out, store, settings=ALL)
    (said,) = report.broken
    assert "in-00000.tar has a mask that cannot be read (the run lengths do not fill the image)" in said
    assert report.scope.parts_sampled == 1


def test_a_damaged_manifest_costs_only_the_reading_of_what_it_said(
    rows: list[ImageRow], tmp_path: Path, store: Store, out: str
) -> None:
    """The parts are the truth."""
    own = str(tmp_path / "out")
    write_output(rows, own, store)
    (Path(own) / "_job" / "manifest.json").write_text("{")
    found, expected = (collect(each, store, settings=ALL) for each in (own, out))
    assert (found.statuses, found.masks) == (expected.statuses, expected.masks)


def test_what_is_no_output_is_refused_with_a_sentence(rows: list[ImageRow], tmp_path: Path, store: Store) -> None:
    """A place that is not there, one that is empty, one that another tool wrote, and one without parts."""
    for name, plan in (("gone", None), ("empty", None), ("other", b"{}"), ("other2", b"not json")):
        out = tmp_path / name
        if name != "gone":
            out.mkdir()
        if plan is not None:
            (out / "_job").mkdir()
            (out / "_job" / "plan.json").write_bytes(plan)
        with pytest.raises(ConfigError, match=r"holds no run: there is no|plan\.json"):
            collect(str(out), store, settings=ALL)
    write_output(rows, str(tmp_path / "begun"), store, chunks=0)
    with pytest.raises(ConfigError, match=r"has no committed part yet \(0 of 11\)"):
        collect(str(tmp_path / "begun"), store, settings=ALL)
    write_output(rows, str(tmp_path / "broken"), store)
    for path in (tmp_path / "broken" / "data").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"none of its 11 parts can be used: .*in-00000.*; and 8 more"):
        collect(str(tmp_path / "broken"), store, settings=ALL)


class Refusing(RoutedStore):
    """Answers nothing about what is below a folder of this name."""

    def __init__(self, folder: str, error: type[StorageError]) -> None:
        super().__init__(StoreSettings())
        self._folder, self._error = folder, error

    def read(
        self, uri: str, *, offset: int = 0, length: int | None = None, etag: str = "", limit: int | None = None
    ) -> bytes:
        if f"/{self._folder}/" in uri:
            raise self._error(f"{uri}: refused")
        return super().read(uri, offset=offset, length=length, etag=etag, limit=limit)


def test_a_store_that_refuses_is_one_sentence(out: str, s3_endpoint: str) -> None:
    """It refuses the plan, or all parts; or there is no such bucket. One that fails is not asked eleven times."""
    with pytest.raises(ConfigError, match=r"cannot be read: .*plan.json: refused"):
        collect(out, Refusing("_job", DeniedError), settings=ALL)
    with pytest.raises(ConfigError, match=r"none of its 11 parts can be used: .*refused.*and 8 more"):
        collect(out, Refusing("data", DeniedError), settings=ALL)
    with pytest.raises(ConfigError, match=r"cannot be read: .*in-000\d\d.parquet: refused"):
        collect(out, Refusing("data", StorageError), settings=ALL)
    s3 = connect(StoreSettings(endpoint_url=s3_endpoint, retry_deadline_s=1.0))
    with pytest.raises(ConfigError, match="s3://no-such-bucket-here/out"):
        collect("s3://no-such-bucket-here/out", s3, settings=ALL)


@pytest.mark.parametrize("changes", [{"images": 0}, {"overlap_images": 0}, {"duplicate_iou": 1.0}])
def test_settings_that_measure_nothing_are_refused(changes: dict[str, float]) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=next(iter(changes))):
        ReportSettings(**changes)  # type: ignore[arg-type]


def test_progress_is_told_part_by_part(out: str, store: Store) -> None:
    """Somebody waits in front of it."""
    told: list[tuple[str, int, int]] = []
    collect(out, store, settings=ALL, show=lambda *each: told.append(each))
    assert told == [("counting", n, 11) for n in range(1, 12)] + [("measuring", n, 11) for n in range(1, 12)]
