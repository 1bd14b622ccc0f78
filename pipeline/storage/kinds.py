"""What a file is by its name: image, tar, list, compressed archive, or nothing of ours.

Owns the extensions. Opens nothing.
"""

from __future__ import annotations

import posixpath

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
_LIST_EXTENSIONS = frozenset({".txt", ".jsonl"})
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip", ".gz", ".7z")


def is_list(name: str) -> bool:
    return extension(name) in _LIST_EXTENSIONS


def is_compressed(uri: str) -> bool:
    return uri.lower().endswith(_COMPRESSED)


def is_tar(uri: str) -> bool:
    return extension(uri) == ".tar" and not _is_resource_fork(uri)


def is_image(name: str) -> bool:
    return extension(name) in IMAGE_EXTENSIONS and not _is_resource_fork(name)


def extension(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def _is_resource_fork(name: str) -> bool:
    """The `._name` companions that macOS writes beside files it copies; they hold no image."""
    return posixpath.basename(name).startswith("._")
