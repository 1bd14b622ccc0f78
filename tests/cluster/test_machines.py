"""Which machines are avoided, and which are not."""

from __future__ import annotations

import pytest

from pipeline.cluster.machines import DEATHS, FAILED_STARTS, Machines


def test_starts_that_fail_one_after_the_other_are_the_machines():
    """One that starts in between shows that the machine can."""
    machines = Machines()
    assert [machines.note_failed_start("a") for _ in range(FAILED_STARTS - 1)] == [False] * (FAILED_STARTS - 1)
    machines.note_started("a")
    assert [machines.note_failed_start("a") for _ in range(FAILED_STARTS)] == [False] * (FAILED_STARTS - 1) + [True]
    assert not machines.note_failed_start("b")


def test_deaths_with_ever_other_chunks_are_the_machines():
    """A finished chunk in between, and it was something else."""
    machines = Machines()
    deaths = [machines.note_death("a", [f"chunk-{number}"]) for number in range(DEATHS)]
    assert deaths == [False] * (DEATHS - 1) + [True]
    machines.note_finished("a")
    assert not machines.note_death("a", ["chunk-9"])


@pytest.mark.parametrize("neighbours", [True, False])
def test_one_chunk_that_kills_wherever_it_is_says_nothing_of_the_machine(*, neighbours: bool):
    """A poisonous image is the ledger's business, whoever was with it."""
    machines = Machines()
    for number in range(3 * DEATHS):
        assert not machines.note_death("a", ["poison", *([f"chunk-{number}"] if neighbours else [])])
