"""`python -m tests.chaos [NAME...]`: runs under fire, beside ones that nobody disturbs; and a report.

Exits with 1 if anything is missing, doubled, different or wrongly blamed, or if a planned blow did not fall.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from boto3.session import Session

from tests.chaos.efficiency import efficiency
from tests.chaos.elastic import elastic
from tests.chaos.journals import journals
from tests.chaos.machines import Bucket, gone, one_bad
from tests.chaos.outage import outage
from tests.chaos.run import Findings, chaos
from tests.chaos.shortage import shortage
from tests.chaos.storm import STORMS, Storm
from tests.chaos.weather import HARMS, Weather, weather
from tests.s3_server import S3_ENVIRONMENT, running_server

ALL = ("long", "real", "elastic", "one-bad", "gone", "shortage", "outage", "memory", "efficiency", "journals")


def report(name: str, storm: Storm, found: Findings, sky: Weather) -> Iterator[str]:
    yield f"chaos {name} (seed {storm.seed}): {'FAILED' if found.problems else 'sound'} after {found.seconds:.0f} s"
    images = ", ".join(f"{count:,} {status}" for status, count in found.statuses.most_common())
    yield f"  images   {images} in {storm.chunks} chunks on {storm.nodes} nodes, {storm.drivers} drivers at once"
    yield f"  kills    {', '.join(f'{count} {kind}s' for kind, count in found.blows.most_common())}"
    harmed = sky.injected.total()
    yield f"  storage  {harmed:,} of {sky.requests:,} requests harmed ({harmed / max(1, sky.requests):.0%})"
    for harm, count in sorted(sky.injected.items()):
        yield f"           {count:5} {harm}"
    said = ", ".join(f"{event!r} {count}x" for event, count in found.said.most_common())
    yield f"  drivers  said {said or 'nothing'}"
    yield f"  exits    {', '.join(map(str, found.exits))}"
    for problem in found.problems:
        yield f"  WRONG    {problem}"


def main(names: list[str]) -> int:
    os.environ.update(S3_ENVIRONMENT)
    code = 0
    with ExitStack() as stack:
        endpoint = cache(lambda: stack.enter_context(running_server()))
        for name in names or ALL:
            logs = Path(tempfile.mkdtemp(prefix=f"chaos-{name}-"))
            match name:
                case "elastic":
                    lines, problems = _elastic(logs)
                case "one-bad" | "gone":
                    lines, problems = _machines(name, endpoint(), logs)
                case "shortage":
                    lines, problems = shortage(logs)
                case "outage":
                    lines, problems = outage(logs, endpoint())
                case "memory":
                    from tests.chaos.memory import memory  # with torch, which takes three seconds to import

                    lines, problems = memory(logs, images=2000)
                case "journals":
                    lines, problems = journals()
                case "efficiency":
                    lines, problems = efficiency()
                case _:
                    lines, problems = _storm(name, endpoint(), logs)
            sys.stdout.write("\n".join([*lines, f"  logs     {logs}"]) + "\n")
            sys.stdout.flush()
            code = code or int(bool(problems))
    return code


def _storm(name: str, endpoint: str, logs: Path) -> tuple[list[str], list[str]]:
    storm, bucket = STORMS[name], f"chaos-{name}"
    client = Session().client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=bucket)
    with weather(endpoint, share=storm.fault_share, seed=storm.seed) as sky:
        found = chaos(storm, client=client, bucket=bucket, endpoint=endpoint, sky=sky, logs=logs)
        if sky.injected.total() < sky.requests * storm.fault_share / 2:
            found.problems.append(f"only {sky.injected.total()} of {sky.requests} requests were harmed")
        for method, harms in HARMS.items():
            if name == "long" and len([harm for harm in sky.injected if harm.startswith(method)]) < len(harms):
                found.problems.append(f"not every harm to {method} was done")
    client.close()
    return list(report(name, storm, found, sky)), found.problems


def _elastic(folder: Path) -> tuple[list[str], list[str]]:
    begun = time.monotonic()
    problems = elastic(folder)
    verdict = "FAILED" if problems else "sound: the broken machine avoided and named, the late one used"
    return [
        f"chaos elastic: {verdict}, {time.monotonic() - begun:.0f} s",
        *map("  WRONG    {}".format, problems),
    ], problems


def _machines(name: str, endpoint: str, logs: Path) -> tuple[list[str], list[str]]:
    client = Session().client("s3", endpoint_url=endpoint)
    begun = time.monotonic()
    problems = (one_bad if name == "one-bad" else gone)(Bucket(client, f"chaos-{name}", endpoint), logs)
    client.close()
    verdict = "FAILED" if problems else "sound: everything done, no chunk blamed"
    return [
        f"chaos {name}: {verdict}, {time.monotonic() - begun:.0f} s",
        *map("  WRONG    {}".format, problems),
    ], problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
