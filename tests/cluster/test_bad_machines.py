"""One bad machine among a thousand, all of them bad, and a fifth of them gone: the driver under a simulated clock."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.cluster.crew import CHUNKS_IN_FLIGHT
from pipeline.cluster.driver import REFUSALS_IN_A_ROW
from pipeline.cluster.journal import JournalKeeper
from pipeline.cluster.machines import DEATHS, PROOFS
from pipeline.errors import RunError
from pipeline.progress import Event
from pipeline.records import Ending
from tests.cluster.simulation import Ailment, Ref, Simulated, SimulatedRay, machines_of, simulate


def expect_all_done_and_nobody_blamed(made: Simulated) -> None:
    assert made.ending is Ending.DONE
    assert made.ledger.is_complete
    assert not made.ledger.suspects
    assert not made.ledger.given_up
    assert not +made.ledger.failures
    assert not +made.ledger.deaths
    assert not any(made.ledger.crashed.values())


@pytest.mark.parametrize(("bad", "ailment"), [(1, Ailment.REFUSED), (10, Ailment.REFUSED), (10, Ailment.BROKEN_STORE)])
def test_machines_that_fail_at_once_draw_a_few_chunks_and_not_the_queue(
    monkeypatch: pytest.MonkeyPatch, bad: int, ailment: Ailment
):
    """They are ready before all others and answer in milliseconds."""
    made = simulate(monkeypatch, machines_of(1000, ailing=bad, ailment=ailment), chunks=10_000, attempts=1)
    expect_all_done_and_nobody_blamed(made)
    assert made.lost_attempts <= bad * PROOFS * CHUNKS_IN_FLIGHT
    assert len(made.avoided) == bad
    assert {sentence.split()[1] for sentence in made.avoided} == {f"at-m{number}" for number in range(bad)}
    assert sum("is avoided from now on" in sentence for sentence in made.notes.sentences) == bad
    named = {node for event, _, node in made.notes.events if event is Event.MACHINE_AVOIDED}
    assert named == {machine.node_id for machine in made.ray.machines if machine.ailment}


def test_machines_on_which_workers_die_leave_nobody_under_suspicion(monkeypatch: pytest.MonkeyPatch):
    """The images that their workers were at would be named next."""
    made = simulate(monkeypatch, machines_of(1000, ailing=10, ailment=Ailment.DEADLY), chunks=10_000)
    expect_all_done_and_nobody_blamed(made)
    assert made.lost_attempts <= 10 * DEATHS * CHUNKS_IN_FLIGHT
    assert len(made.avoided) == 10


def test_one_of_two_machines_that_is_refused_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch):
    """It has all of the queue to itself while the other one loads its model."""
    made = simulate(monkeypatch, machines_of(2, ailing=1), chunks=40)
    expect_all_done_and_nobody_blamed(made)
    assert [sentence.split()[1] for sentence in made.avoided] == ["at-m0"]


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_machines_that_are_all_refused_end_the_run_at_once(monkeypatch: pytest.MonkeyPatch, count: int):
    """Then it is the credentials, and nothing will ever be finished."""
    with pytest.raises(RunError, match="refusals in a row with no chunk finished") as raised:
        simulate(monkeypatch, machines_of(count, ailing=count), chunks=10_000)
    assert int(str(raised.value).split()[0]) <= max(REFUSALS_IN_A_ROW, CHUNKS_IN_FLIGHT * count)


def test_workers_that_die_on_all_machines_end_the_run(monkeypatch: pytest.MonkeyPatch):
    """A driver of the device that is broken everywhere."""
    with pytest.raises(RunError, match=r"in a row with no chunk finished|image after image"):
        simulate(monkeypatch, machines_of(3, ailing=3, ailment=Ailment.DEADLY), chunks=100)


def test_a_fifth_of_all_machines_gone_within_a_minute_costs_no_chunk_an_attempt(monkeypatch: pytest.MonkeyPatch):
    """Their workers end before it is known that the machines have, twelve and more in a row."""
    machines = machines_of(1000)
    for number in range(200):
        machines[number].dies_at = 1100.0 + 60 * number / 200
    made = simulate(monkeypatch, machines, chunks=10_000)
    expect_all_done_and_nobody_blamed(made)
    assert 200 <= made.lost_attempts <= 200 * CHUNKS_IN_FLIGHT
    assert not made.avoided


def test_a_thousand_journals_are_asked_in_turns_and_one_that_is_silent_holds_up_none(monkeypatch: pytest.MonkeyPatch):
    """The driver must not spend its time on marks, nor wait for a node that is going."""
    nodes = [machine.node_id for machine in machines_of(1000)]
    ray = SimulatedRay([])
    monkeypatch.setattr("pipeline.cluster.journal.ray", ray)
    keeper = JournalKeeper()
    for node in nodes:
        ray.get(keeper.on(node).mark.remote(f"{node}#1", 7))
    keeper.on(nodes[0]).look = SimpleNamespace(remote=lambda *_: Ref())
    keys = {node: [f"{node}#1"] for node in nodes}
    seen = [len(keeper.look(keys)) for _ in range(11)]
    assert seen == [99, *range(199, 1000, 100), 999]
