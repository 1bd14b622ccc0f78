"""Modules of our own in the place of packages that a reference imports and that are not installed."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def standing_in(modules: Mapping[str, Mapping[str, Any]]) -> Generator[None]:
    """Modules by name, each with what it has, for the duration of the block. What was imported before is there again
    afterwards.
    """
    before = {name: sys.modules.get(name) for name in modules}
    for name, contents in modules.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(contents)
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module
