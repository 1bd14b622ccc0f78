"""Ray for as long as a run lasts.

Owns connecting and leaving, and keeps the caller's SIGTERM handler, which Ray replaces at both.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import ray as typed_ray

from pipeline.errors import ConfigError

ray: Any = typed_ray  # its annotations are partial and partly wrong

OBJECT_STORE_BYTES = 128 * 2**20
"""Only descriptors and reports travel; Ray's default of 30 % of the memory is needed for decoded images."""


@contextmanager
def ray_session(address: str) -> Generator[None]:
    """Ray for this process, or the session that the caller has already. SIGTERM's handler stays the caller's.

    raises  ConfigError if there is no cluster at `address`
    """
    if ray.is_initialized():
        yield
        return
    try:
        with _sigterm_kept():
            _connect(address)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers at run.address={address} ({one_line(error)}); start one with "
            "`ray start --head`, or use run=local"
        ) from error
    except SystemExit as error:
        # Ray's own SIGTERM handler is in force while it connects, and exits.
        raise KeyboardInterrupt from error
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


def _connect(address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        return
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        # Ray itself tries for more than two minutes.
        socket.create_connection((host, int(port)), timeout=10).close()
    ray.init(address=address, **quiet)


def one_line(error: BaseException) -> str:
    """The last line of what an error says: the first ones of a remote error are a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]
