"""The page that a command writes: where it lies, that it is whole, and that it opens where there is a desktop."""

from __future__ import annotations

import os
import re
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.storage.uris import base_name, is_s3, local_path


def page_path(out: str, asked: str, *, command: str) -> Path:
    """Where the page of `command` about the output `out` goes: never inside it, where it would be taken for data.

    asked   the value of the setting that has the command's name; "" for the usual place
    raises  ConfigError if `asked` is inside the output, or is no name of a page
    """
    if not asked:
        if not is_s3(out):
            return Path(local_path(out) + f"-{command}.html")
        return Path.cwd() / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', base_name(out)).lstrip('.')}-{command}.html"
    if is_s3(asked) or not asked.endswith(".html"):
        raise ConfigError(f"{command}={asked} must be a local path that ends in .html")
    path = Path(local_path(asked))
    check_outside(path, out, command=command)
    return path


def check_outside(path: Path, out: str, *, command: str) -> None:
    """raises  ConfigError if a page at `path` would lie inside the output `out`"""
    if not is_s3(out) and path.is_relative_to(local_path(out)):
        raise ConfigError(f"{command}={path} is inside the output, which stays as it is; choose another place")


def write_page(path: Path, text: str, *, command: str) -> None:
    """Whole or not at all; replaces an earlier page."""
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        why = f"cannot write {path} ({error.strerror})"
        raise ConfigError(f"{why}; choose another place: {command}=PATH.html") from error


def open_page(path: Path) -> None:
    """In a browser, if the command writes to a terminal and there is a desktop."""
    if sys.stdout.isatty() and has_desktop():
        webbrowser.open(path.as_uri())


def has_desktop() -> bool:
    """Whether a browser could show itself to whoever types here."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
