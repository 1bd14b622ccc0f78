"""A list of images: one URI a line, as text or as JSON objects.

Owns its syntax and what a relative URI in it is relative to. A line of text is a name as it stands, blanks and all, so
that `ls > photos.txt` makes a list. An empty line, a line that begins with `# ` and the list's own name stand for no
image, and a `~/` at the beginning is the home folder. Nobody looks whether the images exist. A list
names objects of its own kind: whoever may write a list to a bucket shall not learn by it what lies on the disks of the
machines that read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipeline.errors import ConfigError
from pipeline.storage.kinds import extension, is_archive, is_compressed_tar, is_list, is_tar
from pipeline.storage.uris import absolute, base_name, check_object_name, is_s3, join, parent
from pipeline.texts import LEFT_OUT, redacted


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One line: as the list has it, and the URI that it means. `broken` says why no store of ours could hold that."""

    key: str
    uri: str
    broken: str = ""


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """A line that names nothing."""

    text: str
    kind: str


def read_list(stream: BinaryIO, uri: str, *, mixed: bool) -> Iterator[ListEntry | SkippedLine]:
    """The list at `uri`, line by line; an entry that can name no object, or may not, is one that is broken.

    mixed   whether it may name objects of the other kind (see `other_kind`)
    raises  ConfigError, with the line, if this is no list of images
    """
    for number, raw in enumerate(stream, start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{uri}:{number} is not UTF-8 text ({error}); write one URI a line") from error
        if not line.strip():
            yield SkippedLine(f"line {number}", "empty line")
        elif f"{line} ".startswith("# "):
            yield SkippedLine(line, "comment")
        elif line == base_name(uri):
            yield SkippedLine(line, "the list itself")
        else:
            key = _uri_in_json(line, f"{uri}:{number}") if extension(uri) == ".jsonl" else line
            entry = _entry(key, uri, number)
            refusal = "" if mixed or entry.broken else other_kind(uri, entry.uri)
            yield ListEntry(key, entry.uri, f"{uri}:{number}: {refusal}") if refusal else entry


def other_kind(listing: str, uri: str) -> str:
    """Why the list may not name this object: one of them is in an object store, the other is a file. "" if it may."""
    if is_s3(listing) == is_s3(uri):
        return ""
    own, other = ("in an object store", "a file") if is_s3(listing) else ("a file", "in an object store")
    return f"{uri} is {other}, and this list is {own}; run.mixed_lists=true lets lists name both"


def _without_secrets(key: str) -> str:
    """Of a web address, which may have blanks in it, nothing after the `?` is kept."""
    address, mark, _ = key.partition("?")
    return redacted(f"{address}?{LEFT_OUT}" if mark and address.lower().startswith(("http://", "https://")) else key)


def _refused_secret(shown: str) -> str:
    try:
        is_s3(shown)
    except ConfigError as error:
        return str(error)
    return f"{shown} carries a password or a signature; write s3://bucket/key, and give credentials by the environment"


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


def _entry(key: str, listing: str, number: int) -> ListEntry:
    shown = _without_secrets(key)
    if shown != key:
        return ListEntry(shown, shown, f"{listing}:{number}: {_refused_secret(shown)}")
    if is_tar(key) or is_compressed_tar(key) or is_list(key) or is_archive(key):
        raise ConfigError(
            f"{listing}:{number} names a shard ({key}), not an image; name shards in source=, separated by commas, or "
            "by a glob"
        )
    try:
        if is_s3(key):
            uri = key
        elif key.startswith(("/", "~/", "file://")):
            uri = absolute(key)
        else:
            uri = join(parent(listing), key)
        check_object_name(uri)
    except ConfigError as error:
        return ListEntry(key, key, f"{listing}:{number}: {error}")
    return ListEntry(key, uri)
