"""Fixtures that more than one room's tests use: an S3 server, one Ray session with more CPUs than the machine, small
sources and a finished run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from boto3.session import Session
from xdist.scheduler import LoadFileScheduling

from pipeline.run.outcome import Outcome
from pipeline.settings import Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.store import Store
from tests.fakes_run import drawn_image, write_folder, write_tar
from tests.s3_server import S3_ENVIRONMENT, running_server
from tests.small_runs import run, small_run, with_run

# Before anything imports Triton: the kernels for GPUs are interpreted here (tests/gpu).
os.environ["TRITON_INTERPRET"] = "1"
# Float sums depend on the number of threads; and on few busy cores threads of one small product wait for each other.
torch.set_num_threads(1)


HERE = Path(__file__).parent
DEAREST = (
    "run/test_generate.py",
    "run/test_chaos.py",
    "masks/test_equality.py",
    "cluster/test_submit.py",
    "test_wheel.py",
    "training/test_learning.py",
    "test_benchmarks.py",
    "cluster/test_private_ray.py",
)
"""Files of half a minute to three minutes, in the order in which they begin. What waits most is at the front, with one
between that only computes."""
ON_ONE_CLUSTER = (
    *("run/test_generate.py", "run/test_retry.py", "run/test_secrets.py", "run/test_stored_run.py", "test_signals.py"),
    *("cluster/test_driver.py", "cluster/test_crew.py", "run/test_output.py", "run/test_real_model.py"),
    *("run/test_dry_run.py", "run/test_versions.py"),
)
"""Files that use `cluster`: all are run by the same process, one after the other, so that one of Ray's sessions is
started and not one in each process. A file that is missing here starts one where it is run."""


S3_URL = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no process is left alone with it at the end."""
    rank = {HERE / name: number for number, name in enumerate(DEAREST)}
    items.sort(key=lambda item: rank.get(item.path, len(DEAREST)))


class ByFile(LoadFileScheduling):
    """As --dist loadfile, but for ON_ONE_CLUSTER."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return f"tests/{ON_ONE_CLUSTER[0]}" if file.removeprefix("tests/") in ON_ONE_CLUSTER else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All processes of xdist have one S3 server."""
    stash = node.config.stash
    if S3_URL not in stash:
        server = running_server()
        stash[S3_URL] = server.__enter__()
        node.config.add_cleanup(lambda: server.__exit__(None, None, None))
    node.workerinput["s3_url"] = stash[S3_URL]


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
