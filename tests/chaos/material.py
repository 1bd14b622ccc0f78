"""What goes in, and what must come out: images on S3, and the parts of a run that nobody disturbs."""

from __future__ import annotations

import io
import random
import tarfile
from dataclasses import dataclass, replace
from typing import Any

from pipeline.cluster.ledger import DEATHS_TO_NAME
from pipeline.plan.layout import part_name
from pipeline.records import Attempt
from pipeline.run.opening import plan_run
from pipeline.settings import Format, Settings
from pipeline.storage.connect import connect
from pipeline.storage.parts import Part, read_part
from pipeline.storage.store import Store
from pipeline.work.chunk import WorkerContext, process_chunk
from pipeline.work.loading import Weights
from tests.chaos.storm import Storm
from tests.fakes_run import POISON_RGB, TAR_PIT_RGB, Notes, drawn_image, fake_weights

IMAGES_PER_TAR = 400


@dataclass(frozen=True)
class Material:
    """`poisoned` are the names of the images that kill or hang their process."""

    images: dict[str, bytes]
    poisoned: frozenset[str]

    @classmethod
    def draw(cls, storm: Storm) -> Material:
        dice = random.Random(storm.seed)
        picked = dice.sample(range(storm.images), storm.poisons + storm.tar_pits)
        colours = dict.fromkeys(picked[: storm.poisons], POISON_RGB) | dict.fromkeys(
            picked[storm.poisons :], TAR_PIT_RGB
        )
        names = {number: f"sa_{number}.png" for number in range(storm.images)}
        images = {name: drawn_image(number, first_rgb=colours.get(number)) for number, name in names.items()}
        return cls(images, frozenset(names[number] for number in picked))

    def upload(self, client: Any, bucket: str) -> None:
        """The first tenth as single objects, the rest in tars."""
        names = sorted(self.images)
        loose, rest = names[: len(names) // 10], names[len(names) // 10 :]
        for name in loose:
            client.put_object(Bucket=bucket, Key=f"in/loose/{name}", Body=self.images[name])
        for start in range(0, len(rest), IMAGES_PER_TAR):
            sink = io.BytesIO()
            with tarfile.open(fileobj=sink, mode="w") as tar:
                for name in rest[start : start + IMAGES_PER_TAR]:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(self.images[name])
                    tar.addfile(entry, io.BytesIO(self.images[name]))
            client.put_object(Bucket=bucket, Key=f"in/t{start:06d}.tar", Body=sink.getvalue())


def undisturbed(settings: Settings, storm: Storm, poisoned: frozenset[str]) -> dict[str, bytes]:
    """The parts by name: every chunk done once, in this process, without Ray and without faults."""
    store = connect(settings.store)
    weights = real_weights(settings, store) if storm.real_model else fake_weights(settings, store)
    plan = plan_run(settings, settings.out, store, weights, Notes()).planned.plan
    generate = weights.load(store, plan.settings.recipe, threads=settings.run.threads_per_worker)
    context = WorkerContext(out=settings.out, plan=plan, store=store, generate=generate)
    why = f"{DEATHS_TO_NAME} attempts at this image failed: its worker died"
    for chunk in plan.chunks():
        crashed = {
            member.ordinal: why
            for member in context.index.read(chunk.shard, chunk.start, chunk.stop)
            if member.key in poisoned
        }
        process_chunk(Attempt(chunk, crashed=crashed), context)
    return parts_of(settings, [part_name(plan, chunk) for chunk in plan.chunks()])


def real_weights(settings: Settings, store: Store) -> Weights:
    """With torch, which takes three seconds to import."""
    from pipeline.work.weights import weights_from_settings

    return weights_from_settings(settings, store, progress=Notes())


def parts_of(settings: Settings, expected: list[str] | None = None) -> dict[str, bytes]:
    """Name -> bytes of every object below data/."""
    store, root = connect(settings.store), f"{settings.out}/data/"
    parts = {info.uri.removeprefix(root): store.read(info.uri) for info in store.list(root)}
    if expected is not None and sorted(parts) != sorted(expected):
        raise AssertionError(f"{len(parts)} parts, {len(expected)} planned")
    return parts


def differences(parts: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Sentences. What the row of an image that killed or hung says of how may differ, and nothing else."""
    found = [f"{name} is in one of the runs only" for name in parts.keys() ^ expected.keys()]
    for name in sorted(parts.keys() & expected.keys()):
        if parts[name] != expected[name] and _but_for_crashes(parts[name]) != _but_for_crashes(expected[name]):
            found.append(f"{name} is not the undisturbed run's")
    return found


def _but_for_crashes(data: bytes) -> Part:
    part = read_part(data, format=Format.PARQUET)
    rows = tuple(replace(row, error="") if row.status == "crashed" else row for row in part.rows)
    return replace(part, rows=rows)
