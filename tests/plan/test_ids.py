"""Image and annotation ids."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.plan.ids import annotation_stride, candidates_per_image, id_base, shared_numbers
from pipeline.settings import Recipe
from pipeline.storage.kinds import sa_number
from pipeline.storage.members import FoundMember, IndexBuilder, read_members, without_numbers


def ids_of(keys: list[str]) -> list[int]:
    builder = IndexBuilder()
    for key in keys:
        builder.add(FoundMember(key, "", 0, 1, ""))
    (piece,) = builder.finish()
    numbers = [piece.numbers_N]
    piece = without_numbers(piece, shared_numbers(numbers))
    return [member.image_id for member in read_members(piece.data, id_base=id_base(numbers))]


def test_foreign_names_are_numbered_by_ordinal():
    """A run without sa_ names has the ids that a reader would guess."""
    assert ids_of(["b.jpg", "a.png", "sa_.jpg", "usa_3.jpg"]) == [0, 1, 2, 3]


def test_sa_names_keep_their_number_in_any_folder_and_with_any_extension():
    """Masks of SA-1B images must join with SA-1B's own ids."""
    assert ids_of(["sa_223750.jpg", "x/sa_7.png", "sa_0.webp"]) == [223750, 7, 0]


def test_other_names_are_numbered_above_the_largest_sa_number():
    """The two groups of ids can never meet."""
    assert ids_of(["sa_10.jpg", "photo.jpg", "sa_3.jpg"]) == [10, 12, 3]


@pytest.mark.parametrize("twin", ["sa_5.jpg", "other/sa_5.png", "sa_005.jpg"])
def test_a_number_that_occurs_twice_belongs_to_nobody(twin: str):
    """Duplicate keys exist in real tars; ids stay unique."""
    ids = ids_of(["sa_5.jpg", "sa_2.jpg", twin])
    assert ids == [6, 2, 8]


def test_numbers_are_shared_across_arrays_and_the_base_is_above_them_all():
    """The same tar twice, in other places of the source."""
    numbers = [np.array([5, 2]), np.zeros(0, np.int64), np.array([9, 5, 5])]
    assert shared_numbers(numbers).tolist() == [5]
    assert id_base(numbers) == 10
    assert shared_numbers([]).tolist() == []
    assert id_base([]) == 0


def test_numbers_too_large_for_exact_floats_are_foreign_names():
    """JSON readers with float64 numbers would merge neighbours above 2^53."""
    assert sa_number("sa_4503599627370495.jpg") == 4503599627370495
    assert sa_number("sa_4503599627370496.jpg") is None
    assert sa_number("sa_99999999999999999999.jpg") is None


def test_digits_of_other_scripts_are_no_numbers():
    """int() would accept them, SA-1B's readers would not."""
    assert sa_number("sa_٣.jpg") is None


def test_stride_covers_every_candidate_of_every_crop():
    """1 x 32^2, 4 x 16^2 and 16 x 8^2 points with three masks each."""
    recipe = Recipe(crop_n_layers=2, crop_n_points_downscale_factor=2)
    assert candidates_per_image(recipe) == (1024 + 4 * 256 + 16 * 64) * 3
    assert annotation_stride(recipe, images=1) == 16384


def test_a_run_whose_annotation_ids_would_pass_2_to_53_is_refused():
    """Before anything is planned, with the way out."""
    with pytest.raises(ConfigError, match="split the source"):
        annotation_stride(Recipe(), images=2**42)


def test_the_last_annotation_id_of_the_largest_run_is_the_last_whole_number_that_a_float_holds():
    """Of 4096 ids an image the last image's last id is images x 4096, and 2^53 itself is where neighbours merge."""
    assert annotation_stride(Recipe(), images=2**41 - 1) == 2**12
    with pytest.raises(ConfigError, match="beyond 2\\^53"):
        annotation_stride(Recipe(), images=2**41)
