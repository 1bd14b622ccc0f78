"""Where a command puts its HTML page, how it is written, and that it opens.

Owns the rule that nothing is written inside an output, where a page would be taken for data.
"""

from __future__ import annotations

import os
import re
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.storage.uris import base_name, is_s3, local_path


def page_path(out: str, asked: str, *, setting: str, kind: str) -> Path:
    """The local path of the page: `asked`, or <out>-<kind>.html beside a local output and in the current folder for one
    in S3.

    setting  the name under which `asked` was given, for the messages
    raises   ConfigError if `asked` is inside `out`, or is no name of a page
    """
    if not asked:
        if not is_s3(out):
            return Path(local_path(out) + f"-{kind}.html")
        return Path.cwd() / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', base_name(out)).lstrip('.')}-{kind}.html"
    path = asked_path(asked, setting=setting)
    if not is_s3(out) and path.is_relative_to(local_path(out)):
        raise ConfigError(
            f"{setting}={asked} is inside the output, which a {kind} leaves as it is; choose another place"
        )
    return path


def asked_path(asked: str, *, setting: str) -> Path:
    """raises  ConfigError if `asked` is no name of a page"""
    if is_s3(asked) or not asked.endswith(".html"):
        raise ConfigError(f"{setting}={asked} must be a local path that ends in .html")
    return Path(local_path(asked))


def check_page(path: Path, *, setting: str) -> None:
    """For a command that works long before it writes.

    raises  ConfigError if the page could not be written
    """
    why = "" if path.parent.is_dir() else "there is no such folder"
    if path.is_dir():
        why = "it is a folder"
    elif not why and not os.access(path.parent, os.W_OK):
        why = "the folder may not be written"
    if why:
        raise _unwritable(path, why, setting)


def _unwritable(path: Path, why: str, setting: str) -> ConfigError:
    return ConfigError(f"cannot write {path} ({why}); choose another place: {setting}=PATH.html")


def write_page(path: Path, text: str, *, setting: str) -> None:
    """Whole or not at all; replaces an earlier page.

    raises  ConfigError if it cannot be written
    """
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise _unwritable(path, error.strerror or str(error), setting) from error


def open_page(path: Path) -> None:
    """In a browser, if somebody types here and has a desktop."""
    if sys.stdout.isatty() and has_desktop():
        webbrowser.open(path.as_uri())


def has_desktop() -> bool:
    """Whether a browser could show itself to whoever types here."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
