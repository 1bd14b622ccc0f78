"""A local run keeps its Ray session to itself: seen from outside the process, as a neighbour on the machine would."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.private_ray import LONGEST_SOCKET, PREFIX, ROOT_BYTES, SOCKET_BYTES, private_folder
from pipeline.errors import ConfigError
from tests.fakes_run import drawn_image, write_tar

ROOT = Path(__file__).parent.parent.parent
LOOPBACK = {"0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F"}
"""127.0.0.1, ::1 and ::ffff:127.0.0.1 as /proc/net has them on a little-endian machine."""
LISTEN = "0A"
NEIGHBOUR = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
task = ray.remote(num_cpus=0)(lambda: "done")
print("task", ray.get(task.remote(), timeout=60))
"""


@dataclass(frozen=True)
class LocalRun:
    process: subprocess.Popen[str]
    token: str

    def processes(self) -> set[int]:
        """The run and everything that descends from it."""
        parents = dict(_parents())
        own = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in own} - own:
            own |= more
        return own

    def listeners(self) -> dict[str, set[str]]:
        """Local address -> what listens there, of those processes."""
        inodes: dict[str, str] = {}
        for pid in self.processes():
            with suppress(OSError):  # it has ended since
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):
                        inodes[str(link.readlink())] = name
        found: dict[str, set[str]] = {}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                link = f"socket:[{rest[5]}]"
                if state == LISTEN and link in inodes:
                    found.setdefault(local.split(":")[0], set()).add(inodes[link])
        return found

    def folder(self) -> Path:
        return Path(self._argument(rf"(/tmp/{PREFIX}\w+)/ray/"))

    def address(self) -> str:
        """Of the control plane."""
        return self._argument(r"--gcs[-_]address=(\S+)")

    def _argument(self, pattern: str) -> str:
        """From the command lines of Ray's processes, which any user of the machine can read."""
        for pid in self.processes():
            with suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if found := re.search(pattern, line):
                    return found[1]
        raise AssertionError(f"no process with {pattern}")


def _parents() -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str, s3_client: Any) -> Iterator[LocalRun]:
    """A run that is at work on S3 and has more to do than it can, with the temporary folder of a long-named Slurm job.

    It has written one part there: credentials and the store's address reach the workers of a private session.
    """
    base, bucket = tmp_path_factory.mktemp("local"), "private-ray"
    images = write_tar(base / "in.tar", {f"{number}.png": drawn_image(number) for number in range(200)})
    s3_client.create_bucket(Bucket=bucket)
    s3_client.put_object(Bucket=bucket, Key="in.tar", Body=images.read_bytes())
    long = base / ("x" * (120 - len(str(base)) - 1))
    long.mkdir()
    overrides = [f"source=s3://{bucket}/in.tar", f"out=s3://{bucket}/out", f'store.endpoint_url="{s3_endpoint}"']
    overrides += ["run.images_per_chunk=1", "run.max_workers=1"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fake_generate", *overrides, "recipe=sam", "recipe.points_per_side=4"],
        cwd=ROOT,
        env={**os.environ, "FAKE_SECONDS": "1", "TMPDIR": str(long), "RAY_AUTH_MODE": "disabled"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 200
            while not s3_client.list_objects_v2(Bucket=bucket, Prefix="out/data/")["KeyCount"]:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline, "no part"
                time.sleep(0.1)
            yield LocalRun(process, _token_of_a_child(process.pid))
        finally:
            process.kill()


def _token_of_a_child(driver: int) -> str:
    """A process's own later changes to its environment are not in /proc; those that it starts have them."""
    for pid, parent in _parents():
        if parent == driver:
            found = re.search(rb"RAY_AUTH_TOKEN=(\w+)", Path(f"/proc/{pid}/environ").read_bytes())
            assert found
            return found[1].decode()
    raise AssertionError("no process of Ray")


def test_nothing_of_a_local_run_listens_off_loopback(local_run: LocalRun):
    """A port on all interfaces is a door to the whole network, whatever is asked for behind it."""
    listeners = local_run.listeners()
    assert {"gcs_server", "raylet", "python"} <= set().union(*listeners.values()), listeners
    assert set(listeners) <= LOOPBACK, listeners


def test_the_folder_of_a_local_run_is_its_users_own_and_holds_no_token(local_run: LocalRun):
    """Sockets and logs lie there; Ray opens the folders that it makes itself to everybody."""
    folder = local_run.folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if local_run.token.encode() in path.read_bytes()] == []


def test_the_token_is_another_one_in_each_run(local_run: LocalRun):
    """One that a shell has exported belongs to a cluster."""
    assert len(local_run.token) == 64
    assert local_run.token != os.environ["RAY_AUTH_TOKEN"]


def test_a_process_without_the_token_gets_no_task_done_and_one_with_it_does(local_run: LocalRun):
    """Whoever may run a task is the user of the run."""
    without = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
    command = [sys.executable, "-c", NEIGHBOUR, local_run.address()]
    refused = subprocess.Popen(
        command,
        env={**without, "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    allowed = {**without, "RAY_AUTH_TOKEN": local_run.token}
    try:
        said = subprocess.run(command, env=allowed, capture_output=True, text=True, timeout=120, check=False)
        assert said.stdout == "task done\n", said.stderr
        # Ray would ask for twenty seconds; the first answer is enough.
        assert refused.stdout is not None
        answers: list[str] = []
        for line in refused.stdout:
            answers.append(line)
            if "InvalidAuthToken" in line:
                break
    finally:
        refused.kill()
        refused.communicate()
    assert "InvalidAuthToken" in answers[-1], answers
    assert not any(line.startswith("task") for line in answers)


def test_a_cluster_that_asks_for_a_token_says_so(local_run: LocalRun, tmp_path: Path):
    """Not "no cluster answers": one does."""
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
    script = f"from pipeline.cluster.ray_session import *\nwith ray_session({local_run.address()!r}): pass"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**env, "HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"ConfigError: the Ray cluster at run.address={local_run.address()} does not let this" in ended.stderr
    assert "RAY_AUTH_MODE=token" in ended.stderr


def test_the_folder_of_a_stopped_run_is_gone(local_run: LocalRun):
    """SIGTERM, as Slurm sends it. The last of these tests: it ends the run."""
    folder = local_run.folder()
    assert folder.exists()
    local_run.process.send_signal(signal.SIGTERM)
    _, errors = local_run.process.communicate(timeout=120)
    assert local_run.process.returncode == 130, errors
    assert not folder.exists()
    assert local_run.token not in errors


@pytest.fixture
def short() -> Iterator[Path]:
    """pytest's own folders are too long for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_the_private_folder_is_gone_after_an_error(short: Path):
    """With everything that Ray has left there."""

    def fail() -> None:
        with private_folder([str(short)]) as folder:
            assert folder.parent.parent == short
            folder.mkdir()
            (folder / "log").write_text("x")
            raise RuntimeError("at work")

    with pytest.raises(RuntimeError, match="at work"):
        fail()
    assert list(short.iterdir()) == []


def test_the_longest_folder_leaves_room_for_rays_sockets(short: Path):
    """One byte more, and no session starts: the limit is the system's, the names are Ray's."""
    longest = short / ("x" * (ROOT_BYTES - len(f"{short}/")))
    longest.mkdir()
    one_more = Path(f"{longest}y")
    one_more.mkdir()
    with private_folder([str(one_more), str(short)]) as folder:
        assert folder.parent.parent == short
    with private_folder([str(longest)]) as folder, socket.socket(socket.AF_UNIX) as there:
        path = folder.parent / LONGEST_SOCKET
        path.parent.mkdir(parents=True)
        there.bind(str(path))
        assert len(str(path)) == SOCKET_BYTES


def test_no_folder_for_a_session_is_a_configuration_error_with_every_reason(short: Path):
    """Not "no cluster answers": nobody asked for one."""
    long, gone = short / ("x" * 120), short / "gone"
    long.mkdir()
    with pytest.raises(ConfigError) as caught, private_folder([str(long), str(gone)]):
        pass
    assert "too long for Ray's sockets" in str(caught.value)
    assert f"{gone}: No such file or directory" in str(caught.value)
    assert f"at most {ROOT_BYTES} bytes" in str(caught.value)
