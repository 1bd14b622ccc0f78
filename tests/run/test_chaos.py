"""A short run under fire; `make chaos` is the long one."""

from __future__ import annotations

import pytest

from tests.background import Ended


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.background("tests.chaos", name)) for name in ("short", "elastic")],
)
def test_short_chaos_loses_doubles_and_blames_nothing(name: str, ended: Ended):
    """Killed workers, a killed node, driver and journal, a poisonous image, a quarter of the S3 requests harmed; and a
    machine on which nothing starts."""
    assert ended.returncode == 0, ended.stdout
    assert f"chaos {name}" in ended.stdout
    assert "sound" in ended.stdout
