"""Which process runs which tests, and what the processes share. What the tests share is in fixtures.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.s3_server import running_server

# Before anything imports Triton: the kernels for GPUs are interpreted here (tests/gpu).
os.environ["TRITON_INTERPRET"] = "1"

HERE = Path(__file__).parent
DEAREST = (
    *("run/test_generate.py", "run/test_chaos.py", "masks/test_equality.py", "cluster/test_submit.py"),
    *("training/test_learning.py", "report/test_in_a_browser.py", "test_benchmarks.py", "test_wheel.py"),
    *("cluster/test_private_ray.py", "model/test_sam2_released.py", "gpu/test_compiled.py"),
)
"""Files of a quarter of a minute to three minutes, in the order in which they begin. A process that has one of a single
test takes another at once. With three processes chaos and submit, which mostly wait, so fall to one of them, the files
of the cluster to another, and the third only computes."""
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


def pytest_configure(config: pytest.Config) -> None:
    """The process that hands out the tests runs none, and takes no three seconds for torch and Ray."""
    if hasattr(config, "workerinput") or config.getoption("dist", default="no") == "no":
        config.pluginmanager.import_plugin("tests.fixtures")
