"""Images in a zip file: found in its directory, read by one range of the file each.

Owns the reading of one entry. The directory, which stands at the end of the file, is zipfile's.
Source: PKWARE's APPNOTE 6.3.10, sections 4.3.7 (local header) and 4.4.4 (flags).
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import NamedTuple

from pipeline.errors import ConfigError, InputError, TooManyBytesError
from pipeline.records import Ignored, Status
from pipeline.storage.ignored import IgnoredEntries, is_hidden
from pipeline.storage.kinds import is_image
from pipeline.storage.members import FoundMember, IndexBuilder, IndexPiece
from pipeline.storage.ranged import RangedFile
from pipeline.storage.read_ahead import Reads
from pipeline.storage.store import Store

_LOCAL = struct.Struct("<4s5H3I2H")
"""Signature, version, flags, method, time, date, CRC, two sizes, lengths of name and extra field."""
_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED, _CRC_FOLLOWS = 1, 8
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_MOST_NAME = 2**16
_SURELY_THERE = 46 + 22
"""Bytes of the directory behind every entry: its own record, without its name, and the end."""


def index_zip(uri: str, store: Store) -> tuple[tuple[IndexPiece, ...], tuple[Ignored, ...]]:
    """The images of a zip: `offset` is where an entry's header begins, `length` the bytes that it has behind that.

    raises  ConfigError if this is no zip; StorageError
    """
    info = store.head(uri)
    builder, ignored = IndexBuilder(), IgnoredEntries()
    try:
        with zipfile.ZipFile(RangedFile(info, store)) as archive:
            for entry in archive.infolist():
                name = entry.filename
                if entry.is_dir() or not is_image(name) or is_hidden(name):
                    ignored.note(name, kind="folder" if entry.is_dir() else "")
                    continue
                broken = _unusable(entry)
                builder.add(FoundMember(name, uri, entry.header_offset, entry.compress_size, info.etag, broken))
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, OSError, ValueError) as error:
        raise ConfigError(f"source: {uri} is no zip that can be read ({error})") from error
    return builder.finish(), ignored.counted()


def _unusable(entry: zipfile.ZipInfo) -> str:
    """Why its bytes are not to be had; empty if they are."""
    if entry.flag_bits & _ENCRYPTED:
        return "it is encrypted; unpack the zip first"
    if entry.compress_type not in (_STORED, _DEFLATED):
        return f"it is compressed by method {entry.compress_type}; only stored and deflated entries are read"
    return "" if entry.file_size else "it is an empty file in a zip"


class ZipEntry(NamedTuple):
    """offset  of its header
    length  bytes of its data, as they lie there
    """

    uri: str
    etag: str
    offset: int
    length: int
    name: str


def usual_length(name: str, length: int) -> int:
    """Bytes of an entry with its header, and as many behind it as any has: its header may be longer than it must."""
    in_header = min(len(name.encode("utf-8", "surrogatepass")), _MOST_NAME)
    return _LOCAL.size + in_header + length + _SURELY_THERE - 1


def read_entry(entry: ZipEntry, store: Reads, *, limit: int) -> bytes:
    """The bytes of an entry, in one request, or two if its header is longer than usual.

    raises  InputError if they are damaged; TooManyBytesError above `limit`; what `Store.read` raises
    """
    uri, etag, offset, length, name = entry
    where = f"{name} in {uri}"
    data = store.read(uri, offset=offset, length=usual_length(name, length), etag=etag)
    try:
        signature, _, flags, method, _, _, crc, _, _, *lengths = _LOCAL.unpack_from(data)
    except struct.error as error:
        raise InputError(Status.UNREADABLE, f"{where} has no whole header") from error
    if signature != _SIGNATURE:
        raise InputError(Status.UNREADABLE, f"{where} has no header where the zip's directory says")
    begins = _LOCAL.size + sum(lengths)
    if len(data) < begins + length:
        data += store.read(uri, offset=offset + len(data), length=begins + length - len(data), etag=etag)
    packed = data[begins : begins + length]
    found = packed if method == _STORED else _inflated(packed, where, limit)
    if len(found) > limit:
        raise TooManyBytesError(where, len(found))
    if not flags & _CRC_FOLLOWS and zlib.crc32(found) != crc:
        raise InputError(Status.UNREADABLE, f"{where} has another checksum than its header says")
    return found


def _inflated(packed: bytes, where: str, limit: int) -> bytes:
    """A few bytes may stand for very many: what is beyond the limit is not made."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = stream.decompress(packed, limit + 1 if limit < 2**62 else 0)
    except zlib.error as error:
        raise InputError(Status.UNREADABLE, f"{where} cannot be decompressed: {error}") from error
    if len(found) <= limit and not stream.eof:
        raise InputError(Status.UNREADABLE, f"{where} ends before its data does")
    return found
