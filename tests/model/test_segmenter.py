"""How a crop is fitted into the model's square."""

from __future__ import annotations

import pytest

from model.preprocess import fit_into_square


@pytest.mark.parametrize(
    ("hw", "side", "fitted"),
    [
        ((1025, 2048), 1024, (513, 1024)),
        ((2048, 1027), 1024, (1024, 514)),
        ((1024, 1024), 1024, (1024, 1024)),
        ((3, 7), 1024, (439, 1024)),
        ((1, 5000), 1024, (1, 1024)),
    ],
)
def test_the_longer_side_fills_the_square_and_halves_are_rounded_up(
    hw: tuple[int, int], side: int, fitted: tuple[int, int]
) -> None:
    """As the released code does; Python's own round() would take 512.5 to 512, and every mask would move."""
    assert fit_into_square(hw, side) == fitted
