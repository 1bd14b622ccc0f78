"""The dataset card, OUT/README.md: what a finished Parquet output is, for people, the Hub and `load_dataset(OUT)`.

Its YAML header names data/*.parquet as the dataset: without it `datasets` would read what lies in _job/ as well. Says
nothing of where OUT is or when it was made, so that equal runs have equal cards. Anybody may edit it: an edited card is
never written again, and its last line tells it from one that is as it was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

from pipeline import __version__
from pipeline.errors import ContractError, NotFoundError
from pipeline.plan.layout import card_uri, plan_uri
from pipeline.plan.plan import Plan
from pipeline.plan.planning import load_plan
from pipeline.settings import Format
from pipeline.storage.store import Store
from pipeline.texts import printable

_SEAL = b"\n<!-- As written by Maskmill, if this is the sha256 of all above: "
_CARD = """\
---
configs:
  - config_name: default
    data_files: "data/*.parquet"
---

# Masks by Maskmill

{masks:,} masks of {images:,} images, one row an image, made by Maskmill {version} with Segment Anything.

{failures}

```python
from datasets import load_dataset

rows = load_dataset("the folder that this file is in", split="train")
```

The column `annotations` holds the masks of an image in the form of SA-1B: `segmentation` is a COCO run-length encoding,
which `pycocotools.mask.decode` turns into pixels; `bbox` is x, y, width, height in pixels. The images themselves are
not in here: `source` says where each one lay, `sha256` what it was.

| made with | |
|---|---|
{settings}
"""


def put_card(out: str, store: Store, *, images: int, masks: int, failures: Mapping[str, int]) -> None:
    """Of a run that is about to be published; does nothing if there is a README.md, or the output is no Parquet.

    images    rows, with those of `failures`, which counts images that have no masks, by status
    """
    plan = load_plan(out, store=store)
    if plan is None:
        raise ContractError(f"{plan_uri(out)} is gone while its run is published")
    if plan.settings.format is Format.PARQUET:
        store.put_if_absent(card_uri(out), card(plan, images=images, masks=masks, failures=failures))


def drop_unedited_card(out: str, store: Store) -> None:
    """Of a run that is no longer finished: its numbers may change. A card that somebody has edited stays."""
    with suppress(NotFoundError):
        data = store.read(card_uri(out))
        if data == _sealed(data[: data.rfind(_SEAL)]):
            store.delete(card_uri(out))


def _sealed(text: bytes) -> bytes:
    return text + _SEAL + hashlib.sha256(text).hexdigest().encode() + b" -->\n"


def card(plan: Plan, *, images: int, masks: int, failures: Mapping[str, int]) -> bytes:
    settings = plan.settings
    about = {"model": settings.model_name, "weights, sha256": settings.weights_sha256}
    about |= {"encoder's precision": str(settings.precision)}
    about |= {name: str(value) for name, value in settings.named().items() if name.startswith("recipe.")}
    failed = ", ".join(f"{count:,} {status}" for status, count in failures.items())
    of_failed = f"Images that failed: {failed}. They have rows, with `status` and `error`."
    text = _CARD.format(
        masks=masks,
        images=images,
        version=__version__,
        failures=of_failed if failed else "None failed.",
        settings="\n".join(f"| {name} | `{printable(value)}` |" for name, value in about.items()),
    )
    return _sealed(text.encode())
