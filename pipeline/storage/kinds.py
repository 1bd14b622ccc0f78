"""What a file is by its name: image, tar, compressed tar, zip, list, Parquet file, an archive that is not read, or none
of these; and which image of SA-1B.

Owns the extensions and the form of SA-1B's names. Opens nothing.
"""

from __future__ import annotations

import re

IMAGE_EXTENSIONS = frozenset(
    (
        *(".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"),
        *(".heic", ".heif", ".jp2", ".jpx", ".jpf", ".j2k", ".j2c"),
    )
)
_LIST_EXTENSIONS = frozenset({".txt", ".jsonl"})
MAX_SA_NUMBER = 2**52
"""`sa_<n>` names with a larger n are foreign names, so that ids given after them stay below 2^53."""
_SA_NAME = re.compile(r"sa_([0-9]{1,16})(?:\.[^./]*)?")
_COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.zst", ".tzst")
_ARCHIVES = (
    *(f".tar.{end}" for end in ("z", "bz2", "xz", "lz", "lzma", "lzo", "lz4", "br")),
    *(".taz", ".tbz", ".tbz2", ".tz2", ".txz", ".tlz"),
    *(".7z", ".rar"),
)
"""Compressed tars by the suffixes that GNU tar knows (its manual, --auto-compress) and two newer ones; and others."""


def is_list(name: str) -> bool:
    return extension(name) in _LIST_EXTENSIONS


def is_archive(uri: str) -> bool:
    """One that is not read: compressed in another way than `is_compressed_tar`, or no tar at all."""
    return uri.lower().endswith(_ARCHIVES)


def is_tar(uri: str) -> bool:
    return extension(uri) == ".tar" and not _is_resource_fork(uri)


def is_compressed_tar(uri: str) -> bool:
    """By gzip or Zstandard."""
    return uri.lower().endswith(_COMPRESSED_TARS) and not _is_resource_fork(uri)


def is_zip(name: str) -> bool:
    return extension(name) == ".zip" and not _is_resource_fork(name)


def is_parquet(name: str) -> bool:
    return extension(name) == ".parquet"


def is_image(name: str) -> bool:
    return extension(name) in IMAGE_EXTENSIONS and not _is_resource_fork(name)


def extension(name: str) -> str:
    """From the last dot of the base name on, in lower case; "" if only dots come before it. Asked of every key."""
    start, dot = name.rfind("/") + 1, name.rfind(".")
    return name[dot:].lower() if name[start:dot].strip(".") and dot > start else ""


def sa_number(key: str) -> int | None:
    """The n of an image called `sa_<n>.<any extension>`, in any folder; None for every other name."""
    start = key.rfind("/") + 1
    if not key.startswith("sa_", start):
        return None
    found = _SA_NAME.fullmatch(key, start)
    if found is None:
        return None
    number = int(found[1])
    return number if number < MAX_SA_NUMBER else None


def _is_resource_fork(name: str) -> bool:
    """The `._name` companions that macOS writes beside files it copies; they hold no image."""
    return name.startswith("._", name.rfind("/") + 1)
