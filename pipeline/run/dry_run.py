"""A dry run: plan as a run does, try a few images on the workers that it would have, and reckon what the whole takes.

Owns which images are tried. Everything but the plan is left unwritten: no part, no report, no progress, no probe of the
store.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate

from pipeline.cluster.ledger import Ledger
from pipeline.cluster.ray_session import ray_session
from pipeline.errors import ConfigError, RunError
from pipeline.plan.part_metadata import part_metadata
from pipeline.plan.plan import Plan
from pipeline.plan.versions import versions_here
from pipeline.progress import Progress
from pipeline.records import Chunk, Ending, Funnel
from pipeline.run.checks import check_settings
from pipeline.run.estimate import Estimate, ToDo
from pipeline.run.opening import plan_run
from pipeline.settings import Settings
from pipeline.signals import StopFlag
from pipeline.storage.connect import connect
from pipeline.storage.parts import write_part
from pipeline.storage.uris import absolute, is_s3
from pipeline.work.loading import FindWeights

PIECES = 16
"""Into which the tried images are cut: enough to see how unlike they are, and to keep several workers busy."""


def dry_run(settings: Settings, *, progress: Progress, find_weights: FindWeights, stop: StopFlag) -> Estimate:
    """raises  ConfigError, StorageError, RunError as a run would; ConfigError also if nothing is left to do
    KeyboardInterrupt if a signal came before the images were tried
    """
    check_settings(settings)
    store, out = connect(settings.store, out=settings.out), absolute(settings.out)
    run = plan_run(settings, out, store, find_weights(settings, store), progress)
    run.check_versions()
    plan, committed = run.planned.plan, run.committed_now()
    left = [chunk for chunk in plan.chunks() if chunk.chunk_id not in committed]
    if not left:
        raise ConfigError(f"{out}: nothing is left to estimate, all {plan.chunk_count:,} chunks are committed")
    pieces = list(pieces_of(left, images=settings.run.dry_images, seed=plan.sha256))
    images = sum(piece.stop - piece.start for piece in pieces)
    ledger = Ledger(plan, attempts_allowed=settings.run.chunk_attempts, waiting=deque(pieces), images_total=images)
    with ray_session(settings.run.address), stop.flagging():
        begun = time.monotonic()
        driver = run.driver(ledger, committed_now=set, dry=True)
        ending = driver.run(stop)
        wall_s, capacity = time.monotonic() - begun, driver.crew.capacity
        fit = capacity.workers_that_fit()
    workers = max(1, min(settings.run.max_workers or fit, fit))
    if ending is Ending.STOPPED:
        raise KeyboardInterrupt
    if not ledger.reports:
        why = next((each.why for each in ledger.given_up.values()), "no reason was told")
        raise RunError(f"none of the {images} images could be tried: {why}")
    worked_s = driver.crew.worked_s
    return Estimate(
        to_do=what_is_left(plan, left, out=out, workers=workers),
        reports=tuple(ledger.reports),
        worked_s=worked_s,
        start_s=max(0.0, wall_s - worked_s / min(workers, len(pieces))),
        workers=workers,
        on=capacity.each_has,
        empty_part=_empty_part(plan),
        price_per_hour=settings.run.price_per_hour,
    )


def pieces_of(chunks: Sequence[Chunk], *, images: int, seed: str) -> Iterator[Chunk]:
    """Stretches of a few images, spread evenly over all that these chunks have: `images` in all, or some fewer, because
    a stretch does not leave its chunk. Its index is the place of its first image in the shard.
    """
    total = sum(chunk.stop - chunk.start for chunk in chunks)
    size = max(1, min(images, total) // PIECES)
    count = min(images, total) // size
    dice = random.Random(seed)
    ends = list(accumulate(chunk.stop - chunk.start for chunk in chunks))
    number, taken = 0, 0
    for piece in range(count):
        low, high = total * piece // count, total * (piece + 1) // count
        at = max(taken, dice.randint(low, max(low, high - size)))
        while ends[number] <= at:
            number += 1
        chunk = chunks[number]
        start = chunk.stop - (ends[number] - at)
        stop = min(start + size, chunk.stop)
        taken = at + stop - start
        yield Chunk(chunk.shard, start, start, stop)


def what_is_left(plan: Plan, chunks: Sequence[Chunk], *, out: str, workers: int) -> ToDo:
    """One read an image, and one of each piece of the member index in each worker; one write a part.

    chunks  that are not committed
    """
    images = sum(chunk.stop - chunk.start for chunk in chunks)
    far = {planned.shard.name for planned in plan.shards if is_s3(planned.shard.uri)}
    reads = sum(chunk.stop - chunk.start for chunk in chunks if chunk.shard in far)
    writes = len(chunks) if is_s3(out) else 0
    of_index = min(writes, workers * sum(len(planned.members_sha256) for planned in plan.shards))
    return ToDo(plan.image_count, images, len(chunks), reads + of_index, writes)


def _empty_part(plan: Plan) -> int:
    metadata = part_metadata(plan, versions_here(plan.settings.model_family), Funnel())
    return len(write_part((), format=plan.settings.format, metadata=metadata))
