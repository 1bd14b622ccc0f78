"""The bytes of an image, as they were when its masks were made.

Owns when an image is left out: its object is gone or another one. A store that refuses or does not answer says nothing
of the image, and ends the export.
"""

from __future__ import annotations

import hashlib

from pipeline.errors import ChangedError, InputError, NotFoundError, OutOfReachError
from pipeline.output.labelled import LabelledImage, images_of_chunk
from pipeline.plan.member_index import MemberIndex
from pipeline.plan.plan import Plan
from pipeline.records import Chunk, ImageRow
from pipeline.storage.store import Store


class SourceImages:
    """Images of a plan."""

    def __init__(self, plan: Plan, *, out: str, store: Store) -> None:
        self._plan, self._out, self._store = plan, out, store
        self._index = MemberIndex(plan, out=out, store=store)

    def places(self, chunk: Chunk) -> list[LabelledImage]:
        """Of the images of a chunk, in the order of the rows of its part.

        raises  ConfigError if the member index is not the one that was planned
                StorageError
        """
        return images_of_chunk(chunk, self._plan, index=self._index, out=self._out)

    def read(self, row: ImageRow, planned: LabelledImage) -> bytes | str:
        """The bytes of a row's image, or a sentence that says why they are not to be had."""
        place = planned.image
        if place is None or planned.image_id != row.image_id:
            return f"{row.file_name} is not where it was planned; make verify tells more"
        try:
            data = place.read(self._store, of_any_version=True)
        except OutOfReachError:
            raise
        except (NotFoundError, ChangedError, InputError) as error:
            return str(error)
        if hashlib.sha256(data).hexdigest() != row.sha256:
            return f"{row.file_name}: its bytes are not those that its masks were made of"
        return data
