"""Indexing the shards of a source, many at once.

Owns how the work is spread: a few shards over threads, many over processes, because the headers of thousands of tars
keep a processor busy. What an index holds, storage/indexing.py decides.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial

from pipeline.errors import RunError
from pipeline.storage.indexing import ShardIndex
from pipeline.storage.shards import ShardSource, index_shard
from pipeline.storage.store import Store
from pipeline.storage.uris import is_s3

IndexShard = Callable[[ShardSource, Store], ShardIndex]
SHARDS_WORTH_PROCESSES = 32
"""Fewer are done before a second process has imported what it needs."""
MOST_PROCESSES = 8
"""Each takes some 140 MiB."""
GROUP = 8
"""Shards that a process takes at a time; those in an object store it reads all at once."""


def index_shards(
    shards: Sequence[ShardSource], store: Store, *, mixed_lists: bool = False, image_column: str | None = None
) -> Iterator[ShardIndex]:
    """The index of each shard, in order.

    raises  what `index_shard` raises; RunError if a process died
    """
    index = partial(index_shard, mixed_lists=mixed_lists, image_column=image_column)
    if len(shards) < SHARDS_WORTH_PROCESSES:
        with ThreadPoolExecutor(GROUP) as threads:
            yield from threads.map(index, shards, [store] * len(shards))
        return
    groups = [shards[first : first + GROUP] for first in range(0, len(shards), GROUP)]
    with _processes() as pool:
        try:
            for indexes in pool.map(partial(_index_group, index), groups, [store] * len(groups)):
                yield from indexes
        except BrokenProcessPool as error:
            raise RunError("a process that read tar headers was killed (out of memory?); repeat the command") from error


def _index_group(index: IndexShard, shards: Sequence[ShardSource], store: Store) -> list[ShardIndex]:
    in_a_store = any(is_s3(shard.uri) for shard in shards)
    with ThreadPoolExecutor(GROUP if in_a_store else 1) as threads:
        return list(threads.map(index, shards, [store] * len(shards)))


@contextmanager
def _processes() -> Generator[Executor]:
    """One for each processor, within bounds. They end at once if the caller fails or is interrupted."""
    before = set(multiprocessing.active_children())
    # Spawned, because a fork copies other threads' locks in whatever state they are.
    pool = ProcessPoolExecutor(
        min(os.cpu_count() or 1, MOST_PROCESSES),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_leave_signals_to_the_parent,
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown()


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
