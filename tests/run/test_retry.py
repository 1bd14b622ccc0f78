"""After an outage of the source: the repeated command, and run.retry_failed=true, end as if nothing had been."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.output.manifest import find_manifest
from pipeline.plan.layout import manifest_uri, plan_uri, success_uri
from pipeline.run.report import summary
from pipeline.settings import RunSettings, Settings, StoreSettings
from pipeline.storage.store import Store
from tests.fakes_run import drawn_image, write_folder
from tests.fault_proxy import Answer, Drip, FaultProxy, fault_proxy
from tests.small_runs import RECIPE, parts_of, rows_at, run, small_run, with_run

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def finished_without_one(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dict[str, bytes]]:
    """A finished run in which one image of seven was missing, which is back by now; and an undisturbed run's parts."""
    place = tmp_path_factory.mktemp("damaged")
    folder = write_folder(place / "in", {f"{n}.png": drawn_image(n) for n in range(7)})
    settings = with_run(small_run(folder, place / "out"), max_failed_fraction=0.5)
    undisturbed = replace(settings, out=str(place / "undisturbed"))
    assert run(undisturbed).exit_code == 0
    # The plan of the undisturbed run is that of both: the image goes after planning.
    shutil.copytree(f"{undisturbed.out}/_job/members", f"{settings.out}/_job/members")
    shutil.copy(plan_uri(undisturbed.out), plan_uri(settings.out))
    (folder / "4.png").rename(place / "4.png")
    outcome = run(settings)
    assert outcome.manifest is not None
    assert outcome.manifest.failures == {"missing": 1}
    (place / "4.png").rename(folder / "4.png")
    return settings, parts_of(undisturbed.out)


@pytest.fixture
def damaged(
    finished_without_one: tuple[Settings, dict[str, bytes]], tmp_path: Path
) -> tuple[Settings, dict[str, bytes]]:
    """The same, to be changed."""
    settings, undisturbed = finished_without_one
    shutil.copytree(settings.out, tmp_path / "out")
    return replace(settings, out=str(tmp_path / "out")), undisturbed


def test_failed_rows_of_a_finished_run_are_done_and_the_rest_stays(damaged: tuple[Settings, dict[str, bytes]]):
    """The way out was to delete parts by hand, and stood nowhere."""
    settings, undisturbed = damaged
    before = {path.name: path.stat().st_mtime_ns for path in (Path(settings.out) / "data").iterdir()}
    plain = summary(run(settings))
    assert "nothing to do" in plain
    assert "run.retry_failed=true tries the failed images once more" in plain
    outcome = run(with_run(settings, retry_failed=True))
    assert outcome.exit_code == 0
    assert outcome.manifest is not None
    assert outcome.manifest.failures == {}
    assert parts_of(settings.out) == undisturbed
    after = {path.name: path.stat().st_mtime_ns for path in (Path(settings.out) / "data").iterdir()}
    assert sum(before[name] != after[name] for name in before) == 1
    assert "nothing to do" in summary(run(with_run(settings, retry_failed=True)))


def test_failed_rows_of_an_unfinished_run_are_done_with_the_rest(damaged: tuple[Settings, dict[str, bytes]]):
    """Without a manifest the parts themselves are asked."""
    settings, undisturbed = damaged
    for uri in (manifest_uri(settings.out), success_uri(settings.out), f"{settings.out}/data/in-00000.parquet"):
        os.unlink(uri)
    assert run(with_run(settings, retry_failed=True)).exit_code == 0
    assert parts_of(settings.out) == undisturbed


def test_what_fails_again_keeps_its_row_and_the_run_is_finished(
    damaged: tuple[Settings, dict[str, bytes]], store: Store
):
    """A retry that helps nobody must not leave less than there was."""
    settings, _ = damaged
    before = parts_of(settings.out)
    folder = Path(settings.source)
    folder.rename(folder.parent / "away")
    try:
        outcome = run(with_run(settings, retry_failed=True))
    finally:
        (folder.parent / "away").rename(folder)
    assert outcome.manifest is not None
    assert outcome.manifest.failures == {"missing": 1}
    assert "shows nothing any more" in summary(outcome)
    assert parts_of(settings.out) == before
    assert find_manifest(outcome.plan, out=settings.out, store=store) == outcome.manifest


@dataclass(frozen=True)
class InABucket:
    """Six images behind a proxy, and what an undisturbed run makes of them."""

    settings: Settings
    proxy: FaultProxy
    undisturbed: dict[str, bytes]


@pytest.fixture(scope="module")
def in_a_bucket(
    cluster: str, tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str, s3_client: Any
) -> Iterator[InABucket]:
    place, bucket = tmp_path_factory.mktemp("outage"), "test-outage"
    s3_client.create_bucket(Bucket=bucket)
    for number in range(6):
        s3_client.put_object(Bucket=bucket, Key=f"in/{number}.png", Body=drawn_image(number))
    with fault_proxy(s3_endpoint) as proxy:
        settings = Settings(
            source=f"s3://{bucket}/in",
            out=str(place / "undisturbed"),
            recipe=RECIPE,
            store=StoreSettings(endpoint_url=proxy.url, retry_deadline_s=1.0),
            run=RunSettings(images_per_chunk=2, max_workers=1, chunk_attempts=2),
        )
        assert run(settings).exit_code == 0
        yield InABucket(settings, proxy, parts_of(settings.out))


@pytest.mark.parametrize(
    "answer", [Answer(400, "ExpiredToken"), Answer(403, "AccessDenied"), Answer(404, "NoSuchBucket")]
)
def test_an_outage_of_a_bucket_costs_no_image(tmp_path: Path, in_a_bucket: InABucket, answer: Answer):
    """Seven of twelve images were `missing` for good when a token ran out in the middle."""
    settings = replace(in_a_bucket.settings, out=str(tmp_path / "out"))
    # Two chunks are read side by side: of four reads at least one chunk has both of its own.
    listing_and_four_images = [Drip(1, 0.0)] * 5
    in_a_bucket.proxy.harm("GET", *listing_and_four_images, *[answer] * 400)
    outcome = run(settings)
    in_a_bucket.proxy.forget()
    assert outcome.exit_code == 3
    assert outcome.manifest is None
    [report] = [json.loads(path.read_text()) for path in (tmp_path / "out" / "_job" / "reports").iterdir()]
    assert report["exit_code"] == 3
    assert [each["chunk"] for each in report["given_up"]] == [each.chunk.chunk_id for each in outcome.given_up]
    assert {row.status for row in rows_at(settings.out)} <= {"ok"}
    assert run(settings).exit_code == 0
    assert parts_of(settings.out) == in_a_bucket.undisturbed


def test_a_retry_of_other_settings_is_refused(damaged: tuple[Settings, dict[str, bytes]]):
    """Rows of two recipes in one part would be worse than a missing one."""
    settings, _ = damaged
    other = replace(settings, recipe=replace(settings.recipe, points_per_side=5))
    with pytest.raises(ConfigError, match="was planned with other settings"):
        run(with_run(other, retry_failed=True))
