"""Where the bytes of an image lie, and how they are read: a whole object, a range, a place in a compressed tar, an
entry of a zip, a row of a table.

Owns the way from a shard's kind to the reader of its members.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.records import Member
from pipeline.storage.compressed_tars import compressed_tars
from pipeline.storage.image_tables import image_tables
from pipeline.storage.indexing import ShardKind
from pipeline.storage.read_ahead import Extent, ReadAhead, Reads
from pipeline.storage.store import ObjectInfo, Store, check_size
from pipeline.storage.zips import ZipEntry, read_entry, usual_length


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of an object; length 0 is all of it.

    kind    of the shard: in a zip the range is an entry called `name`, behind its header, which begins at `offset`; in
            a Parquet file `offset` is the number of a row and `length` the size of the file; in a compressed tar the
            range is one of the unpacked tar
    column  of a Parquet file, if the run was told which
    """

    uri: str
    offset: int = 0
    length: int = 0
    etag: str = ""
    kind: str = ""
    name: str = ""
    column: str | None = None

    @classmethod
    def of(cls, member: Member, *, kind: str, column: str | None) -> ByteRange:
        return cls(member.uri, member.offset, member.length, member.etag, kind, member.key, column)

    def read(
        self,
        store: Store,
        *,
        limit: int = sys.maxsize,
        of_any_version: bool = False,
        ahead: ReadAhead | None = None,
    ) -> bytes:
        """of_any_version  also of an object that was written anew since; whoever asks checks the bytes
        ahead           by which its neighbours are read with it, if it knows any; of the same store

        raises  InputError if a compressed tar, a zip or a table has no sound bytes there
                TooManyBytesError above `limit`
                what `Store.read` raises, ChangedError if the object has another etag by now
        """
        etag = "" if of_any_version else self.etag
        reader: Reads = ahead or store
        match self.kind:
            case ShardKind.PARQUET:
                table = ObjectInfo(self.uri, self.length, etag)
                return image_tables(store, self.column).read(table, self.offset, limit=limit)
            case ShardKind.ZIP:
                entry = ZipEntry(self.uri, etag, self.offset, self.length, self.name)
                return read_entry(entry, reader, limit=limit)
            case ShardKind.COMPRESSED_TAR:
                check_size(self.uri, self.length, limit)
                tars = compressed_tars(store)
                return tars.read(self.uri, etag=etag, offset=self.offset, length=self.length)
            case _:
                check_size(self.uri, self.length, limit)
                # The limit is for a line of a list, or what was an empty file when it was planned: their length is not
                # known.
                length = self.length or None
                return reader.read(self.uri, offset=self.offset, length=length, etag=etag, limit=limit)


def read_ahead(places: Sequence[ByteRange], store: Store) -> ReadAhead:
    """For reading these places in this order. Rows of tables and images in compressed tars have readers that keep what
    comes next anyway."""
    return ReadAhead([extent for place in places if (extent := _extent(place)) is not None], store)


def _extent(place: ByteRange) -> Extent | None:
    match place.kind:
        case ShardKind.TAR:
            return Extent(place.uri, place.offset, place.offset + place.length)
        case ShardKind.ZIP:
            return Extent(place.uri, place.offset, place.offset + usual_length(place.name, place.length))
        case _:
            return None
