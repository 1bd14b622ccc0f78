"""Where the members of a tar lie, found in one pass over its headers.

Owns the reading of tar headers (ustar, pax, GNU long names) and the word of what is wrong with a damaged one.
`tarfile` itself is used for single headers only: its iteration ends silently at a damaged header, as if the archive
did. Keeps no image bytes. Does not know which members are images. What unpacks a compressed tar is compressed_tars.py.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pipeline.errors import ConfigError

BLOCK = tarfile.BLOCKSIZE
_STEP = 1 << 20
_LARGEST_EXTENSION = 1 << 20
"""Bytes of a pax header or a long name; more is damage."""
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_NO_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_POSIX_MAGIC = b"ustar\0"
_PAX_RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")


class EntryKind(StrEnum):
    """What an entry is; only files have bytes that can be used as they lie."""

    FILE = "file"
    FOLDER = "folder"
    HARD_LINK = "hard link"
    """Another name of a file that stands before it in the archive."""
    SYMBOLIC_LINK = "symbolic link"
    SPARSE = "sparse file"
    SPECIAL = "special file"


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry: its name as text (bytes that are no UTF-8 become \\xNN), and where its data lies in the file.

    target  of a hard link, the name of the file that it is
    """

    name: str
    kind: EntryKind
    offset: int
    length: int
    target: str = ""


class DamagedTarError(Exception):
    """The archive cannot be followed beyond `offset`; `reason` says what was expected there and what was found."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


class Forward(Protocol):
    """What a tar is read from. It may end in a DamagedTarError of its own."""

    def read(self, size: int, /) -> bytes: ...
    def seekable(self) -> bool: ...
    def seek(self, offset: int, /) -> int: ...


def scan_tar(stream: Forward, *, size: int | None, uri: str) -> Iterator[TarEntry]:
    """Every entry whose data lies whole within the `size` bytes of the file, in order.

    Archives that were put end to end are read as one, and an entry in another tar program's padding is an entry.

    size    None if it is known only at the end of the stream, which is then read to the end of each entry's data
    raises  DamagedTarError, after the entries before the damage
            ConfigError if the file is a compressed archive
    """
    reader = _Reader(stream, size)
    ended = False
    while block := reader.take(BLOCK):
        start = reader.position - len(block)
        if start == 0:
            _refuse_compressed(block, uri)
        ended = not any(block)
        if ended:
            continue
        entry = _entry(reader, start, block)
        missing = reader.lacks(entry.offset + entry.length)
        if missing:
            raise DamagedTarError(
                start, f"expected {entry.length} bytes of {entry.name!r}, found {max(0, entry.length - missing)}"
            )
        yield entry
        reader.skip_to(entry.offset + _padded(entry.length))
    if not ended:
        raise DamagedTarError(reader.position, "expected an end-of-archive mark, found the end of the file")


class _Reader:
    """A forward reader that knows its position; skipping seeks where that is possible."""

    def __init__(self, stream: Forward, size: int | None) -> None:
        self._stream = stream
        self._seeks = stream.seekable()
        self._size = size
        self.position = 0

    def take(self, count: int) -> bytes:
        """`count` bytes, or what is left of the file."""
        data = self._stream.read(count if self._size is None else min(count, self._size - self.position))
        self.position += len(data)
        return data

    def lacks(self, end: int) -> int:
        """How many bytes before `end` the file does not have."""
        if self._size is None:
            self.skip_to(end)
        return max(0, end - (self.position if self._size is None else self._size))

    def skip_to(self, target: int) -> None:
        """Stops at the end of the file: the padding of the last entry may be missing."""
        target = target if self._size is None else min(target, self._size)
        if self._seeks:
            self.position = self._stream.seek(target)
        while self.position < target and self.take(min(_STEP, target - self.position)):
            pass


def _entry(reader: _Reader, start: int, block: bytes) -> TarEntry:
    """The entry that begins with the header `block`, its extension headers taken into account."""
    name: str | None = None
    target: str | None = None
    length: int | None = None
    sparse = False
    header = _header(start, block)
    while header.type in _EXTENSIONS:
        content = _extension(reader, start, header)
        if header.type == tarfile.GNUTYPE_LONGNAME:
            name = _text(content.partition(b"\0")[0])
        elif header.type == tarfile.GNUTYPE_LONGLINK:
            target = _text(content.partition(b"\0")[0])
        elif header.type in _PAX:
            records = _pax_records(start, content)
            name = _text(records[b"path"]) if b"path" in records else name
            target = _text(records[b"linkpath"]) if b"linkpath" in records else target
            length = _pax_size(start, records[b"size"]) if b"size" in records else length
            sparse = sparse or any(key.startswith(b"GNU.sparse") for key in records)
        header = _header(start, reader.take(BLOCK))
    if header.type == tarfile.GNUTYPE_SPARSE:
        sparse = True
        _skip_sparse_map(reader, header.buf)
    kind = EntryKind.SPARSE if sparse else _kind(header.type)
    if header.type in _NO_DATA:
        length = 0
    elif length is None:
        length = header.size
    if name is None:
        name = _text(header.name)
    if target is None:
        target = _text(header.buf[157:257].partition(b"\0")[0])
    return TarEntry(name, kind, reader.position, length, target if kind is EntryKind.HARD_LINK else "")


class _Header:
    """The few fields of a 512-byte header that matter here."""

    __slots__ = ("buf", "name", "size", "type")

    def __init__(self, block: bytes) -> None:
        self.buf = block
        plain = _plain_file(block)
        if plain is not None:
            self.size, self.type = plain, tarfile.REGTYPE
        else:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            self.size, self.type = info.size, info.type
        self.name = _name(block)


def _name(block: bytes) -> bytes:
    """The field before the name is its beginning in a POSIX header alone: GNU's keeps times there."""
    name, prefix = block[:100].partition(b"\0")[0], block[345:500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix and block[257:263] == _POSIX_MAGIC else name


def _plain_file(block: bytes) -> int | None:
    """The size from a plain file's sound header; None if it is anything else, which tarfile is to judge.

    tarfile takes ten times as long (14 us), five minutes over the 22 million headers of SA-1B. It also looks at times
    and owners, which nobody here needs to be right.
    """
    if block[156:157] != tarfile.REGTYPE:
        return None
    try:
        size, stated = int(block[124:136].rstrip(b"\0 "), 8), int(block[148:156].rstrip(b"\0 "), 8)
    except ValueError:
        return None
    if not _sum_is(block, stated):
        return None
    return size


def _sum_is(block: bytes, stated: int) -> bool:
    """Whether the header's bytes add up to `stated`, its own checksum field taken as spaces."""
    # Adler-32 holds the sum of the bytes plus one, modulo 65521: the one sum of bytes that the library has in C.
    found = (zlib.adler32(block) & 0xFFFF) - sum(block[148:156]) + 8 * 0x20
    return (found - 1 - stated) % 65521 == 0


def _header(start: int, block: bytes) -> _Header:
    if len(block) < BLOCK:
        raise DamagedTarError(start, f"expected a header of {BLOCK} bytes, found {len(block)} bytes")
    try:
        header = _Header(block)
    except tarfile.HeaderError as error:
        raise DamagedTarError(start, f"expected a tar header, found {block[:16]!r} ({error})") from error
    if header.size < 0:
        raise DamagedTarError(start, f"expected a size, found {header.size}")
    return header


def _extension(reader: _Reader, start: int, header: _Header) -> bytes:
    if header.size > _LARGEST_EXTENSION:
        raise DamagedTarError(start, f"expected an extension header of at most 1 MiB, found {header.size} bytes")
    content = reader.take(header.size)
    if len(content) < header.size:
        raise DamagedTarError(start, f"expected {header.size} bytes of extension header, found {len(content)}")
    reader.take(_padded(header.size) - header.size)
    return content


def _pax_records(start: int, content: bytes) -> dict[bytes, bytes]:
    """`<length> <key>=<value>` and a newline, again and again; the length counts the whole record."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(content) and content[position] != 0:
        match = _PAX_RECORD.match(content, position)
        end = position + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content):
            raise DamagedTarError(start, f"expected a pax record, found {content[position : position + 16]!r}")
        records[match[2]] = content[match.end() : end - 1]
        position = end
    return records


def _pax_size(start: int, value: bytes) -> int:
    if not re.fullmatch(rb"\d{1,18}", value):
        raise DamagedTarError(start, f"expected a size in the pax header, found {value[:16]!r}")
    return int(value)


def _skip_sparse_map(reader: _Reader, header: bytes) -> None:
    is_continued = header[482]
    while is_continued:
        block = reader.take(BLOCK)
        is_continued = len(block) == BLOCK and block[504]


def _kind(header_type: bytes) -> EntryKind:
    if header_type in _FILES:
        return EntryKind.FILE
    if header_type == tarfile.DIRTYPE:
        return EntryKind.FOLDER
    if header_type == tarfile.LNKTYPE:
        return EntryKind.HARD_LINK
    return EntryKind.SYMBOLIC_LINK if header_type == tarfile.SYMTYPE else EntryKind.SPECIAL


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _refuse_compressed(block: bytes, uri: str) -> None:
    for magic, name in _COMPRESSED.items():
        if block.startswith(magic):
            raise ConfigError(f"{uri} is compressed ({name}); images do not shrink, so unpack it to a plain .tar first")
