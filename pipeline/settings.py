"""Every setting of a run, with its default, its unit and its source. The only home of a default.

YAML under conf/ states differences from what stands here; Hydra's own objects end in jobs/.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Format(StrEnum):
    """What a part is."""

    PARQUET = "parquet"
    """One row per image, masks nested in it."""
    COCO_RLE = "coco_rle"
    """A tar with one SA-1B annotation JSON per image."""


class CropRank(StrEnum):
    """Which of two duplicates from different crops stays."""

    CROP_AREA = "crop_area"
    """The one from the smaller crop; ties in input order. The released code."""
    LAYER = "layer"
    """The more zoomed-in layer, then the higher predicted IoU, then input order. The paper, appendix B."""


class Precision(StrEnum):
    """What the image encoder computes in; prompts, scores and masks are always float32."""

    FP32 = "fp32"
    """float32 throughout, TF32 off: the masks of the released generator."""
    BF16 = "bf16"
    """bfloat16 matrix products. Faster where the hardware has them (GPUs since 2020, CPUs with avx512_bf16 or AMX),
    and other masks; docs/cost.md says how much."""


@dataclass(frozen=True)
class Recipe:
    """Every number of the mask generation. Defaults: `SamAutomaticMaskGenerator` of segment_anything 1.0."""

    points_per_side: int = 32
    """Points along one side of layer 0's grid."""
    points_per_batch: int = 64
    """Prompts decoded at once; changes memory and speed, and masks by no more than rounding."""
    pred_iou_thresh: float = 0.88
    """A candidate must have a predicted IoU above this (strictly)."""
    stability_score_thresh: float = 0.95
    """A candidate must be at least this stable, in [0, 1]."""
    stability_score_offset: float = 1.0
    """Logits by which the cut-off is moved to measure stability."""
    box_nms_thresh: float = 0.7
    """Box IoU above which two masks of one crop are duplicates."""
    crop_n_layers: int = 0
    """Layers of zoomed crops beyond the full image; layer n has 2^n x 2^n."""
    crop_nms_thresh: float = 0.7
    """Box IoU above which masks of two crops are duplicates."""
    crop_overlap_ratio: float = 512 / 1500
    """Overlap of neighbouring crops as a share of the image's short side; halved with each layer."""
    crop_n_points_downscale_factor: int = 1
    """Layer n's grid has points_per_side / factor^n points a side."""
    min_mask_region_area: int = 0
    """Holes and islands smaller than this many pixels are removed; 0 leaves masks as they are."""
    crop_edge_tolerance: float = 20.0
    """Pixels: a box this near to a crop's edge, and not to the image's, is dropped. Fixed in the released code."""
    crop_rank: CropRank = CropRank.CROP_AREA
    """Which duplicate stays across crops."""
    drop_if_largest_below: int = 0
    """Pixels: a mask whose largest component is smaller is dropped whole; 0 never. Paper, appendix B."""
    max_area_fraction: float | None = None
    """Masks covering this share of the image or more are dropped; null never. Paper, appendix B: 0.95."""


@dataclass(frozen=True)
class ModelSettings:
    """Which weights, and where they run."""

    name: str = "tiny"
    """tiny (bundled), vit_b, vit_l or vit_h."""
    checkpoint: str | None = None
    """Path or s3:// URI of the weights; null takes the bundled ones, which exist for `tiny` alone."""
    device: str = "auto"
    """auto (cuda if there is one), cpu or cuda. The same run gives the same bytes on every machine of one device class;
    another class rounds float sums in another way."""
    precision: Precision = Precision.FP32
    """fp32 or bf16. Shapes the output, and may not change when a run is resumed."""


@dataclass(frozen=True)
class StoreSettings:
    """How object stores are reached. Credentials come from boto3's standard chain and never from here."""

    endpoint_url: str | None = None
    """For MinIO, R2, Ceph and others; null is AWS."""
    region: str | None = None
    """null leaves it to the environment."""
    retry_deadline_s: float = 900.0
    """Seconds for which a failing request is tried again before the chunk is given back."""
    answer_timeout_s: float = 60.0
    """Seconds without a byte from the store after which a request counts as broken and is sent again."""


@dataclass(frozen=True)
class RunSettings:
    """How the work is cut and spread. Of these `images_per_chunk`, `max_pixels` and `threads_per_worker` shape the
    output, and may not change when a run is resumed."""

    address: str = "local"
    """Ray cluster: `local` starts one in this process, `auto` joins the one that is running."""
    images_per_chunk: int = 64
    """Images of one part at most; a chunk is the unit of retry and commit."""
    max_workers: int | None = None
    """Actors at most; null is one per GPU, else one per CPU, and on a cluster as many again (16 at most) that wait for
    nodes to join."""
    threads_per_worker: int = 1
    """torch threads of a worker on the CPU. Float sums depend on it, so it is fixed, not taken from the machine."""
    max_pixels: int = 268_435_456
    """Width x height above which an image is a `too_large` row (default 16,384 squared). A worker holds six decoded
    images at most, 3 bytes a pixel, and takes 42 bytes a pixel in all (measured; docs/cluster.md)."""
    max_failed_fraction: float = 0.01
    """Share of images that may fail before the run exits with 3."""
    chunk_attempts: int = 5
    """Tries of a chunk before it is given up for this run. Careful ones that end at one image, which may then be left
    out as a `crashed` row, do not count, nor does the loss of a machine."""
    retry_failed: bool = False
    """Try the images of failed rows once more, in a finished run or an unfinished one. Parts without failed rows, and
    the rows of the other images, stay as they are."""
    image_timeout_s: float = 3600.0
    """Seconds at the same image after which its worker is taken for hung and replaced."""
    grace_s: float = 30.0
    """Seconds after SIGTERM or SIGINT for chunks in flight to finish."""


@dataclass(frozen=True)
class Settings:
    """One run."""

    source: str = ""
    """What SHARD= names: folder, s3:// prefix, .tar, .txt/.jsonl list; commas and globs name several."""
    out: str = ""
    """Folder or s3:// prefix that the dataset is written to."""
    format: Format = Format.PARQUET
    recipe: Recipe = field(default_factory=Recipe)
    model: ModelSettings = field(default_factory=ModelSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    run: RunSettings = field(default_factory=RunSettings)


@dataclass(frozen=True)
class SubmitSettings:
    """How a job reaches a cluster."""

    address: str = "http://127.0.0.1:8265"
    """The jobs API of the cluster's head; Ray's dashboard serves it, on this port by default."""
    follow: bool = True
    """Show the job's log until it ends and exit as it does; false only hands it over."""


@dataclass(frozen=True)
class SubmitJob(Settings):
    """One run, on a cluster that this machine is no part of."""

    submit: SubmitSettings = field(default_factory=SubmitSettings)
