"""Before a run: may objects be written at OUT, and does the store keep two writers apart? If not, one run at a time.

Owns the verdict on a store (kept in OUT, so that it is found out once) and the signs of life by which runs on a weak
store see each other. A local disk is not tried out, and on a store that keeps its promise no signs are written.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from pipeline.errors import ConfigError, DeniedError, NotFoundError, StorageError
from pipeline.plan.layout import below, job_uri, signs_of_life_uri, store_verdict_uri
from pipeline.storage.probe import Creation, try_creation
from pipeline.storage.store import Store
from pipeline.storage.uris import absolute, is_s3, relative_key

BEAT_S = 30.0
"""Between two signs of life of a run on a weak store."""
BEATS_TO_WATCH = 3
"""Intervals for which a run that found signs of another waits for new ones."""

_WEAK = {
    Creation.OVERWRITES: "ignores If-None-Match: the last writer of an object wins, not the first",
    Creation.RACES: "lets several writers at the same moment create the same object",
}


def creation_at(out: str, store: Store) -> Creation:
    """How the store of OUT treats competing writers: found out once, before anything else is written.

    raises  ConfigError if there is no such bucket, or nothing may be written there; StorageError
    """
    if not is_s3(out):
        return Creation.EXCLUSIVE  # a hard link is created once, or there are none, which the first write says
    uri = store_verdict_uri(out)
    try:
        known = _known_creation(uri, store)
        if known is not None:
            return known
        creation = try_creation(job_uri(out), store)
    except (NotFoundError, DeniedError) as error:
        raise ConfigError(str(error)) from error
    store.put_if_absent(uri, json.dumps({"creation": creation}).encode() + b"\n")
    return creation


def _known_creation(uri: str, store: Store) -> Creation | None:
    try:
        return Creation(json.loads(store.read(uri))["creation"])
    except (NotFoundError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def only_run(
    out: str, store: Store, creation: Creation, *, say: Callable[[str], None], beat_s: float = BEAT_S
) -> Generator[None]:
    """On a weak store, makes sure that no other run is at work on OUT; on any other one, does nothing.

    No clock is compared and no lease taken: a run that lives leaves new objects, and a newcomer waits to see some.
    raises  ConfigError if another run is at work
    """
    if creation is Creation.EXCLUSIVE:
        yield
        return
    say(f"{out}: this store {_WEAK[creation]}. One run at a time is safe, two are not, and the second is refused")
    own = _Signs(out, store, beat_s)
    with own.beating():
        traces = own.of_others()
        if traces:
            say(f"another run was here; watching for {BEATS_TO_WATCH * beat_s:.0f} s whether it still is")
            own.watch()
            alive = own.of_others() - traces
            if alive:
                raise ConfigError(
                    f"{out}: another run is at work here (it wrote {min(alive)}), and this store {_WEAK[creation]}; "
                    "wait for it to end, or stop it, and repeat the command"
                )
            own.remove(traces)
        yield


class _Signs:
    """The signs of life in OUT/_job/runs: objects with ever new names, of which a run keeps its latest."""

    def __init__(self, out: str, store: Store, beat_s: float) -> None:
        self._folder = absolute(signs_of_life_uri(out))
        self._store = store
        self._beat_s = beat_s
        self._token = uuid.uuid4().hex
        self._stopped = threading.Event()

    @contextmanager
    def beating(self) -> Generator[None]:
        self._store.put_if_absent(self._name(0), b"")
        thread = threading.Thread(target=self._beat, name="signs of life", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def of_others(self) -> set[str]:
        names = {relative_key(self._folder, info.uri) for info in self._store.list(self._folder)}
        return {name for name in names if not name.startswith(self._token)}

    def watch(self) -> None:
        self._stopped.wait(BEATS_TO_WATCH * self._beat_s)

    def remove(self, names: set[str]) -> None:
        for name in names:
            with suppress(StorageError):
                self._store.delete(below(self._folder, name))

    def _beat(self) -> None:
        count = 0
        while not self._stopped.wait(self._beat_s):
            with suppress(StorageError):  # a missed beat is one of several that would be missed
                self._store.put_if_absent(self._name(count + 1), b"")
                self._store.delete(self._name(count))
                count += 1
        with suppress(StorageError):
            self._store.delete(self._name(count))

    def _name(self, count: int) -> str:
        return below(self._folder, f"{self._token}-{count}")
