"""Names of shards, which are safe in paths and tell shards apart."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Sequence

from pipeline.storage.globs import fixed_part, has_wildcard
from pipeline.storage.kinds import is_compressed_tar, is_image, is_list, is_parquet, is_tar, is_zip
from pipeline.storage.uris import base_name, sort_key

LONGEST = 80


def shard_names(uris: Sequence[str]) -> list[str]:
    """Slugs of the base names; where two shards would share one (in any case), all of them get a hash of the URI."""
    slugs = [_slug(uri) for uri in uris]
    counts = Counter(slug.casefold() for slug in slugs)
    return [
        slug if counts[slug.casefold()] == 1 else f"{slug}-{hashlib.sha256(sort_key(uri)).hexdigest()[:8]}"
        for slug, uri in zip(slugs, uris, strict=True)
    ]


def is_slug(name: str) -> bool:
    """Whether it has the form of a shard's name, which makes it safe in a path."""
    return re.fullmatch(rf"[A-Za-z0-9_-]{{1,{LONGEST + len('-01234567')}}}", name) is not None


def _slug(uri: str) -> str:
    name = base_name(uri)
    stem = _stem(name) if is_shard_file(uri) else name
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:LONGEST].strip("-")  # `is_slug` knows this form
    if not slug and has_wildcard(uri):
        return _slug(fixed_part(uri))
    return slug or "shard"


def _stem(name: str) -> str:
    """Of `a.tar.gz` and `a.tgz` it is `a`, as of `a.tar`."""
    return name[: name.lower().rindex(".t")] if is_compressed_tar(name) else posixpath.splitext(name)[0]


def is_shard_file(uri: str) -> bool:
    """A file that can be a shard by itself; its extension is no part of its name."""
    return any(kind(uri) for kind in (is_tar, is_compressed_tar, is_zip, is_parquet, is_list, is_image))
