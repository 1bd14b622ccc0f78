"""A user to whom folders can be shut, for tests that run as root in containers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def as_a_user_with_few_rights() -> Iterator[None]:
    """Root may write anywhere, and tests run as root in containers: then they are nobody for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """An empty folder that everybody may look into, as pytest's own are not; gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
