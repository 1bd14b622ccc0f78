"""The place that an export goes to: what lies there, what is done, and how it grows.

    TO/_export/export.json            which export this is, written first
    TO/_export/parts/<chunk>-<part>   a receipt: this part is exported, whole; written after its files
    TO/_export/pieces/<section>/...   what a part adds to the files that all images share
    TO/_export/finished.json          which parts the files are of, and what they hold; written last

Owns these names and the refusals. A receipt has the part's identity in its name, so one listing tells what is done, and
a part that was replaced since is exported again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pipeline.errors import ConfigError, NotFoundError, StorageError
from pipeline.export.records import ExportSettings, Form, Joined
from pipeline.output.threads import in_threads
from pipeline.plan.layout import below
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uris import absolute, is_s3, local_path, relative_key

R = TypeVar("R")

VERSION = 1
THREADS = 8
"""Receipts and pieces in memory at once; a piece of 64 images with 100 masks each has some 6 MiB."""
MOST_REASONS = 10


@dataclass(frozen=True)
class Receipt:
    """What was exported of one part.

    images    that are ok
    empty     images among these that have no masks
    failed    rows that are not ok, by status
    left_out  images that are ok, but whose bytes are not to be had any more, or that the form cannot hold
    reasons   sentences for the first of these
    """

    images: int = 0
    empty: int = 0
    masks: int = 0
    failed: dict[str, int] = field(default_factory=dict[str, int])
    left_out: int = 0
    reasons: tuple[str, ...] = ()

    def __add__(self, other: Receipt) -> Receipt:
        return Receipt(
            self.images + other.images,
            self.empty + other.empty,
            self.masks + other.masks,
            dict(Counter(self.failed) + Counter(other.failed)),
            self.left_out + other.left_out,
            (self.reasons + other.reasons)[:MOST_REASONS],
        )

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Receipt:
        """raises  TypeError, KeyError if it is none"""
        values: dict[str, Any] = {**document, "reasons": tuple(document["reasons"])}
        return cls(**values)


def check_places(out: str, to: str) -> None:
    """raises  ConfigError if the one is in the other; all are canonical"""
    if is_s3(out) != is_s3(to):
        return
    inner, outer = _place(to), _place(out)
    if inner == outer or inner.startswith(outer.rstrip("/") + "/"):
        raise ConfigError(f"to={to} is inside the output, where it would be taken for data; choose another place")
    if outer.startswith(inner.rstrip("/") + "/"):
        raise ConfigError(f"to={to} holds the output; choose an empty place")


def _place(uri: str) -> str:
    """With symbolic links followed."""
    return uri if is_s3(uri) else os.path.realpath(local_path(uri))


def part_key(chunk_id: str, info: ObjectInfo) -> str:
    """The name of a part and of its content, as far as a listing tells it."""
    identity = hashlib.sha256(f"{info.size} {info.etag}".encode()).hexdigest()
    return f"{chunk_id}-{identity[:16]}"


class Target:
    """The place `to`, which holds this export or nothing yet."""

    def __init__(self, to: str, store: Store) -> None:
        self.to, self._store = to, store

    def claim(self, form: Form, settings: ExportSettings, plan_sha256: str) -> None:
        """Say what is here, or find that it is said.

        raises  ConfigError if another export is here, or what is none
        """
        identity = {
            "version": VERSION,
            "form": str(form),
            "plan_sha256": plan_sha256,
            "settings": asdict(settings),
        }
        uri = self._uri("export.json")
        try:
            found = self._store.read(uri)
        except NotFoundError:
            first = next(iter(self._store.list(self.to)), None)
            if first is not None:
                raise ConfigError(
                    f"to={self.to} holds files that are no export of Maskmill ({first.uri}); choose an empty place"
                ) from None
            if self._store.put_if_absent(uri, json.dumps(identity, sort_keys=True, indent=1).encode() + b"\n"):
                return
            found = self._store.read(uri)
        self._compare(found, identity)

    def _compare(self, found: bytes, identity: Mapping[str, Any]) -> None:
        try:
            there: dict[str, Any] = dict(json.loads(found))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self._uri('export.json')} is damaged; choose another to=") from error
        if there == identity:
            return
        said = f"to={self.to} holds another export"
        if there.get("form") != identity["form"]:
            raise ConfigError(f"{said}, form={there.get('form')}; choose another place for form={identity['form']}")
        if there.get("plan_sha256") != identity["plan_sha256"]:
            raise ConfigError(
                f"{said}, of another run (plan {str(there.get('plan_sha256'))[:12]}); choose another place"
            )
        theirs: dict[str, Any] = there.get("settings") or {}
        ours: dict[str, Any] = identity["settings"]
        differ = [f"export.{key}={json.dumps(theirs.get(key))}" for key in ours if theirs.get(key) != ours[key]]
        raise ConfigError(f"{said}, made with {', '.join(differ) or 'another version'}; choose another place")

    def done(self) -> set[str]:
        """Keys of the parts that are exported."""
        folder = absolute(self._uri("parts"))
        names = (relative_key(folder, info.uri) for info in self._store.list(folder))
        return {name.removesuffix(".json") for name in names}

    def put(self, name: str, data: bytes) -> None:
        """Write a file, or find it there as it should be. Another one of this name is replaced."""
        uri = below(self.to, name)
        if self._store.put_if_absent(uri, data):
            return
        there = self._store.head(uri)
        if there.size == len(data) and self._store.read(uri) == data:
            return
        if self._store.replace(uri, data, etag=there.etag) is None:
            raise StorageError(f"{uri} was written by somebody else at the same moment; repeat the command")

    def put_piece(self, section: str, key: str, data: bytes) -> None:
        self.put(f"_export/pieces/{section}/{key}", data)

    def put_receipt(self, key: str, receipt: Receipt) -> None:
        self.put(f"_export/parts/{key}.json", json.dumps(asdict(receipt)).encode())

    def receipt(self, key: str) -> Receipt:
        uri = self._uri(f"parts/{key}.json")
        try:
            return Receipt.read(json.loads(self._store.read(uri)))
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{uri} is damaged; delete it and repeat the command") from error

    def join(self, joined: Joined, keys: Sequence[str]) -> None:
        """Write a file that all images share, from the pieces of these parts. It replaces an earlier one."""
        self._store.put_stream(below(self.to, joined.name), self._joined(joined, keys))

    def _joined(self, joined: Joined, keys: Sequence[str]) -> Iterator[bytes]:
        for section in joined.sections:
            yield section.head
            between = b""
            uris = [self._uri(f"pieces/{section.name}/{key}") for key in keys]
            for piece in filter(None, _in_order(self._store.read, uris)):
                yield between + piece
                between = section.between
        yield joined.tail

    def finished(self, keys: Sequence[str]) -> Receipt | None:
        """What the files hold, if they are of these parts and no others."""
        try:
            document: dict[str, Any] = json.loads(self._store.read(self._uri("finished.json")))
            if document["parts_sha256"] != _hash(keys):
                return None
            return Receipt.read(document["sum"])
        except NotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self._uri('finished.json')} is damaged; delete it and repeat the command") from error

    def finish(self, keys: Sequence[str], total: Receipt) -> None:
        document = {"parts": len(keys), "parts_sha256": _hash(keys), "sum": asdict(total)}
        self.put("_export/finished.json", json.dumps(document, indent=1).encode() + b"\n")

    def unfinish(self) -> None:
        """More parts come: the files of all images are not what they were."""
        self._store.delete(self._uri("finished.json"))

    def drop_pieces(self, sections: Sequence[str], keys: Sequence[str]) -> None:
        """Free what is in a joined file by now. Receipts go first: without its pieces a part is not exported."""
        receipts = [self._uri(f"parts/{key}.json") for key in keys]
        pieces = [self._uri(f"pieces/{section}/{key}") for section in sections for key in keys]
        for uris in (receipts, pieces):
            for _ in in_threads(self._store.delete, uris, threads=THREADS):
                pass

    def total(self, keys: Sequence[str]) -> Receipt:
        """Of the receipts of these parts."""
        return sum(_in_order(self.receipt, keys), Receipt())

    def _uri(self, name: str) -> str:
        return below(self.to, "_export", name)


def _in_order(act: Callable[[str], R], items: Sequence[str]) -> Iterator[R]:
    """What `act` returns of each, a few at once: on an object store all that they take is the wait."""
    for start in range(0, len(items), THREADS):
        few = items[start : start + THREADS]
        found = dict(in_threads(lambda item: (item, act(item)), few, threads=THREADS))
        yield from (found[item] for item in few)


def _hash(keys: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()
