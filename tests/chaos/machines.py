"""One bad machine of two, and a fifth of all machines gone at once: real nodes, one driver, an S3 server."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.output.verify import verify_output
from pipeline.progress import Lines
from pipeline.settings import StoreSettings
from pipeline.storage.connect import connect
from tests.chaos.nodes import Nodes, cluster
from tests.fakes_run import drawn_image

ROOT = Path(__file__).parent.parent.parent
AVOIDED = "is avoided from now on: chunks fail there that other machines do"
FIVE = 5


@dataclass(frozen=True)
class Bucket:
    """A new one on the S3 server."""

    client: Any
    name: str
    endpoint: str

    def upload(self, images: int) -> None:
        self.client.create_bucket(Bucket=self.name)
        for number in range(images):
            self.client.put_object(Bucket=self.name, Key=f"in/im{number:03d}.png", Body=drawn_image(number))

    def parts(self) -> int:
        return int(self.client.list_objects_v2(Bucket=self.name, Prefix="out/data/")["KeyCount"])

    def wrong(self) -> list[str]:
        """What is wrong with the output."""
        found = verify_output(
            f"s3://{self.name}/out", connect(StoreSettings(endpoint_url=self.endpoint)), Lines(sys.stderr)
        )
        return [problem.what for problem in found.problems] + ([] if found.finished else ["it is not finished"])


def one_bad(bucket: Bucket, logs: Path) -> list[str]:
    """What is wrong, in sentences. One of two machines has a profile that does not exist; it has the queue to itself
    while the other one joins."""
    bucket.upload(80)
    with cluster(count=0, cpus=1) as nodes:
        nodes.add(AWS_PROFILE="nobody")
        nodes.add()
        code, said = _drive(nodes, bucket, logs, seconds_per_image=0.2)
    problems = bucket.wrong() + ([] if code == 0 else [f"the driver ended with {code}"])
    if AVOIDED not in said or len(re.findall(r"^  avoided  node ", said, re.MULTILINE)) != 1:
        problems.append("the bad machine is not named once")
    return problems + _blamed(said)


def gone(bucket: Bucket, logs: Path) -> list[str]:
    """What is wrong, in sentences. One of five machines is lost with everything on it, in the middle of the work."""
    bucket.upload(120)
    dice = random.Random(1)
    with cluster(count=FIVE, cpus=1) as nodes:

        def blow() -> bool:
            return bucket.parts() >= 10 and nodes.kill_node(dice)

        code, said = _drive(nodes, bucket, logs, seconds_per_image=0.5, blow=blow)
    problems = bucket.wrong() + ([] if code == 0 else [f"the driver ended with {code}"])
    if "a node is gone" not in said:
        problems.append("no machine was lost")
    if "avoided  node" in said:
        problems.append("a machine is avoided")
    return problems + _blamed(said)


def _blamed(said: str) -> list[str]:
    """An attempt that was charged to its chunk says so."""
    return [line for line in said.splitlines() if "is tried again" in line or "given up" in line]


def _drive(
    nodes: Nodes, bucket: Bucket, logs: Path, *, seconds_per_image: float, blow: Callable[[], bool] = lambda: True
) -> tuple[int, str]:
    overrides = [f'source="s3://{bucket.name}/in"', f'out="s3://{bucket.name}/out"', "recipe=sam"]
    overrides += ["recipe.points_per_side=4", "run.images_per_chunk=2", "model.device=cpu", "run.chunk_attempts=1"]
    overrides += [f"run.address={nodes.address}", f'store.endpoint_url="{bucket.endpoint}"']
    with (logs / "log").open("wb") as log:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.fake_generate", *overrides],
            cwd=ROOT,
            env={**os.environ, "FAKE_SECONDS": str(seconds_per_image), "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline, struck = time.monotonic() + 240, False
            while driver.poll() is None and time.monotonic() < deadline:
                struck = struck or blow()
                time.sleep(0.2)
        finally:
            driver.kill()
            code = driver.wait()
    return code, (logs / "log").read_text(errors="replace")
