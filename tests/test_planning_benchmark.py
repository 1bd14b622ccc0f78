"""The instrument that measures planning: what it makes up is read as the real thing would be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.planning import plan_once
from benchmarks.synthetic import FOLDER, IMAGE_BYTES, TarsStore, page
from pipeline.settings import Settings
from pipeline.storage.indexing import index_tar
from pipeline.storage.members import read_members
from pipeline.storage.s3_listing import list_keys, take_contents


def test_made_up_tars_are_whole_tars_with_numbers_of_their_own():
    """A header that fails its checksum would end the tar, and the measurement would be of nothing."""
    found = index_tar(f"{FOLDER}/sa_000001.tar", TarsStore(2, 5))
    (piece,) = found.pieces
    members = read_members(piece.data)
    assert [(member.image_id, member.key, member.length) for member in members] == [
        (number, f"sa_{number:08d}.jpg", IMAGE_BYTES) for number in range(5, 10)
    ]
    assert found.ignored_count == 5
    assert not any(member.broken for member in members)


def test_made_up_listings_are_pages_of_the_usual_make():
    """Of another make they would be parsed by another path, and listed in another way."""
    keys = [f"images/sa_{number:08d}.jpg" for number in range(300)]

    def list_page(**query: Any) -> Any:
        words = {"Prefix": "prefix", "StartAfter": "start-after", "ContinuationToken": "continuation-token"}
        asked = {words[name]: value for name, value in query.items() if name in words}
        body = page(keys, asked | {"max-keys": str(query.get("MaxKeys", 7))})
        taken: dict[str, Any] = {}
        take_contents(SimpleNamespace(name="ListObjectsV2"), {"status_code": 200, "body": body}, taken)
        more = b"<IsTruncated>true" in body
        return taken | {"IsTruncated": more, "NextContinuationToken": taken["Contents"][-1]["Key"] if more else ""}

    assert [key for key, _, _ in list_keys(list_page, "images/")] == keys


def test_a_measurement_plans_and_then_resumes(tmp_path: Path):
    """The second time the plan is there, and all that is read is what is left."""
    settings, store = Settings(source=FOLDER, out=str(tmp_path / "out")), TarsStore(1, 5)
    assert plan_once(settings, store)["planned_anew"]
    again = plan_once(settings, store)
    assert (again["planned_anew"], again["images"], again["members_read"]) == (False, 5, 5)
