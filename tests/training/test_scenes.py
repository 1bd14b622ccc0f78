"""Drawn scenes: the same on every call, nested, complete."""

from __future__ import annotations

import io
import tarfile
from functools import cache

import cv2
import numpy as np
import pytest

from jobs.draw_sample import FIRST_SCENE, IMAGES, SHARD, sample_shard
from model.training.scenes import PART, SUBPART, WHOLE, Scene, draw_scene


@cache
def twelve_scenes() -> list[Scene]:
    """Read only. Drawn where they are asked for, and not wherever tests are collected."""
    return [draw_scene(3, index, size_hw=(200, 260)) for index in range(12)]


def test_a_scene_depends_on_its_number_alone() -> None:
    """A training is resumed by numbers; nothing drawn before may leak into a scene."""
    again = draw_scene(3, 7, size_hw=(200, 260))
    assert np.array_equal(again.rgb_HW3, twelve_scenes()[7].rgb_HW3)
    assert np.array_equal(again.labels_3HW, twelve_scenes()[7].labels_3HW)


def test_scenes_differ_by_index_and_by_seed() -> None:
    """Otherwise the held-out scenes could be those trained on."""
    other = draw_scene(4, 7, size_hw=(200, 260))
    assert not np.array_equal(other.rgb_HW3, twelve_scenes()[7].rgb_HW3)
    assert not np.array_equal(twelve_scenes()[6].rgb_HW3, twelve_scenes()[7].rgb_HW3)


def test_every_pixel_belongs_to_a_whole() -> None:
    """The generator's grid lands on backgrounds too; a point without a truth teaches nothing."""
    for scene in twelve_scenes():
        assert (scene.labels_3HW[WHOLE] > 0).all()


@pytest.mark.parametrize(("inner", "outer"), [(PART, WHOLE), (SUBPART, PART)])
def test_what_is_visible_of_a_part_lies_in_one_thing_of_the_coarser_level(inner: int, outer: int) -> None:
    """Nested truth is what makes the three outputs of a point learn whole, part and subpart."""
    seen = 0
    for scene in twelve_scenes():
        for part in np.unique(scene.labels_3HW[inner]):
            if part == 0:
                continue
            holders = np.unique(scene.labels_3HW[outer][scene.labels_3HW[inner] == part])
            assert len(holders) == 1
            assert holders[0] != 0
            seen += 1
    assert seen > 10


def test_the_bundled_shard_is_what_its_script_draws() -> None:
    """A sample that nobody can make again is a binary blob. Pixels are compared: JPEG bytes depend on the encoder."""
    assert SHARD.stat().st_size < 1_000_000
    with tarfile.open(SHARD) as shard:
        names = shard.getnames()
        first = shard.extractfile(names[0])
        assert first is not None
        stored_HW3 = cv2.imdecode(np.frombuffer(first.read(), np.uint8), cv2.IMREAD_COLOR)
    assert stored_HW3 is not None
    assert names == [f"sa_{number + 1}.jpg" for number in range(IMAGES)]
    drawn_hw3 = draw_scene(0, FIRST_SCENE, size_hw=(480, 640)).rgb_HW3
    assert np.abs(stored_HW3[..., ::-1].astype(int) - drawn_hw3).mean() < 6


def test_the_shard_has_the_same_bytes_on_every_call() -> None:
    """Times and owners in tar headers would make the file change without reason."""
    one = sample_shard(images=1)
    assert one == sample_shard(images=1)
    with tarfile.open(fileobj=io.BytesIO(one)) as shard:
        assert shard.getmembers()[0].mtime == 0
