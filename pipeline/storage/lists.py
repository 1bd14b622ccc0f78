"""A list of images: one URI a line, as text or as JSON objects.

Owns its syntax and what a relative URI in it is relative to. Nobody looks whether the images exist.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline.errors import ConfigError
from pipeline.storage.kinds import extension
from pipeline.storage.uris import absolute, check_object_name, is_s3, join, parent


def named_in_list(data: bytes, uri: str) -> Iterator[tuple[str, str]]:
    """Each entry of the list at `uri`: as the list has it, and as the URI that it means.

    raises  ConfigError, with the line, if this is no list, or an entry names what no store could hold
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{uri} is not UTF-8 text ({error}); write one URI a line") from error
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            key = _uri_in_json(entry, f"{uri}:{number}") if extension(uri) == ".jsonl" else entry
            yield key, _resolved(key, uri, number)


def _uri_in_json(line: str, where: str) -> str:
    try:
        entry: Any = json.loads(line)
        found = entry["uri"]
        found.encode("utf-8")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f'{where}: expected an object like {{"uri": "s3://bucket/a.jpg"}}, found {line[:80]}'
        ) from error
    return found


def _resolved(entry: str, listing: str, number: int) -> str:
    try:
        if is_s3(entry):
            uri = entry
        elif entry.startswith(("/", "~", "file://")):
            uri = absolute(entry)
        else:
            uri = join(parent(listing), entry)
        check_object_name(uri)  # here, because in a worker it would cost the whole chunk
    except ConfigError as error:
        raise ConfigError(f"{listing}:{number}: {error}") from error
    return uri
