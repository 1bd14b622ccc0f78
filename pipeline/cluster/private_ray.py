"""What keeps a local Ray session to the user that started it: the environment of its processes, and their folder.

Owns both, and what the paths of sockets allow. Imports no Ray, which reads that environment when it is imported.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""What the system allows for the path of a socket: unix(7), `sun_path` without its last zero."""
LONGEST_SOCKET = "ray/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"
"""Below the private folder, as Ray names it after the time and its process."""
PREFIX = "maskmill-"
RANDOM_BYTES = 8
"""What mkdtemp puts behind the prefix."""
ROOT_BYTES = SOCKET_BYTES - len(f"/{PREFIX}") - RANDOM_BYTES - len(f"/{LONGEST_SOCKET}")
"""The longest temporary folder in which Ray can have its sockets."""
SESSION_BYTES = 8 * 2**20
"""What must be free for Ray's own files. On a full disk it waits half a minute, and fails without saying why."""


def private_environment() -> dict[str, str]:
    """What a process must have in its environment before it imports Ray, for its local session to be its own.

    The token is another one each time. Ray's processes inherit it; it is on no disk.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # "No cluster of several machines" makes the node's address 127.0.0.1, and all of Ray's processes listen there
        # alone. ray.init(_node_ip_address="127.0.0.1") does not: Ray puts the outer address in its place.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_GCS_SERVER_PORT": "0",  # any that is free, whatever a cluster on this machine was told
        "RAY_USAGE_STATS_ENABLED": "0",  # it reports to nobody
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


@contextmanager
def private_folder(roots: Sequence[str] | None = None) -> Generator[Path]:
    """A folder for Ray that nobody else can look into, gone at the end.

    roots   where it may be, best first; if not said, the system's temporary folder, or else /tmp
    raises  ConfigError if none of them can hold it
    """
    outer = _new_folder(roots or (_system_folder(), "/tmp"))
    try:
        # Ray opens the folder that it is given to everybody; nobody comes as far.
        yield outer / "ray"
    finally:
        _remove(outer)


def _new_folder(roots: Sequence[str]) -> Path:
    reasons: list[str] = []
    for root in dict.fromkeys(roots):
        try:
            if why := _unfit(root):
                reasons.append(f"{root} {why}")
            else:
                return Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        except OSError as error:
            reasons.append(f"{root}: {error.strerror}")
    raise ConfigError(
        f"there is no temporary folder for Ray's files: {'; '.join(reasons)}. Set TMPDIR to a folder that can be "
        f"written, with a path of at most {ROOT_BYTES} bytes"
    )


def _unfit(root: str) -> str:
    """Why Ray's files cannot be below this folder; empty if they can."""
    if (length := len(os.fsencode(root))) > ROOT_BYTES:
        return f"has a path of {length} bytes, too long for Ray's sockets"
    if (free := shutil.disk_usage(root).free) < SESSION_BYTES:
        return f"has {free // 2**20} MiB free, {SESSION_BYTES // 2**20} are needed"
    return ""


def _system_folder() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # Python can write to none of those that it knows
        return os.environ.get("TMPDIR", "/tmp")


def _remove(folder: Path) -> None:
    """Ray's last processes may be writing still, which makes a folder that was just emptied full again."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
