"""What lies in a source and is not worked on: counted by kind, and the first of each kind named.

Owns which names nobody means. What a file is by its extension is kinds.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.records import Ignored
from pipeline.storage.kinds import extension
from pipeline.texts import redacted

MOST_KINDS = 20
"""Told apart; what comes after is one kind of its own."""
HIDDEN = "hidden"
_HIDDEN = re.compile(r"(?:^|/)(?:\.(?!\.?(?:/|$))|(?:__MACOSX|@eaDir|#recycle|lost\+found|\$RECYCLE\.BIN)/)")
"""A name that begins with a dot, and the folders that macOS, Synology, QNAP, ext4 and Windows make by themselves."""


def is_hidden(key: str) -> bool:
    """Whether a file, by its name below the source, is none that a person put there to be looked at."""
    return _HIDDEN.search(key) is not None


class IgnoredEntries:
    """Takes one entry after the other."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def note(self, name: str, kind: str = "") -> None:
        """kind  what it is; "" goes by the name"""
        kind = kind or (HIDDEN if is_hidden(name) else extension(name) or "no extension")
        if kind not in self._found and len(self._found) >= MOST_KINDS:
            kind = "others"
        count, first = self._found.get(kind, (0, name))
        self._found[kind] = count + 1, first

    def add(self, entries: Iterable[Ignored]) -> None:
        """What was counted elsewhere."""
        for each in entries:
            count, first = self._found.get(each.kind, (0, each.first))
            self._found[each.kind] = count + each.count, first

    def counted(self) -> tuple[Ignored, ...]:
        """The most frequent first. A file that was downloaded from a presigned address may be named like it."""
        kinds = [Ignored(redacted(kind), count, redacted(first)) for kind, (count, first) in self._found.items()]
        return tuple(sorted(kinds, key=lambda each: (-each.count, each.kind)))
