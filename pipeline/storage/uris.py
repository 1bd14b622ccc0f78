"""Names of objects: `s3://bucket/key`, `file:///path` and plain paths, and how they relate.

Owns every conversion between a URI and a path or key. Touches no store. A key or a file name is data: nothing here
interprets `..`, percent signs or odd characters in an S3 key.
"""

from __future__ import annotations

import os
import posixpath
import re
from urllib.parse import quote, unquote_to_bytes

from pipeline.errors import ConfigError

# An access point's name stands where a bucket's does, and has a slash of its own.
_ACCESS_POINT = re.compile(r"arn:[^:/]+:s3[^:/]*:[^:/]*:[^:/]*:(?:outpost[:/][^:/]+[:/])?accesspoint[:/][^:/]+(?=/|$)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_s3(uri: str) -> bool:
    """True for s3:// URIs. raises ConfigError for a scheme other than s3:// and file://."""
    match = _SCHEME.match(uri)
    if match is None or match[1] == "file":
        return False
    if match[1] == "s3":
        return True
    raise ConfigError(f"{uri}: there is no store for {match[1]}://; use s3://bucket/key, file:///path or a plain path")


def split_s3(uri: str) -> tuple[str, str]:
    """(bucket, key). The key is everything after the bucket, byte for byte, and may be empty.

    The bucket may be the ARN of an access point.
    """
    rest = uri.removeprefix("s3://")
    access_point = _ACCESS_POINT.match(rest)
    if access_point is not None:
        return access_point[0], rest[access_point.end() + 1 :]
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise ConfigError(f"{uri!r} names no bucket; write s3://bucket/key")
    return bucket, key


def split_s3_object(uri: str) -> tuple[str, str]:
    """(bucket, key), neither of them empty. raises ConfigError if the URI names no bucket, or only a bucket."""
    bucket, key = split_s3(uri)
    if not key:
        raise ConfigError(f"{uri} names a bucket, but an object is needed; write s3://{bucket}/key")
    return bucket, key


def check_object_name(uri: str) -> None:
    """raises ConfigError if no store could hold an object of this name."""
    if is_s3(uri):
        split_s3_object(uri)
    else:
        local_path(uri)


def local_path(uri: str) -> str:
    """The absolute path of a plain path (with `~`) or of a `file://` URI (percent-decoded)."""
    if "\0" in uri:
        raise ConfigError(f"{uri!r} holds a NUL character, which no file name can")
    if not uri.startswith("file://"):
        return os.path.abspath(os.path.expanduser(uri))
    host, slash, rest = uri.removeprefix("file://").partition("/")
    if not slash or host not in ("", "localhost"):
        raise ConfigError(f"{uri!r} is not a local file; write file:///absolute/path")
    return os.path.abspath(os.fsdecode(unquote_to_bytes(slash + rest)))


def local_uri(path: str) -> str:
    """The canonical URI of an absolute path: the path itself, or `file://` with escapes if it is not valid UTF-8."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def absolute(uri: str) -> str:
    """The canonical form, without a trailing slash. It means the same in every process, whatever its working folder."""
    if is_s3(uri):
        bucket, key = split_s3(uri)
        return f"s3://{bucket}/{key.rstrip('/')}".rstrip("/")
    return local_uri(local_path(uri))


def join(base: str, relative: str) -> str:
    """`relative` below the folder or prefix `base`, canonical."""
    base = absolute(base)
    if is_s3(base):
        return f"{base}/{relative}"
    return local_uri(os.path.abspath(os.path.join(local_path(base), relative)))


def parent(uri: str) -> str:
    """The folder or prefix that holds the object at a canonical URI."""
    if is_s3(uri):
        bucket, key = split_s3(uri)
        return absolute(f"s3://{bucket}/{posixpath.dirname(key)}")
    return local_uri(os.path.dirname(local_path(uri)))


def base_name(uri: str) -> str:
    """The last segment as readable text; for a bucket the name of the bucket."""
    name = _bytes(uri).rstrip(b"/").rpartition(b"/")[2]
    return name.decode("utf-8", "backslashreplace")


def relative_key(folder: str, uri: str) -> str:
    """The name of `uri` below `folder`, both canonical. Bytes that are not UTF-8 become \\xNN."""
    plain = folder.rstrip("/") + "/"
    if uri.isascii() and uri.startswith(plain) and not uri.startswith("file:"):
        return uri[len(plain) :]
    prefix = _bytes(folder).rstrip(b"/") + b"/"
    return _bytes(uri).removeprefix(prefix).decode("utf-8", "backslashreplace")


def segments(uri: str) -> list[str]:
    """What stands between the slashes, as `relative_key` spells it; of a path once `.` and `..` are worked out."""
    return _bytes(uri).decode("utf-8", "backslashreplace").rstrip("/").split("/")


def sort_key(uri: str) -> bytes:
    """Sorts in byte order, which is the order of S3's listings."""
    return _bytes(uri)


def _bytes(uri: str) -> bytes:
    if is_s3(uri):
        return uri.encode("utf-8", "surrogatepass")
    return os.fsencode(local_path(uri))
