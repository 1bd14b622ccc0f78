"""One chaos run: drivers at work, blows as the work goes on, and a count of everything at the end."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.output.verify import verify_output
from pipeline.progress import Lines
from pipeline.settings import ModelSettings, Recipe, RunSettings, Settings, StoreSettings
from pipeline.storage.connect import connect
from pipeline.storage.parts import read_part
from tests.chaos.material import Material, differences, parts_of, undisturbed
from tests.chaos.nodes import Nodes, cluster
from tests.chaos.storm import Storm
from tests.chaos.weather import Weather
from tests.small_runs import recipe_overrides

ROOT = Path(__file__).parent.parent.parent
ALL_BLOWS_BY = 0.7
"""Share of the parts that are there when the last blow falls."""
LOOK_S = 0.25


@dataclass
class Findings:
    """What was done to the run, and what is wrong with its result."""

    blows: Counter[str] = field(default_factory=Counter[str])
    said: Counter[str] = field(default_factory=Counter[str])
    """Events in the drivers' logs, by their kind."""
    exits: list[int] = field(default_factory=list[int])
    """Codes of the drivers that ended by themselves."""
    statuses: Counter[str] = field(default_factory=Counter[str])
    problems: list[str] = field(default_factory=list[str])
    seconds: float = 0.0

    def expect(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.problems.append(f"{what}: {found}, expected {expected}")


class Drivers:
    """Processes with the same command. One that ends before its time is started again."""

    def __init__(self, command: Sequence[str], env: dict[str, str], logs: Path, found: Findings) -> None:
        self._command, self._env, self._logs, self._found = command, env, logs, found
        self._processes: list[subprocess.Popen[bytes]] = []
        self._started = 0

    def start(self) -> None:
        self._started += 1
        with (self._logs / f"driver-{self._started}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(self._command, cwd=ROOT, env=self._env, stdout=log, stderr=subprocess.STDOUT)
            )

    def kill(self, dice: random.Random) -> bool:
        running = [process for process in self._processes if process.poll() is None]
        if not running:
            return False
        process = dice.choice(running)
        process.kill()
        process.wait()
        self._processes.remove(process)
        self.start()
        return True

    def mind(self) -> bool:
        """True once all have ended with 0; others are told again, as a scheduler would."""
        for process in [process for process in self._processes if process.poll() not in (None, 0)]:
            self._found.exits.append(process.returncode)
            if len(self._found.exits) > 20:
                raise AssertionError("drivers end one after the other without success")
            self._processes.remove(process)
            self.start()
        return all(process.poll() == 0 for process in self._processes)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            self._found.exits.append(process.wait())
        events = (
            "is tried again",
            "is given up",
            "goes on without",
            "goes back",
            "did not start",
            "is avoided",
            "gone",
        )
        for log in self._logs.glob("driver-*.log"):
            for line in log.read_text(errors="replace").splitlines():
                self._found.said.update([event for event in events if event in line])


def settings_of(storm: Storm, *, bucket: str, endpoint: str, out: str) -> Settings:
    recipe = Recipe(points_per_side=4)
    if storm.real_model:  # so low that the small model finds something in every image
        recipe = replace(recipe, pred_iou_thresh=0.2, stability_score_thresh=0.3)
    return Settings(
        source=f"s3://{bucket}/in/*",
        out=f"s3://{bucket}/{out}",
        recipe=recipe,
        model=ModelSettings(device="cpu"),
        store=StoreSettings(endpoint_url=endpoint),
        run=RunSettings(
            images_per_chunk=storm.images_per_chunk,
            max_workers=max(1, storm.nodes * storm.cpus_per_node // storm.drivers),
            max_failed_fraction=0.5,
            image_timeout_s=30.0,
        ),
    )


def overrides_of(settings: Settings, address: str) -> list[str]:
    run = settings.run
    return [
        f'source="{settings.source}"',
        f'out="{settings.out}"',
        "recipe=sam",
        *recipe_overrides(settings.recipe),
        *[f"run.{name}={getattr(run, name)}" for name in _RUN],
        f"model.device={settings.model.device}",
        f"run.address={address}",
        f'store.endpoint_url="{settings.store.endpoint_url}"',
    ]


_RUN = ("images_per_chunk", "max_workers", "max_failed_fraction", "image_timeout_s")


def blows_due(storm: Storm, share: float) -> Iterator[tuple[str, int]]:
    """How many blows of each kind should have fallen when this share of the parts is there."""
    planned = {
        "worker": storm.worker_kills,
        "journal": storm.journal_kills,
        "node": storm.node_kills,
        "driver": storm.driver_kills,
    }
    for kind, count in planned.items():
        # The first one as soon as there is anything to hit.
        yield kind, min(count, int(1 + count * share / ALL_BLOWS_BY)) if count else 0


def strike(kind: str, nodes: Nodes, drivers: Drivers, dice: random.Random) -> bool:
    match kind:
        case "worker":
            return nodes.kill_worker(dice)
        case "journal":
            return nodes.kill_journal(dice)
        case "node":
            return nodes.kill_node(dice)
        case _:
            return drivers.kill(dice)


def chaos(storm: Storm, *, client: Any, bucket: str, endpoint: str, sky: Weather, logs: Path) -> Findings:
    """endpoint  the S3 server's own URL; the run goes through `sky`"""
    found, dice = Findings(), random.Random(storm.seed)
    material = Material.draw(storm)
    material.upload(client, bucket)
    settings = settings_of(storm, bucket=bucket, endpoint=endpoint, out="out")
    expected = undisturbed(replace(settings, out=f"s3://{bucket}/undisturbed"), storm, material.poisoned)
    with cluster(count=storm.nodes, cpus=storm.cpus_per_node) as nodes:
        overrides = overrides_of(replace(settings, store=StoreSettings(endpoint_url=sky.url)), nodes.address)
        module = "jobs.generate" if storm.real_model else "tests.fake_generate"
        env = {**os.environ, "FAKE_SECONDS": str(storm.seconds_per_image), "PYTHONPATH": str(ROOT)}
        drivers = Drivers([sys.executable, "-m", module, *overrides], env, logs, found)
        begun = time.monotonic()
        try:
            _weather_it(storm, settings, nodes, drivers, dice, found)
        finally:
            drivers.close()
            found.seconds = time.monotonic() - begun
    _judge(storm, settings, material, expected, found)
    return found


def _weather_it(
    storm: Storm, settings: Settings, nodes: Nodes, drivers: Drivers, dice: random.Random, found: Findings
) -> None:
    store, deadline = connect(settings.store), time.monotonic() + 1800
    for _ in range(storm.drivers):
        drivers.start()
    while not drivers.mind():
        if time.monotonic() > deadline:
            raise AssertionError(f"not finished: {found}")
        share = sum(1 for _ in store.list(f"{settings.out}/data")) / storm.chunks
        due = [kind for kind, count in blows_due(storm, share) if found.blows[kind] < count]
        if due:
            kind = dice.choice(due)
            if strike(kind, nodes, drivers, dice):
                found.blows[kind] += 1
                if kind == "node":
                    nodes.add()
        time.sleep(LOOK_S)


def _judge(storm: Storm, settings: Settings, material: Material, expected: dict[str, bytes], found: Findings) -> None:
    parts = parts_of(settings)
    found.problems += differences(parts, expected)
    rows = [row for data in parts.values() for row in read_part(data, format=settings.format).rows]
    found.expect("rows of each image", Counter(row.file_name for row in rows), Counter(material.images.keys()))
    found.statuses = Counter(str(row.status) for row in rows)
    crashed = {row.file_name for row in rows if row.status == "crashed"}
    found.expect("crashed", sorted(crashed), sorted(material.poisoned))
    found.expect("ok", found.statuses["ok"], storm.images - len(material.poisoned))
    verification = verify_output(settings.out, connect(settings.store), Lines(sys.stderr))
    found.expect("verify", [problem.what for problem in verification.problems], [])
    found.expect("published", verification.finished, expected=True)
    for kind, count in blows_due(storm, 1.0):
        found.expect(f"{kind} kills", found.blows[kind], count)
