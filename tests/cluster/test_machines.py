"""Which machines are avoided, and which are not."""

from __future__ import annotations

import pytest

from pipeline.cluster.machines import DEATHS, FAILED_STARTS, MANY, PROOFS, STORM_LEAST, STORM_S, Machines
from pipeline.records import Attempt, Chunk

BOTH = ("a", "b")


def at(*numbers: int) -> list[Attempt]:
    return [Attempt(Chunk("chunk", number, start=number, stop=number + 1)) for number in numbers]


def refused(machines: Machines, node: str, number: int, at_hand: tuple[str, ...] = BOTH) -> bool:
    return machines.note_refused(node, at(number)[0], at_hand)


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
    deaths = [machines.note_death("a", at(number)) for number in range(DEATHS)]
    assert deaths == [False] * (DEATHS - 1) + [True]
    machines.note_finished("a", "chunk-00008")
    assert not machines.note_death("a", at(9))


@pytest.mark.parametrize("neighbours", [True, False])
def test_one_chunk_that_kills_wherever_it_is_says_nothing_of_the_machine(*, neighbours: bool):
    """A poisonous image is the ledger's business, whoever was with it."""
    machines = Machines()
    for number in range(3 * DEATHS):
        assert not machines.note_death("a", at(1000, *([number] if neighbours else [])))


def test_what_others_do_and_a_machine_does_not_is_the_machines():
    """Three times in a row, and what failed at the same moment is one time."""
    machines = Machines()
    said: list[str] = []
    for proof in range(PROOFS):
        assert refused(machines, "a", 2 * proof)
        assert refused(machines, "a", 2 * proof + 1)
        assert machines.idle(BOTH) == {"a"}, "it would draw the whole queue"
        said.append(machines.note_finished("b", f"chunk-{2 * proof:05d}"))
        assert machines.note_finished("b", f"chunk-{2 * proof + 1:05d}") == ""
        assert machines.idle(BOTH) == set()
    assert said == [""] * (PROOFS - 1) + ["a"]
    assert [attempt.chunk.index for attempt in machines.take_failed("a")] == list(range(2 * PROOFS))
    assert machines.take_failed("a") == []


def test_a_chunk_that_fails_on_two_machines_is_charged_and_neither_is_accused():
    """An object that may not be read is refused wherever one asks for it."""
    machines = Machines()
    three = (*BOTH, "c")
    assert refused(machines, "a", 1, three)
    assert not refused(machines, "b", 1, three)
    assert not refused(machines, "c", 1, three)
    assert machines.idle(three) == set()
    for number in range(10):
        assert machines.note_finished("b", f"chunk-{number:05d}") == ""


def test_a_machine_that_finishes_a_chunk_is_cleared():
    """One chunk in a thousand is refused at it; that makes three after a week."""
    machines = Machines()
    for number in range(0, 4 * PROOFS, 2):
        assert refused(machines, "a", number)
        assert machines.note_finished("b", f"chunk-{number:05d}") == ""
        assert machines.note_finished("a", f"chunk-{number + 1:05d}") == ""


def test_a_machine_without_another_one_is_charged_at_once():
    """Nobody else can tell whose fault it is; waiting for another machine would be waiting for ever."""
    machines = Machines()
    assert not refused(machines, "a", 1, ("a",))
    assert machines.idle(("a",)) == set()


def test_many_machines_that_fail_are_not_at_fault_if_they_are_most():
    """A thousand machines need not all be refused before the run stops; ten bad ones of a thousand do not stop it."""
    machines = Machines()
    nodes = tuple(map(str, range(2 * MANY)))
    seen: list[bool] = []
    for number, node in enumerate(nodes):
        refused(machines, node, number, nodes)
        seen.append(machines.fail_alike(nodes))
    assert seen == [False] * MANY + [True] * MANY


def test_a_chunk_that_ends_without_a_word_of_a_machine_keeps_none_idle():
    """Another driver committed it, or its source is gone."""
    machines = Machines()
    assert refused(machines, "a", 1)
    machines.forget_trials(lambda chunk_id: chunk_id == "chunk-00001")
    assert machines.idle(BOTH) == set()


def test_machines_lost_at_once_are_a_storm_and_one_chunk_that_takes_them_along_is_none():
    """Nor are those lost one after the other."""
    machines = Machines()
    seen = [machines.note_lost(str(n), [f"c{n}"], now=n * STORM_S / 10, machines=4) for n in range(STORM_LEAST)]
    assert seen == [False] * (STORM_LEAST - 1) + [True]
    for number in range(10):
        assert not Machines().note_lost("a", ["c"], now=number * STORM_S, machines=1)
    poisoned = Machines()
    for number in range(10):
        assert not poisoned.note_lost(str(number), ["poison", f"c{number}"], now=0.0, machines=10)


def test_what_failed_on_a_machine_that_is_lost_now_was_the_machines():
    """When a machine goes, its workers may go first."""
    machines = Machines()
    machines.note_death("a", at(1))
    machines.note_death("b", at(2))
    assert machines.take_failed_on_lost(["b"]) == at(1)
    assert machines.take_failed_on_lost(["b"]) == []
