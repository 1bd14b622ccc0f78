"""A run that an earlier version began is finished by this one.

run_0.1.tar.gz holds a source (three images and a tar of two) and what version 0.1 at plan version 2 made of it with the
fake segmenter: plan, member indexes, three parts, manifest. It lies in a bucket of a fixed name, because a plan names
its source and the versions of its images, and on S3 both are the same wherever the test runs.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import Format, ModelSettings, RunSettings, Settings, StoreSettings
from pipeline.storage.parts import read_part
from tests.fake_segmenter import segmenter_weights
from tests.fakes_run import Notes
from tests.small_runs import RECIPE, run

STORED = Path(__file__).parent / "run_0.1.tar.gz"
BUCKET = "stored-run"
UNFINISHED = ("out/data/in-00001.parquet", "out/_job/manifest.json", "out/_SUCCESS")
"""What a driver that was killed in the middle had not written yet."""


@pytest.fixture
def stored(s3_client: Any) -> Iterator[dict[str, bytes]]:
    """The objects of the run by key; all but the unfinished ones are in the bucket."""
    with tarfile.open(STORED) as tar:
        files = {info.name: tar.extractfile(info) for info in tar}
        objects = {name: file.read() for name, file in files.items() if file is not None}
    s3_client.create_bucket(Bucket=BUCKET)
    for key, data in objects.items():
        if key not in UNFINISHED:
            s3_client.put_object(Bucket=BUCKET, Key=key, Body=data)
    yield objects
    for entry in s3_client.list_objects_v2(Bucket=BUCKET)["Contents"]:
        s3_client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    s3_client.delete_bucket(Bucket=BUCKET)


@pytest.mark.usefixtures("cluster")
def test_a_half_done_run_of_an_earlier_version_is_finished(stored: dict[str, bytes], s3_client: Any, s3_endpoint: str):
    """A new release must not cost anybody the days that an old one has worked."""
    settings = Settings(
        source=f"s3://{BUCKET}/in",
        out=f"s3://{BUCKET}/out",
        model=ModelSettings(name="tiny"),  # the default of that version
        recipe=RECIPE,
        store=StoreSettings(endpoint_url=s3_endpoint),
        run=RunSettings(address="auto", images_per_chunk=2, max_workers=1),
    )
    notes = Notes()
    outcome = run(settings, find_weights=segmenter_weights, notes=notes)
    assert [sentence for sentence in notes.sentences if "from before versions were kept" in sentence]
    assert (outcome.found_chunks, outcome.committed_chunks, outcome.exit_code) == (2, 3, 0)
    for key in (key for key in stored if key.startswith("out/data/")):
        now = s3_client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        # Bytes are equal with one version of pyarrow; rows and metadata with every one.
        made = read_part(now, format=Format.PARQUET)
        assert made == read_part(stored[key], format=Format.PARQUET)
        assert key in UNFINISHED or now == stored[key]
