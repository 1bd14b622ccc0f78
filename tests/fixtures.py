"""Fixtures that more than one room's tests use: an S3 server, one Ray session with more CPUs than the machine, small
sources and a finished run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from boto3.session import Session

from pipeline.run.outcome import Outcome
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from tests.fakes_run import drawn_image, write_folder, write_tar
from tests.s3_server import S3_ENVIRONMENT, running_server
from tests.small_runs import run, small_run, with_run

# Float sums depend on the number of threads; and on few busy cores threads of one small product wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def s3_endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a real S3 server process; credentials for it are in the environment while it runs."""
    shared: str | None = getattr(request.config, "workerinput", {}).get("s3_url")
    with pytest.MonkeyPatch.context() as patch, nullcontext(shared) if shared else running_server() as url:
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in S3_ENVIRONMENT.items():
            patch.setenv(name, value)
        yield url


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str) -> Iterator[Any]:
    """A plain boto3 client of that server, for what a test does behind the store's back."""
    client = Session().client("s3", endpoint_url=s3_endpoint)
    yield client
    client.close()


@pytest.fixture
def s3_bucket(s3_client: Any) -> str:
    """The name of a new, empty bucket on that server."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def cluster(s3_endpoint: str) -> Iterator[str]:
    """The address of a Ray session that in-process drivers find, and other processes may join.

    After the S3 server: its credentials are in the environment that the workers inherit. Without what nobody here
    listens to: an autoscaler, lines of workers on a terminal.
    """
    from ray.cluster_utils import Cluster

    unheard = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
    head = {"num_cpus": 4, "num_gpus": 0, "object_store_memory": 100 * 2**20, **unheard}
    nodes: Any = Cluster(initialize_head=True, head_node_args=head)
    init: Any = ray.init
    init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def store() -> Store:
    return connect(StoreSettings(retry_deadline_s=1.0))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eight images and a tar with five: two shards."""
    folder = tmp_path_factory.mktemp("source")
    write_folder(folder, {f"im{number}.png": drawn_image(number) for number in range(8)})
    write_tar(folder / "more.tar", {f"sa_{number}.png": drawn_image(100 + number) for number in range(5)})
    return folder


@pytest.fixture
def settings(source: Path, tmp_path: Path) -> Settings:
    """Five chunks of the two shards, into a new OUT."""
    return small_run(source, tmp_path / "out")


@pytest.fixture(scope="session")
def finished(cluster: str, source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Outcome]:
    """A run that one worker has finished; read only."""
    settings = small_run(source, tmp_path_factory.mktemp("finished") / "out")
    return settings, run(with_run(settings, max_workers=1))
