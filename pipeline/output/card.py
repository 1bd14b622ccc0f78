"""The dataset card, OUT/README.md: what a finished Parquet output is, for people, the Hub and `load_dataset(OUT)`.

Its YAML header names data/*.parquet as the dataset: without it `datasets` would read what lies in _job/ as well. Says
nothing of where OUT is or when it was made, so that equal runs have equal cards. Anybody may edit it: an edited card is
never written again, and its last line tells it from one that is as it was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

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
task_categories:
  - mask-generation
  - image-segmentation
tags:
  - segment-anything
  - coco-rle
size_categories:
  - {category}
---

# Masks by Maskmill

{masks:,} masks of {images:,} images, one row an image, made by Maskmill {version} with Segment Anything.
{parts:,} Parquet files of {size:,} bytes in all.

{failures}

```python
from datasets import load_dataset

rows = load_dataset("the folder that this file is in", split="train")
```

The column `annotations` holds the masks of an image in the form of SA-1B: `segmentation` is a COCO run-length encoding,
which `pycocotools.mask.decode` turns into pixels; `bbox` is x, y, width, height in pixels. The images themselves are
not in here: `source` says where each one lay, `sha256` what it was.

| column | meaning |
|---|---|
| `image_id` | unique here |
| `file_name`, `source` | the image's name inside its shard, and the place of its bytes |
| `width`, `height`, `exif_orientation` | pixels when it is upright; the orientation as found |
| `sha256` | of the image's bytes |
| `status`, `error` | `ok`, or how the image failed and why |
| `annotations` | the masks |
| of each mask `id`, `segmentation`, `bbox`, `area` | unique here; its pixels, its box and their number |
| `predicted_iou`, `stability_score` | its two scores |
| `point_coords`, `crop_box`, `crop_layer`, `multimask_index` | the prompt, the crop, and which of the model's outputs |

| made with | |
|---|---|
{settings}

## Datasheet

Questions after Gebru et al., Datasheets for Datasets (arXiv:1803.09010), as far as the run can answer them.

- **What is an instance?** An image of the source, with all masks that the generator kept. There are {images:,}.
- **Is it a sample?** No: every image of the source is in exactly one row, also if it failed.
- **Are there labels?** Masks without classes or names, and two scores for each mask. No person has drawn or checked
  them.
- **What is missing?** The pixels of the images. {failures}
- **Errors, noise, repetition?** A model made the masks: some are wrong, things are missed, and masks of one image
  overlap. `predicted_iou` is the model's own guess. Thresholds and duplicate removal are those in the table above.
- **How was it made?** By prompting the model with a grid of points on each image, and on zoomed crops if
  `recipe.crop_n_layers` is above 0; then by the filters of that table.
- **Can it be made again?** Yes: the same source, weights, settings and versions give the same bytes on one class of
  device.
- **People, consent, licence, maintenance, uses to avoid?** Whoever publishes this must answer; the run knows none of
  it.
"""
_CATEGORIES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")),
    *((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B")),
)
"""Images below which a dataset is of this size, in the Hub's words."""


@dataclass(frozen=True, slots=True)
class CardCounts:
    """What a card tells of an output.

    images    rows, with those of `failures`, which counts images that have no masks, by status
    size      bytes of all parts
    """

    images: int
    masks: int
    parts: int
    size: int
    failures: Mapping[str, int]


def put_card(out: str, store: Store, counts: CardCounts) -> None:
    """Of a run that is about to be published; does nothing if there is a README.md, or the output is no Parquet."""
    plan = load_plan(out, store=store)
    if plan is None:
        raise ContractError(f"{plan_uri(out)} is gone while its run is published")
    if plan.settings.format is Format.PARQUET:
        store.put_if_absent(card_uri(out), card(plan, counts))


def drop_unedited_card(out: str, store: Store) -> None:
    """Of a run that is no longer finished: its numbers may change. A card that somebody has edited stays."""
    with suppress(NotFoundError):
        data = store.read(card_uri(out))
        if data == _sealed(data[: data.rfind(_SEAL)]):
            store.delete(card_uri(out))


def _sealed(text: bytes) -> bytes:
    return text + _SEAL + hashlib.sha256(text).hexdigest().encode() + b" -->\n"


def card(plan: Plan, counts: CardCounts) -> bytes:
    settings = plan.settings
    about = {"model": settings.model_name}
    if settings.model_family:
        about |= {"family": settings.model_family, "names in the checkpoint": settings.checkpoint_layout}
    about |= {"weights, sha256": settings.weights_sha256}
    if settings.checkpoint_notes:
        about |= {"left out of the checkpoint": "; ".join(settings.checkpoint_notes)}
    about |= {"encoder's precision": str(settings.precision)}
    about |= {name: str(value) for name, value in settings.named().items() if name.startswith("recipe.")}
    failed = ", ".join(f"{count:,} {status}" for status, count in counts.failures.items())
    of_failed = f"Images that failed: {failed}. They have rows, with `status` and `error`."
    text = _CARD.format(
        masks=counts.masks,
        images=counts.images,
        parts=counts.parts,
        size=counts.size,
        category=next((name for below, name in _CATEGORIES if counts.images < below), "1B<n<10B"),
        version=__version__,
        failures=of_failed if failed else "No image failed.",
        settings="\n".join(f"| {name} | `{printable(value)}` |" for name, value in about.items()),
    )
    return _sealed(text.encode())
