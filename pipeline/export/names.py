"""What the files of an image are called: the image's own name where that can be one and no other image has it.

Owns the rule. A name is a function of the plan alone, so it does not change when more of a run is exported. Keeps eight
bytes for each planned image.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata

import numpy as np
import numpy.typing as npt

from pipeline.plan.ids import shared_numbers
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.plan import Plan
from pipeline.storage.kinds import IMAGE_EXTENSIONS, extension
from pipeline.storage.members import PIECE_ROWS
from pipeline.storage.signatures import kind_of
from pipeline.storage.store import Store

MOST_BYTES = 180
"""Of a stem in UTF-8; file systems take 255 of a name, some less after encryption."""
_UNFIT = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]')
"""Characters that a file system, a shell or a terminal takes for more than a letter."""
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_GIVEN = re.compile(r"image_[0-9]+", re.IGNORECASE)
_OURS = ("_export", "index.csv", "hierarchy.csv", "metadata.csv")


def own_stem(key: str) -> str:
    """The base name of an image without its extension; empty if a file should not be called that."""
    stem = posixpath.splitext(posixpath.basename(key))[0]
    unfit = (
        not stem
        or stem != stem.strip()
        or stem[0] in ".-~"
        or stem[-1] == "."
        or _UNFIT.search(stem)
        or _WINDOWS_DEVICE.fullmatch(stem)
        or _GIVEN.fullmatch(stem)
        or folded(stem) in _OURS
        or len(stem.encode()) > MOST_BYTES
    )
    return "" if unfit else stem


def reference(key: str, image_id: int) -> str:
    """The name by which a reader finds an image below a folder of its own: its key, if that cannot lead elsewhere, else
    its base name, or `image_<image_id>`. Two images of different shards may share it."""
    parts = key.split("/")
    if not all(_leads_down(part) for part in parts):
        parts = [parts[-1] if _leads_down(parts[-1]) else f"image_{image_id}"]
    return "/".join(parts)


def _leads_down(part: str) -> bool:
    return part not in ("", ".", "..") and not _UNFIT.search(part)


def file_extension(key: str, data: bytes | None = None) -> str:
    """Of an image's file, with its dot. A line of a list may end in anything and a row of a table in nothing: then its
    bytes tell, and `.jpg` stands for an image whose bytes are not there."""
    found = extension(key)
    if found in IMAGE_EXTENSIONS:
        return found
    return f".{kind_of(data).lower()}" if data is not None else ".jpg"


def folded(stem: str) -> str:
    """Equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())


class Names:
    """Stems of the images of one plan."""

    def __init__(self, shared_N: npt.NDArray[np.int64]) -> None:
        self._shared_N = shared_N

    def stem(self, key: str, image_id: int) -> str:
        """The image's own stem if it is fit and no other image of the plan has it, else `image_<image_id>`."""
        own = own_stem(key)
        if not own:
            return f"image_{image_id}"
        number = _hash(own)
        place = int(np.searchsorted(self._shared_N, number))
        is_shared = place < len(self._shared_N) and self._shared_N[place] == number
        return f"image_{image_id}" if is_shared else own


def find_names(plan: Plan, *, out: str, store: Store) -> Names:
    """Reads the member index once.

    raises  ConfigError, StorageError as `MemberIndex.read`
    """
    index = MemberIndex(plan, out=out, store=store)
    found: list[npt.NDArray[np.int64]] = []
    for planned in plan.shards:
        for start in range(0, planned.shard.member_count, PIECE_ROWS):
            members = index.read(planned.shard.name, start, start + PIECE_ROWS)
            stems = (own_stem(member.key) for member in members)
            found.append(np.array([_hash(stem) for stem in stems if stem], np.int64))
    return Names(shared_numbers(found))


def _hash(stem: str) -> int:
    """Two stems of one hash by chance are taken for the same, which costs them their names and nothing else."""
    return int.from_bytes(hashlib.blake2b(folded(stem).encode(), digest_size=8).digest(), "big", signed=True)
