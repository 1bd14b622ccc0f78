"""Masks of one image in Python: `from pipeline import MaskGenerator`.

The same model and the same generator as in a run, without files, cluster or settings around them. Imports neither Ray
nor Hydra nor boto3.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from model.load import CheckpointError, load_segmenter
from model.predictor import EmbeddedImage
from pipeline.api.masks import Image_HW3, Masks, OutputMode, released
from pipeline.api.prompts import prompt_of
from pipeline.api.recipes import recipe_named
from pipeline.errors import ConfigError
from pipeline.masks.arrays import Points
from pipeline.masks.points import Prompts, Region, checked_grid, grids_of
from pipeline.masks.warm_up import warm_up
from pipeline.plain_values import to_settings
from pipeline.progress import progress_on
from pipeline.settings import ModelSettings, RunSettings
from pipeline.work.device import Device
from pipeline.work.released import with_weights_here
from pipeline.work.stopwatch import Stopwatch

Image = npt.NDArray[np.uint8] | str | os.PathLike[str]
"""(H, W, 3) uint8, RGB; or the path of an image file, decoded as in a run (EXIF orientation applied)."""

AT_ONCE = 2
"""Images at work, as in a worker: while one is in the model, the masks of the other become run lengths."""


class MaskGenerator:
    """Segment Anything's masks of whole images, or of a prompt.

    model        small and tiny (bundled), vit_b, vit_l, vit_h, sam2.1_tiny, or another one of docs/models.md
    checkpoint   path of the weights, or hf://owner/name@revision/file of the Hugging Face Hub; None takes the ones
                 bundled with small and tiny, and of SAM 1 and SAM 2 the released file, once fetched into the user's
                 cache
    recipe       sam (the released generator's defaults), sa1b (as SA-1B was made) or fast
    device       auto (a GPU where there is one), cpu, cuda or cuda:N
    precision    fp32, bf16x3 or bf16, as `model.precision`
    output_mode  binary_mask, uncompressed_rle or coco_rle: the form of each mask's `segmentation`
    overrides    every number of the recipe, under the names of the released generator: points_per_side=16, ...; and in
                 place of points_per_side, point_grids=[...]: (points, 2) arrays of x and y in [0, 1], one a crop layer
    raises       ConfigError for an unknown name, a wrong value or weights that cannot be used

    A run uses one CPU thread of torch a worker; sums, and so the last bits of scores, depend on that number. Nothing of
    torch is set here: `torch.set_num_threads(1)` gives a run's bytes.
    One object may be used by several threads, but for `set_image` and `predict`.
    """

    def __init__(
        self,
        model: str = "small",
        checkpoint: str | os.PathLike[str] | None = None,
        recipe: str = "sam",
        device: str = "auto",
        precision: str = "fp32",
        output_mode: str = "binary_mask",
        **overrides: Any,
    ) -> None:
        path = None if checkpoint is None else os.fspath(checkpoint)
        values = {"name": model, "checkpoint": path, "device": device, "precision": precision}
        settings = to_settings(ModelSettings, values)
        if output_mode not in list(OutputMode):
            raise ConfigError(f"output_mode={output_mode} must be one of {', '.join(OutputMode)}")
        self.output_mode = OutputMode(output_mode)
        grids = _grids(overrides)
        self.recipe = recipe_named(recipe, model=model, overrides=overrides)
        self._prompts = Prompts(grids)
        grids_of(self.recipe, self._prompts)
        self._segmenter = _loaded(settings)
        self._device = Device(self._segmenter, self.recipe)
        self._embedded: EmbeddedImage | None = None
        warm_up()

    def generate(self, image: Image, *, roi: npt.ArrayLike | None = None) -> Masks:
        """What `SamAutomaticMaskGenerator.generate` of segment_anything 1.0 returns (with a SAM 2, what that of sam2
        does), and for an image without masks an empty list.

        roi     (H, W), of the image's size: points on its pixels that are 0 or False are not prompted
        raises  ConfigError if the image or its roi is none; DeviceError if one point of one crop does not fit the
                memory
        """
        image_HW3 = _pixels(image)
        prompts = self._prompts if roi is None else replace(self._prompts, region_HW=_region(roi, image_HW3))
        return released(self._device.generate(image_HW3, Stopwatch(), prompts), image_HW3, self.output_mode)

    def generate_many(self, images: Iterable[Image]) -> Iterator[Masks]:
        """As `generate`, image by image in their order, two of them at work at a time.

        Images are taken from the iterable as they are needed, so that it may be endless: at most three are held beside
        the result that was handed out last. An image that fails raises in its place, and ends the iteration.
        """
        waiting: deque[Future[Masks]] = deque()
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="masks") as pool:
            try:
                for image in images:
                    waiting.append(pool.submit(self.generate, image))
                    if len(waiting) > AT_ONCE:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def set_image(self, image: Image) -> None:
        """Encode the image that the next calls of `predict` ask about. Raises ConfigError if it is none."""
        self._embedded = EmbeddedImage(self._segmenter, _pixels(image))

    def predict(
        self,
        points: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        multimask: bool = True,  # noqa: FBT001, FBT002  # its place among the released predictor's arguments
        return_logits: bool = False,  # noqa: FBT001, FBT002
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """What `SamPredictor.predict` of segment_anything 1.0 returns (with a SAM 2, what that of sam2 does), for the
        image of `set_image`.

        points         (K, 2): x, y in pixels of the image
        labels         (K,): 1 inside the object, 0 outside of it; needed with points
        box            (4,): XYXY in pixels of the image
        mask           (1, h, w) low-resolution logits, as an earlier call returned them
        multimask      three masks for a prompt that may mean several things, or one
        return_logits  the first result is float32, and above 0 inside the mask
        returns        masks (M, H, W) bool, predicted IoU (M,), low-resolution logits (M, h, w)
        raises         ConfigError if no image is set or a prompt has another shape
        """
        if self._embedded is None:
            raise ConfigError("no image is set: call set_image(image) before predict")
        prompt = prompt_of(points, labels, box, mask, mask_side=self._embedded.mask_side)
        answer = self._embedded.answer(prompt, multimask=multimask)
        logits_MHW = answer.logits_MHW if return_logits else answer.logits_MHW > 0
        return logits_MHW.cpu().numpy(), answer.predicted_iou_M.cpu().numpy(), answer.logits_Mhw.cpu().numpy()


def _loaded(settings: ModelSettings) -> Any:
    settings = with_weights_here(settings, progress_on(sys.stderr))
    try:
        checkpoint = None if settings.checkpoint is None else Path(settings.checkpoint).read_bytes()
        return load_segmenter(
            name=settings.name, checkpoint=checkpoint, device=settings.device, precision=settings.precision
        )
    except OSError as error:
        raise ConfigError(f"checkpoint={settings.checkpoint} cannot be read as a file: {error.strerror}") from error
    except CheckpointError as error:
        raise ConfigError(str(error)) from error


def _pixels(image: object) -> Image_HW3:
    """raises  ConfigError"""
    if isinstance(image, str | os.PathLike):
        return _decoded(Path(cast("str | os.PathLike[str]", image)))
    if not isinstance(image, np.ndarray):
        raise ConfigError(f"an image is an RGB array (H, W, 3) uint8 or a path, not a {type(image).__name__}")
    array = cast("npt.NDArray[Any]", image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise ConfigError(
            f"an image is an RGB array (H, W, 3) uint8, not {_shape(array.shape)} {array.dtype}{_advice(array)}"
        )
    return array


def _grids(overrides: dict[str, Any]) -> tuple[Points, ...] | None:
    """Taken out of the overrides. As the released generator has it, points_per_side=None may stand beside them.

    raises  ConfigError
    """
    point_grids, per_side = overrides.pop("point_grids", None), overrides.get("points_per_side")
    if per_side is None:
        overrides.pop("points_per_side", None)
    if point_grids is None:
        return None
    if per_side is not None:
        raise ConfigError(f"points_per_side={per_side} and point_grids are both given; leave one out")
    return tuple(checked_grid(points, f"point_grids[{layer}]") for layer, points in enumerate(point_grids))


def _region(roi: npt.ArrayLike, image_HW3: Image_HW3) -> Region:
    """raises  ConfigError"""
    array = np.asarray(roi)
    if array.shape != image_HW3.shape[:2] or array.dtype.kind not in "biu":
        wanted, given = _shape(image_HW3.shape[:2]), f"{_shape(array.shape)} {array.dtype}"
        raise ConfigError(f"roi must be {wanted} of bool or whole numbers, as the image; it is {given}")
    return array != 0


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _advice(image: npt.NDArray[Any]) -> str:
    if image.ndim == 3 and image.shape[2] == 4:
        return "; leave out its alpha: image[..., :3]"
    if image.ndim == 2:
        return "; make three channels of one: np.stack([image] * 3, axis=-1)"
    return ""


def _decoded(path: Path) -> Image_HW3:
    # Imported here: arrays need no decoder, and a GPU machine may have none.
    from pipeline.errors import InputError
    from pipeline.storage.images import decode_image

    try:
        return decode_image(path.read_bytes(), max_pixels=RunSettings.max_pixels).rgb_HW3
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except InputError as error:
        raise ConfigError(f"{path} is no image that can be used: {error.status}, {error.reason}") from error
