"""Ray for as long as a run lasts.

Owns connecting and leaving, what is said when that fails, and the caller's SIGTERM handler, which Ray replaces at both.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray as typed_ray
from ray.exceptions import AuthenticationError

from pipeline.cluster.private_ray import private_folder
from pipeline.errors import ConfigError, RunError
from pipeline.texts import one_line

ray: Any = typed_ray  # its annotations are partial and partly wrong

OBJECT_STORE_BYTES = 128 * 2**20
"""Only descriptors and reports travel; Ray's default of 30 % of the memory is needed for decoded images."""
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


@contextmanager
def ray_session(address: str) -> Generator[None]:
    """Ray for this process, or the session that the caller has already. SIGTERM's handler stays the caller's.

    raises  ConfigError if there is no cluster at `address`, or none that lets us in, or no room for a local session
            RunError if a local session does not come up
    """
    if ray.is_initialized():
        yield
    elif address == "local":
        with private_folder() as folder:
            with _connecting():
                _start(folder)
            with _leaving():
                yield
    else:
        with _connecting():
            _join(address)
        with _leaving():
            yield


@contextmanager
def _connecting() -> Generator[None]:
    try:
        with _sigterm_kept():
            yield
    except SystemExit as error:
        # Ray's own SIGTERM handler is in force while it connects, and exits.
        raise KeyboardInterrupt from error


@contextmanager
def _leaving() -> Generator[None]:
    try:
        yield
    finally:
        with _sigterm_kept():
            ray.shutdown()


@contextmanager
def _sigterm_kept() -> Generator[None]:
    """ray.init installs a handler that exits with 143, and ray.shutdown the one that kills the process."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _start(folder: Path) -> None:
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
            **QUIET,
        )
    except Exception as error:  # Ray raises no more than that for a process that did not come up in time
        said = " ".join(str(error).split())[:500]
        raise RunError(f"Ray did not start here ({said}); on a busy machine, repeat the same command") from error


def _join(address: str) -> None:
    host, _, port = address.rpartition(":")
    answers = False
    try:
        if port.isdecimal() and "/" not in host:
            # Ray itself tries for more than two minutes.
            socket.create_connection((host, int(port)), timeout=10).close()
            answers = True
        ray.init(address=address, **QUIET)
    except (OSError, ValueError, RuntimeError, AuthenticationError) as error:
        if answers or isinstance(error, (RuntimeError, AuthenticationError)):
            raise ConfigError(
                f"the Ray cluster at run.address={address} does not let this process in ({one_line(error)}); both need "
                "the same version of Ray, and RAY_AUTH_MODE=token with the cluster's token if it asks for one"
            ) from error
        raise ConfigError(
            f"no Ray cluster answers at run.address={address} ({one_line(error)}); start one with "
            "`ray start --head`, or use run=local"
        ) from error
