"""Wildcards in a source: `*`, `?` and `[...]` within the segments of a URI.

Owns what is a pattern and what it matches; the same on disk and on S3. Leading segments that are there letter for
letter are names, wildcards and all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from pipeline.errors import ConfigError
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uris import relative_key

_WILDCARD = re.compile(r"[*?\[]")


def has_wildcard(name: str) -> bool:
    """Whether the name could be a pattern."""
    return _WILDCARD.search(name) is not None


def literal_head(pattern: str) -> str:
    """What every name that matches begins with."""
    return _WILDCARD.split(pattern, maxsplit=1)[0]


def is_glob(uri: str, store: Store) -> bool:
    """A name with wildcards that is not, letter for letter, there."""
    return has_wildcard(uri) and not _shows_something(uri, store)


def glob_matches(
    uri: str, store: Store, *, unreadable: Callable[[str], object] | None = None
) -> Iterator[tuple[ObjectInfo, list[str]]]:
    """Objects whose leading segments below the pattern's fixed part match it, with those segments."""
    base, patterns = split_glob(uri, store)
    if "**" in patterns:
        raise ConfigError(f"source: {uri} has a **; folders are searched to any depth anyway, so name the folder")
    for info in store.list(base, pattern=patterns, unreadable=unreadable):
        parts = relative_key(base, info.uri).split("/")
        if len(parts) >= len(patterns) and all(map(fnmatchcase, parts, patterns)):
            yield info, parts


def split_glob(uri: str, store: Store) -> tuple[str, list[str]]:
    """The part before the first segment that is a pattern, and the segments from there on."""
    segments = uri.split("/")
    wild = [number for number, segment in enumerate(segments) if has_wildcard(segment)]
    first = next((n for n in wild if not _shows_something("/".join(segments[: n + 1]), store)), len(segments) - 1)
    return "/".join(segments[:first]) or "/", segments[first:]


def fixed_part(uri: str) -> str:
    """What comes before the first segment with a wildcard."""
    segments = uri.split("/")
    return "/".join(segments[: next(number for number, segment in enumerate(segments) if has_wildcard(segment))])


def _shows_something(uri: str, store: Store) -> bool:
    return next(iter(store.list(uri, unreadable=lambda _folder: None)), None) is not None
