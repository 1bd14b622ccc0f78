"""After an outage of the source: the repeated command, and run.retry_failed=true, end as if nothing had been."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.output.manifest import find_manifest
from pipeline.plan.layout import manifest_uri, success_uri
from pipeline.run.report import summary
from pipeline.settings import RunSettings, Settings, StoreSettings
from pipeline.storage.store import Store
from tests.fakes_run import drawn_image, write_folder
from tests.fault_proxy import Answer, Drip, fault_proxy
from tests.small_runs import RECIPE, parts_of, rows_at, run, with_run

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def damaged(settings: Settings, tmp_path: Path) -> tuple[Settings, dict[str, bytes]]:
    """A finished run in which one image of seven was missing, which is back by now; and an undisturbed run's parts."""
    folder = write_folder(tmp_path / "in", {f"{n}.png": drawn_image(n) for n in range(7)})
    settings = with_run(replace(settings, source=str(folder)), max_failed_fraction=0.5)
    undisturbed = replace(settings, out=str(tmp_path / "undisturbed"))
    assert run(undisturbed).exit_code == 0
    # The plan of the undisturbed run is that of both: the image goes after planning.
    (Path(settings.out) / "_job" / "members").mkdir(parents=True)
    for name in ("plan.json", *(f"members/{entry}" for entry in os.listdir(f"{undisturbed.out}/_job/members"))):
        (Path(settings.out) / "_job" / name).write_bytes((Path(undisturbed.out) / "_job" / name).read_bytes())
    (folder / "4.png").rename(tmp_path / "4.png")
    outcome = run(settings)
    assert outcome.manifest is not None
    assert outcome.manifest.failures == {"missing": 1}
    (tmp_path / "4.png").rename(folder / "4.png")
    return settings, parts_of(undisturbed.out)


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
    damaged: tuple[Settings, dict[str, bytes]], store: Store, tmp_path: Path
):
    """A retry that helps nobody must not leave less than there was."""
    settings, _ = damaged
    before = parts_of(settings.out)
    (tmp_path / "in").rename(tmp_path / "away")
    outcome = run(with_run(settings, retry_failed=True))
    assert outcome.manifest is not None
    assert outcome.manifest.failures == {"missing": 1}
    assert "shows nothing any more" in summary(outcome)
    assert parts_of(settings.out) == before
    assert find_manifest(outcome.plan, out=settings.out, store=store) == outcome.manifest


@pytest.mark.parametrize(
    "answer", [Answer(400, "ExpiredToken"), Answer(403, "AccessDenied"), Answer(404, "NoSuchBucket")]
)
def test_an_outage_of_a_bucket_costs_no_image(
    tmp_path: Path, s3_endpoint: str, s3_client: Any, s3_bucket: str, answer: Answer
):
    """Seven of twelve images were `missing` for good when a token ran out in the middle."""
    for number in range(6):
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{number}.png", Body=drawn_image(number))
    with fault_proxy(s3_endpoint) as proxy:
        settings = Settings(
            source=f"s3://{s3_bucket}/in",
            out=str(tmp_path / "out"),
            recipe=RECIPE,
            store=StoreSettings(endpoint_url=proxy.url, retry_deadline_s=1.0),
            run=RunSettings(images_per_chunk=2, max_workers=1, chunk_attempts=2),
        )
        assert run(replace(settings, out=str(tmp_path / "undisturbed"))).exit_code == 0
        # Two chunks are read side by side: of four reads at least one chunk has both of its own.
        listing_and_four_images = [Drip(1, 0.0)] * 5
        proxy.harm("GET", *listing_and_four_images, *[answer] * 400)
        outcome = run(settings)
        assert outcome.exit_code == 3
        assert outcome.manifest is None
        assert {row.status for row in rows_at(settings.out)} <= {"ok"}
        proxy.forget()
        assert run(settings).exit_code == 0
    assert parts_of(settings.out) == parts_of(tmp_path / "undisturbed")


def test_a_retry_of_other_settings_is_refused(damaged: tuple[Settings, dict[str, bytes]]):
    """Rows of two recipes in one part would be worse than a missing one."""
    settings, _ = damaged
    other = replace(settings, recipe=replace(settings.recipe, points_per_side=5))
    with pytest.raises(ConfigError, match="was planned with other settings"):
        run(with_run(other, retry_failed=True))
