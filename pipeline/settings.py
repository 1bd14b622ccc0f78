"""Every setting of a run, with its default, its unit and its source. A run's defaults stand nowhere else.

YAML files under conf/ state only differences from these defaults. Hydra's own objects do not leave jobs/.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Format(StrEnum):
    """The file format of a part."""

    PARQUET = "parquet"
    """One row per image, with its masks nested in it."""
    COCO_RLE = "coco_rle"
    """A tar with one SA-1B annotation JSON per image."""


class CropRank(StrEnum):
    """Which of two duplicate masks from different crops is kept."""

    CROP_AREA = "crop_area"
    """The one from the smaller crop; ties in input order. The released code does this."""
    LAYER = "layer"
    """The one from the more zoomed-in layer, then the one with the higher predicted IoU, then input order. The paper
    does this (appendix B)."""


class Precision(StrEnum):
    """How matrix products are computed. Norms, sums, scores and masks are always float32."""

    FP32 = "fp32"
    """float32 throughout, with TF32 off. This gives the masks of the released generator."""
    BF16X3 = "bf16x3"
    """Each float32 of a product as the sum of two bfloat16: float32 in effect, on the tensor cores of a GPU
    (docs/gpu.md). A CPU computes fp32."""
    BF16 = "bf16"
    """The image encoder's products in bfloat16. It is faster where the hardware has them (GPUs since 2020, CPUs with
    avx512_bf16 or AMX), and it changes some masks; docs/cost.md has the numbers for both."""


class Depth(StrEnum):
    """How integers of more than 8 bits, signed integers and floats become 8 bits. docs/output.md has the table."""

    SCALE = "scale"
    """By the range of the type: a level means the same in every image. What would be nearly black is refused."""
    STRETCH = "stretch"
    """By the image's own range: its lowest value is black and its highest is white."""
    CLIP = "clip"
    """Values are 8-bit levels already: what is below 0 is black, what is above 255 is white."""


class Log(StrEnum):
    """The form of the lines that a run writes to stderr."""

    TEXT = "text"
    """A bar on a terminal; elsewhere lines with the time before them."""
    JSON = "json"
    """One JSON object a line: time, level, run, event, chunk and node where there is one, message."""


@dataclass(frozen=True)
class Recipe:
    """Every number of the mask generation. Defaults: `SamAutomaticMaskGenerator` of segment_anything 1.0."""

    points_per_side: int = 32
    """Points along one side of layer 0's grid."""
    points_per_batch: int = 64
    """Prompts decoded at once on a CPU; a GPU gets up to 1024. It changes memory and speed; masks change only by
    rounding."""
    pred_iou_thresh: float = 0.88
    """A candidate must have a predicted IoU above this (strictly); 1 at most, and 0 or less lets all pass."""
    stability_score_thresh: float = 0.95
    """A candidate must be at least this stable, in [0, 1]."""
    stability_score_offset: float = 1.0
    """Logits by which the cut-off is moved up and down to measure stability."""
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
    """Pixels: a mask whose box is this near to the crop's edge, and not this near to the image's edge, is dropped. In
    the released code this number is fixed."""
    crop_rank: CropRank = CropRank.CROP_AREA
    """Which of two duplicates from different crops is kept."""
    drop_if_largest_below: int = 0
    """Pixels: a mask whose largest component is smaller than this is dropped as a whole; 0 drops none. From the paper,
    appendix B."""
    max_area_fraction: float | None = None
    """Masks that cover this share of the image or more are dropped; null drops none. The paper: 0.95."""
    use_m2m: bool = False
    """true gives each mask back to the model with its point, and takes the refined answer and its score instead: four
    decodes of a point, three of them without shared work. An option of SAM 2's generator, under its name there."""
    point_grid: str | None = None
    """A file of points for every crop, in place of points_per_side and its divisor: .npy, .csv or .json, path or s3://.
    x and y are shares of the crop's sides. The plan keeps the hash of the points."""
    roi: str | None = None
    """A folder or s3:// prefix with a picture <name of the image>.png each: points on black pixels are not prompted."""
    nodata: tuple[int, int, int] | None = None
    """A colour, as [R,G,B] in 0..255: points on pixels of exactly this colour are not prompted."""


@dataclass(frozen=True)
class ImageSettings:
    """How the bytes of an image become pixels."""

    depth: Depth = Depth.SCALE
    """scale, stretch or clip, of images of more than 8 bits a sample. It shapes the output, so it may not change when a
    run is resumed."""


@dataclass(frozen=True)
class ModelSettings:
    """Which weights, and where they run."""

    name: str = "small"
    """small and tiny (bundled), vit_b, vit_l, vit_h, sam2.1_tiny, mobile_sam and others (docs/models.md)."""
    checkpoint: str | None = None
    """Path or s3:// URI of the weights, or hf://owner/name@revision/file of the Hugging Face Hub. null takes the ones
    bundled with `small` and `tiny`, and the released files of SAM 1 and SAM 2. A run on one machine fetches these and
    the Hub's; the other models have none."""
    device: str = "auto"
    """auto (cuda if there is one), cpu or cuda. The same run gives the same bytes on every machine of one device class.
    Another device class rounds float sums differently."""
    precision: Precision = Precision.FP32
    """fp32, bf16x3 or bf16. It shapes the output, so it may not change when a run is resumed."""


@dataclass(frozen=True)
class StoreSettings:
    """How object stores are reached. Credentials come from boto3's standard chain and never from here."""

    endpoint_url: str | None = None
    """For MinIO, R2, Ceph and others, without a user, a password or a query; null is AWS."""
    region: str | None = None
    """null leaves it to the environment."""
    anonymous: bool = False
    """Requests are sent unsigned, as public buckets take them; those to the bucket of a run's out= stay signed."""
    requester_pays: bool = False
    """Requests say that whoever asks pays for them, without which a requester-pays bucket refuses."""
    retry_deadline_s: float = 900.0
    """Seconds for which a failing request is tried again. After that the chunk goes back to the driver."""
    answer_timeout_s: float = 60.0
    """Seconds without a byte from the store after which a request counts as broken and is sent again."""


@dataclass(frozen=True)
class RunSettings:
    """How the work is cut into chunks and spread over workers. `images_per_chunk`, `max_pixels`, `max_bytes`,
    `mixed_lists`, `image_column` and `threads_per_worker` shape the output, so they may not change when a run is
    resumed."""

    address: str = "local"
    """Ray cluster: `local` starts one in this process, `auto` joins the one that is running."""
    images_per_chunk: int = 64
    """Largest number of images in a chunk, and so in a part. A chunk is the unit of retry and commit."""
    max_workers: int | None = None
    """Largest number of workers. null means one per GPU, or one per CPU where there is no GPU. On a cluster null asks
    for as many again (16 more at most), which wait for nodes to join."""
    threads_per_worker: int = 1
    """torch threads of a worker on the CPU. Float sums depend on it, so it is fixed and not taken from the machine."""
    max_pixels: int = 268_435_456
    """Width x height above which an image becomes a `too_large` row. The default is 16,384 squared. A worker holds at
    most six decoded images of 3 bytes a pixel each, and takes 32 bytes a pixel in all (measured; docs/cluster.md)."""
    max_bytes: int = 4 * 2**30
    """Bytes of an image file above which it becomes a `too_large` row, and is not read. The default is 4 GiB. A worker
    holds the bytes of two files at most, one of each of its chunks."""
    mixed_lists: bool = False
    """Whether a list in an object store may name files, and a list on disk objects in stores. false makes such lines
    rows without masks, whose objects nobody touches. It stands here because `source` is the text of a place."""
    image_column: str | None = None
    """The column of Parquet files that holds the images. null finds it: the one with bytes, or of several the one that
    is called image, img, jpg, jpeg, png or webp."""
    max_failed_fraction: float = 0.01
    """Share of images that may fail before the run exits with 3."""
    chunk_attempts: int = 5
    """How often a chunk may fail before it is given up for this run. Two kinds of failure do not count: the loss of a
    machine, and a careful attempt that ends at one image (that image may become a `crashed` row)."""
    retry_failed: bool = False
    """true tries the images of failed rows once more, in a finished run or an unfinished one. Parts without failed
    rows, and the rows of the other images, stay as they are."""
    allow_other_versions: bool = False
    """true resumes a run that was planned with other versions of Maskmill or its packages. Which ones worked on it is
    recorded in OUT and in every part."""
    image_timeout_s: float = 3600.0
    """Seconds at the same image after which the worker counts as hung and is replaced."""
    grace_s: float = 30.0
    """Seconds that chunks in flight have to finish after SIGTERM or SIGINT, and at `deadline_s`."""
    deadline_s: float | None = None
    """Seconds after which the workers are stopped as by a signal; the same command goes on later. null is no limit."""
    stop_after_failed_fraction: float | None = None
    """Share of failed images, among those that this command has done, above which it stops; judged from the 100th
    image on. The same command goes on. null never stops for it."""
    dry: bool = False
    """true plans, tries `dry_images` images on the workers at hand, and tells what the whole would take. Only the plan
    is written, and the same command without it goes on from there."""
    dry_images: int = 64
    """Images that a dry run tries, spread over all that are left to do."""
    price_per_hour: float | None = None
    """What one device costs an hour: a GPU, or the CPU cores of one worker. A dry run tells the price of the whole."""
    log: Log = Log.TEXT
    """text or json: the form of the lines on stderr."""


@dataclass(frozen=True)
class Settings:
    """One run."""

    source: str = ""
    """What SHARD= names: folder or prefix, .tar(.gz), .zip, .parquet, .txt/.jsonl list. Commas and globs name more."""
    out: str = ""
    """Folder or s3:// prefix that the dataset is written to."""
    format: Format = Format.PARQUET
    recipe: Recipe = field(default_factory=Recipe)
    image: ImageSettings = field(default_factory=ImageSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    run: RunSettings = field(default_factory=RunSettings)


@dataclass(frozen=True)
class SubmitSettings:
    """How a job reaches a cluster."""

    address: str = "http://127.0.0.1:8265"
    """The jobs API of the cluster's head; Ray's dashboard serves it, on this port by default."""
    follow: bool = True
    """true shows the job's log until the job ends, and exits with the job's code. false only hands the job over."""


@dataclass(frozen=True)
class SubmitJob(Settings):
    """One run on a cluster that this machine does not belong to."""

    submit: SubmitSettings = field(default_factory=SubmitSettings)
