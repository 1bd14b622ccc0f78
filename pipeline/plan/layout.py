"""The names of everything below OUT.

Owns the names alone. What is in these objects, those who write them decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.errors import ContractError
from pipeline.plan.plan import Plan
from pipeline.records import Chunk
from pipeline.settings import Format
from pipeline.storage.shard_names import is_slug

PART_SUFFIX: Mapping[Format, str] = MappingProxyType({Format.PARQUET: ".parquet", Format.COCO_RLE: ".tar"})


def below(out: str, *parts: str) -> str:
    """The URI of something below a folder or prefix."""
    return "/".join([out.rstrip("/"), *parts])


def job_uri(out: str) -> str:
    """Everything that is not the dataset itself."""
    return below(out, "_job")


def plan_uri(out: str) -> str:
    return below(job_uri(out), "plan.json")


def members_uri(out: str, shard_name: str, sha256: str) -> str:
    """A piece of a member index. Its name has the hash of its content, so that a piece left behind by a planner that
    lost is never taken for another."""
    return below(job_uri(out), "members", f"{shard_name}-{sha256[:16]}.parquet")


def data_uri(out: str) -> str:
    return below(out, "data")


def part_name(plan: Plan, chunk: Chunk) -> str:
    if not is_slug(chunk.shard):
        raise ContractError(f"{chunk.shard!r} is no name of a shard: a part of it could lie anywhere")
    return chunk.chunk_id + PART_SUFFIX[plan.settings.format]


def part_uri(out: str, plan: Plan, chunk: Chunk) -> str:
    return below(data_uri(out), part_name(plan, chunk))


def manifest_uri(out: str) -> str:
    return below(job_uri(out), "manifest.json")


def success_uri(out: str) -> str:
    return below(out, "_SUCCESS")


def summaries_uri(out: str) -> str:
    """What is known of the parts without reading them."""
    return below(job_uri(out), "summaries")


def summary_uri(out: str, sha256: str) -> str:
    """The name is the content's hash: any number of drivers write there, and a damaged one is not believed."""
    return below(summaries_uri(out), f"{sha256}.json")


def run_report_uri(out: str, run_id: str) -> str:
    """What one command did and how it ended."""
    return below(job_uri(out), "reports", f"{run_id}.json")


def progress_uri(out: str) -> str:
    """How far a run is, for programs that look now and then."""
    return below(job_uri(out), "progress.json")


def card_uri(out: str) -> str:
    """The dataset card, by the name that the Hub and `datasets` look for."""
    return below(out, "README.md")


def other_versions_uri(out: str) -> str:
    """Which versions have worked on the run beside those of the plan, as somebody has allowed."""
    return below(job_uri(out), "versions")


def versions_uri(out: str, sha256: str) -> str:
    return below(other_versions_uri(out), f"{sha256[:16]}.json")


def store_verdict_uri(out: str) -> str:
    """How the store treats competing writers, found out once."""
    return below(job_uri(out), "store.json")


def signs_of_life_uri(out: str) -> str:
    """Where runs on a weak store show that they live."""
    return below(job_uri(out), "runs")
