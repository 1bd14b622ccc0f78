"""Wildcards in a source: `*`, `?` and `[...]` within the segments of a URI.

Owns what is a pattern and what it matches; the same on disk and on S3. Leading segments that are there letter for
letter are names, wildcards and all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
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


def covers(patterns: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a name is what another names, matches it as a pattern, or lies below either; both by their segments."""
    return len(parts) >= len(patterns) and all(
        part == pattern or fnmatchcase(part, pattern) for part, pattern in zip(parts, patterns, strict=False)
    )


def split_glob(uri: str, store: Store) -> tuple[str, list[str]]:
    """The part before the first segment that is a pattern, and the segments from there on."""
    parts = uri.split("/")
    wild = [number for number, part in enumerate(parts) if has_wildcard(part)]
    first = next((n for n in wild if not _shows_something("/".join(parts[: n + 1]), store)), len(parts) - 1)
    return "/".join(parts[:first]) or "/", parts[first:]


def fixed_part(uri: str) -> str:
    """What comes before the first segment with a wildcard."""
    parts = uri.split("/")
    return "/".join(parts[: next(number for number, part in enumerate(parts) if has_wildcard(part))])


def _shows_something(uri: str, store: Store) -> bool:
    return next(iter(store.list(uri, unreadable=lambda _folder: None)), None) is not None
