"""Background processes of a training: each has one thing of its own, and works on it until its parent ends.

Owns how they start and end. Imports no torch, so that those that only draw start in a moment.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from model.training.scenes import SceneSource

MOST_IDS = 2048
"""Ids of a scene's things are below this."""

_own: list[Any] = []
"""What this process, if it is a background process, works on."""


def background(own: object, count: int) -> list[ProcessPoolExecutor]:
    """`count` executors of one process each; `own` pickles, and is what `owned` returns there."""
    return [
        ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin, initargs=(own,))
        for _ in range(count)
    ]


def owned() -> Any:
    """See `background`."""
    return _own[0]


def drawn(index: int) -> bytes:
    """In a process that owns a SceneSource: the scene with this number, for `opened`.

    Plain bytes: torch would pass tensors as shared files, which outlive a process that is killed; an unpickled array
    would be one copy more. What is numbered from MOST_IDS on is left out.
    """
    source: SceneSource = owned()
    scene = source.scene(index)
    labels_LHW = (scene.labels_3HW * (scene.labels_3HW < MOST_IDS)).astype(np.int16)
    return b"".join(
        (np.array(scene.rgb_HW3.shape[:2], np.int32).tobytes(), scene.rgb_HW3.tobytes(), labels_LHW.tobytes())
    )


def opened(data: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
    """rgb_HW3 and labels_LHW of `drawn`, as views of its bytes."""
    height, width = np.frombuffer(data, np.int32, count=2).tolist()
    pixels, begin = 3 * height * width, 8
    rgb_HW3 = np.frombuffer(data, np.uint8, count=pixels, offset=begin).reshape(height, width, 3)
    labels_LHW = np.frombuffer(data, np.int16, offset=begin + pixels).reshape(-1, height, width)
    return rgb_HW3, labels_LHW


def _begin(own: object) -> None:
    cv2.setNumThreads(1)
    _own[:] = [own]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's process would wait for work for ever after its parent was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
