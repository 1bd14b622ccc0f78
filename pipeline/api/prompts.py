"""A prompt as callers give it: lists or arrays of numbers, checked before they reach the model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.predictor import Prompt
from pipeline.errors import ConfigError

LABELS = (0, 1)


def prompt_of(
    points: npt.ArrayLike | None,
    labels: npt.ArrayLike | None,
    box: npt.ArrayLike | None,
    mask: npt.ArrayLike | None,
    *,
    mask_side: int,
) -> Prompt:
    """raises  ConfigError that names what has another shape, or values that mean nothing"""
    if points is None and labels is not None:
        raise ConfigError("labels are given without points")
    if points is None and box is None and mask is None:
        raise ConfigError("nothing is asked: give points with labels, a box or a mask")
    points_xy_K2 = None if points is None else _numbers("points", points, (None, 2))
    labels_K = None if points_xy_K2 is None else _labels(labels, len(points_xy_K2))
    box_xyxy = None if box is None else _numbers("box", box, (4,))
    mask_1hw = None if mask is None else _numbers("mask", mask, (1, mask_side, mask_side))
    mask_hw = None if mask_1hw is None else mask_1hw[0].astype(np.float32)
    return Prompt(points_xy_K2, labels_K, box_xyxy, mask_hw)


def _labels(labels: npt.ArrayLike | None, points: int) -> npt.NDArray[np.int64]:
    if labels is None:
        raise ConfigError("points are given without labels: one for each, 1 inside the object and 0 outside of it")
    labels_K = _numbers("labels", labels, (points,))
    if not np.isin(labels_K, LABELS).all():
        raise ConfigError(f"labels must be 1 or 0, not {', '.join(f'{label:g}' for label in np.unique(labels_K))}")
    return labels_K.astype(np.int64)


def _numbers(name: str, values: npt.ArrayLike, shape: tuple[int | None, ...]) -> npt.NDArray[np.float64]:
    """raises  ConfigError unless they are finite and of this shape, in which None is any length but 0"""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be numbers ({error})") from error
    fits = array.ndim == len(shape) and all(
        length == (wanted or length) and length for length, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("K" if length is None else str(length) for length in shape)
        raise ConfigError(f"{name} must have the shape ({wanted}), not ({', '.join(map(str, array.shape))})")
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} must be finite numbers")
    return array
