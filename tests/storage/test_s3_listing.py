"""Listing a large prefix in ranges, many at once: nothing twice, nothing left out, in the order of one long listing.

Against a store in memory with small pages; test_s3.py does the same, smaller, with a real server.
"""

from __future__ import annotations

import random
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.s3_listing import FIRST_PAGES, RANGE_PAGES, list_keys, take_contents


class Bucket:
    """Answers as ListObjectsV2 does, two keys a page."""

    def __init__(self, keys: set[str]) -> None:
        self.keys = sorted(keys)
        self.requests = 0
        self.threads: set[int] = set()

    def __call__(self, **query: Any) -> Any:
        self.requests += 1
        self.threads.add(threading.get_ident())
        after = query.get("ContinuationToken", query.get("StartAfter", ""))
        left = [key for key in self.keys if key.startswith(query["Prefix"]) and key > after]
        page = left[: query.get("MaxKeys", 2)]
        answer: dict[str, Any] = {"IsTruncated": len(left) > len(page)}
        if page:
            answer |= {"Contents": [{"Key": key, "Size": len(key), "ETag": f'"{key}"'} for key in page]}
            answer |= {"NextContinuationToken": page[-1]}
        return answer

    def below(self, prefix: str) -> list[tuple[str, int, str]]:
        return [(key, len(key), key) for key in self.keys if key.startswith(prefix)]


SETS = {
    "numbers": {f"in/sa_{number}.jpg" for number in range(1500)},
    "padded": {f"in/sa_{number:08d}.jpg" for number in range(1500)},
    "hashes": {f"in/{random.Random(number).getrandbits(64):016x}" for number in range(1500)},
    "folders": {f"in/{day:03d}/{number}/é.jpg" for day in range(30) for number in range(50)},
    "each the start of the next": {"in/" + "a" * length for length in range(1, 600)},
    "nearly all in one": {f"in/a/{number}" for number in range(1400)} | {"in/b", "in/a"},
    "beyond the usual characters": {f"in/x{chr(0x10FF00 + n % 200)}{n}" for n in range(300)} | {"in/xa", "in/xa\uffff"},
}


@pytest.mark.parametrize("name", SETS)
def test_every_key_is_listed_once_and_in_order(name: str) -> None:
    """Whatever the keys look like: how they go on is found out, not assumed."""
    bucket = Bucket(SETS[name] | {"i", "in", "im/x", "in0"})
    assert list(list_keys(bucket, "in/")) == bucket.below("in/")
    assert len(bucket.threads) > 1


@given(st.sets(st.text("ab/\uffff\U00010000~", max_size=9), max_size=200), st.sampled_from(["", "a", "a/"]))
def test_any_set_of_keys_is_listed_once_and_in_order(keys: set[str], prefix: str) -> None:
    """Adversarial keys: starts of each other, and characters around the one that ranges are skipped with."""
    bucket = Bucket(keys - {""})
    assert list(list_keys(bucket, prefix)) == bucket.below(prefix)


def test_a_small_listing_costs_its_pages_and_no_more() -> None:
    """Resuming a run lists its parts again and again."""
    bucket = Bucket({f"in/{number:02d}" for number in range(2 * FIRST_PAGES)})
    assert len(list(list_keys(bucket, "in/"))) == 2 * FIRST_PAGES
    assert bucket.requests == FIRST_PAGES


def test_who_wants_only_the_first_key_pays_for_one_page() -> None:
    """Whether a prefix shows anything at all is asked in many places."""
    bucket = Bucket(SETS["numbers"])
    assert next(list_keys(bucket, "in/"))[0] == "in/sa_0.jpg"
    assert bucket.requests == 1


def test_a_failure_ends_the_listing_and_the_threads_that_read_ahead() -> None:
    """A store that fails must not be asked on and on."""

    class Failing(Bucket):
        def __call__(self, **query: Any) -> Any:
            if query["Prefix"].startswith("in/sa_14"):
                raise ValueError(query["Prefix"])
            return super().__call__(**query)

    bucket = Failing({f"in/sa_{number}.jpg" for number in range(40 * RANGE_PAGES)})
    with pytest.raises(ValueError, match="in/sa_14"):
        list(list_keys(bucket, "in/"))
    after = bucket.requests
    assert threading.active_count() < 16
    assert bucket.requests == after


USUAL = (
    b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
    b"<Contents><Key>a%20+b</Key><ETag>&quot;e&quot;</ETag><Size>12</Size></Contents>"
    b"<IsTruncated>true</IsTruncated><EncodingType>url</EncodingType></ListBucketResult>"
)


def test_the_keys_of_a_page_are_taken_from_its_xml_and_the_rest_is_left() -> None:
    """botocore reads what is left: the token, and errors."""
    response: dict[str, Any] = {"status_code": 200, "body": USUAL}
    taken: dict[str, Any] = {}
    take_contents(SimpleNamespace(name="ListObjectsV2"), response, taken)
    assert taken == {"Contents": [{"Key": "a  b", "Size": 12, "ETag": "e"}]}
    assert b"Contents" not in response["body"]
    assert b"EncodingType" not in response["body"]
    assert b"IsTruncated>true<" in response["body"]


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (503, (b"", b"")),
        (200, (b"<Key>a%20+b</Key>", b"<Key>a&amp;b</Key>")),
        (200, (b"<Key>a%20+b</Key>", b"<Key><![CDATA[a]]></Key>")),
        (200, (b"<Size>12</Size>", b"")),
        (200, (b"Contents>", b"s3:Contents>")),
    ],
    ids=["error", "escaped", "cdata", "no size", "namespace"],
)
def test_a_page_of_another_make_is_left_to_botocore_whole(status: int, change: tuple[bytes, bytes]) -> None:
    """Speed must not decide which keys there are."""
    body = USUAL.replace(*change)
    response: dict[str, Any] = {"status_code": status, "body": body}
    taken: dict[str, Any] = {}
    take_contents(SimpleNamespace(name="ListObjectsV2"), response, taken)
    assert not taken
    assert response["body"] == body
