"""Wildcards in a source: `*`, `?` and `[...]` within the segments of a URI.

Owns matching. Works on listings alone, so that it means the same on disk and on S3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from pipeline.errors import ConfigError
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uris import relative_key

_WILDCARD = re.compile(r"[*?\[]")


def has_wildcard(name: str) -> bool:
    """Whether the name could be a pattern."""
    return _WILDCARD.search(name) is not None


def is_glob(uri: str, store: Store) -> bool:
    """A name with wildcards that is not, letter for letter, there."""
    return has_wildcard(uri) and next(iter(store.list(uri)), None) is None


def glob_matches(uri: str, store: Store) -> Iterator[tuple[ObjectInfo, list[str]]]:
    """Objects whose leading segments below the pattern's fixed part match it, with those segments."""
    base, patterns = split_glob(uri)
    if "**" in patterns:
        raise ConfigError(f"source: {uri} has a **; folders are searched to any depth anyway, so name the folder")
    for info in store.list(base):
        parts = relative_key(base, info.uri).split("/")
        if len(parts) >= len(patterns) and all(map(fnmatchcase, parts, patterns)):
            yield info, parts


def split_glob(uri: str) -> tuple[str, list[str]]:
    """The part before the first segment with a wildcard, and the segments from there on."""
    segments = uri.split("/")
    first = next(i for i, segment in enumerate(segments) if has_wildcard(segment))
    return "/".join(segments[:first]) or "/", segments[first:]
