"""Workers that are asked for: as many as there is room and memory for, and none where none can come."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError

from pipeline.cluster.capacity import Capacity, machine_is_lost
from pipeline.cluster.crew import Crew, WorkerKind
from pipeline.cluster.worker import worker_actor
from pipeline.errors import ConfigError, RunError
from pipeline.progress import Standing
from pipeline.records import Attempt, Chunk, Ending
from pipeline.run.outcome import Outcome
from pipeline.run.session import run_settings
from pipeline.settings import ModelSettings, RunSettings, Settings
from pipeline.signals import StopFlag
from pipeline.storage.store import Store
from tests.cluster.driving import drive
from tests.cluster.light import on_fire, refuse
from tests.fakes_run import Notes, fake_weights
from tests.small_runs import run, with_run


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("address", "max_workers"), [("local", None), ("local", 2), ("auto", None)], ids=["local", "local, two", "cluster"]
)
def test_a_gpu_that_cannot_come_is_refused(settings: Settings, address: str, max_workers: int | None):
    """An actor that asks for a GPU where there is none waits for ever, without a word."""
    settings = replace(with_run(settings, address=address, max_workers=max_workers), model=ModelSettings(device="cuda"))
    with pytest.raises(ConfigError, match=r"model\.device=cuda, but Ray sees no GPU"):
        run(settings)


@pytest.mark.usefixtures("cluster")
def test_a_gpu_that_an_autoscaler_may_bring_is_waited_for(settings: Settings):
    """On a cluster that starts empty, pending workers are what makes it grow."""
    settings = replace(with_run(settings, address="auto", max_workers=2), model=ModelSettings(device="cuda"))
    assert stopped_while_it_shows(settings).ending is Ending.STOPPED


def stopped_while_it_shows(settings: Settings) -> Outcome:
    """A run that is told to stop when it first shows how far it is."""
    stop = StopFlag()

    class Stopping(Notes):
        def show(self, standing: Standing) -> None:
            stop(signal.SIGTERM, None)

    return run_settings(settings, progress=Stopping(), find_weights=fake_weights, stop=stop)


@pytest.mark.usefixtures("cluster")
def test_a_cluster_is_asked_for_more_than_it_has_and_a_single_machine_is_not():
    """Where nodes may come on demand, workers without room are that demand, though no number of them is set."""
    assert Capacity(RunSettings(address="local"), device="cpu").worth_asking_for(()) == 4
    assert Capacity(RunSettings(address="auto"), device="cpu").worth_asking_for(()) == 8


@pytest.mark.parametrize(("gpus", "asked_for"), [(8, 16), (40, 56)])
def test_a_large_cluster_is_asked_for_some_more_and_not_for_twice_itself(
    monkeypatch: pytest.MonkeyPatch, gpus: int, asked_for: int
):
    """Where no node ever joins, each that waits is an actor that Ray keeps for nothing."""
    nodes = [{"Alive": True, "NodeID": str(number), "Resources": {"GPU": 4.0}} for number in range(gpus // 4)]
    gone = {"Alive": False, "NodeID": "gone", "Resources": {"GPU": 4.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, gone])
    assert Capacity(RunSettings(address="auto"), device="cuda").worth_asking_for(()) == asked_for


@pytest.mark.usefixtures("cluster")
def test_more_threads_than_any_node_has_are_refused(settings: Settings):
    """The same silent wait, for CPUs."""
    with pytest.raises(ConfigError, match=r"run\.threads_per_worker=64, but no node has that many CPUs"):
        run(with_run(settings, threads_per_worker=64))


@pytest.mark.usefixtures("cluster")
def test_workers_that_cannot_start_stop_the_run_with_their_own_error(settings: Settings, store: Store):
    """Waiting for ever for workers that cannot be would be a silent hang."""
    with pytest.raises(RunError, match="the accelerator is on fire"):
        drive(settings, store, start=on_fire)


@pytest.mark.usefixtures("cluster")
def test_checkpoint_that_a_worker_refuses_is_a_configuration_error(settings: Settings, store: Store):
    """The sentence of the loader reaches the user unwrapped, at the first worker."""
    with pytest.raises(ConfigError, match=r"^the checkpoint is not a vit_b: 3 keys differ$"):
        drive(settings, store, start=refuse)


@pytest.fixture
def crew(cluster: str) -> Iterator[tuple[Crew, list[str]]]:
    """Asked for three workers that wait for more CPUs than there are, so that none costs a process; what it says."""
    said: list[str] = []
    del cluster  # for the Ray session
    settings = RunSettings(address="auto", max_workers=3, threads_per_worker=64)
    crew = Crew(
        WorkerKind(worker_actor, spec=None, device="cpu"),
        settings,
        say=lambda sentence, *_event, **_where: said.append(sentence),
    )
    crew.fit_to(9)
    yield crew, said
    crew.dismiss_all()


def test_workers_are_asked_for_as_there_is_work_and_let_go_when_there_is_less(crew: tuple[Crew, list[str]]):
    """A GPU that waits for the last chunk of somebody else is a GPU that is paid for."""
    workers, _ = crew
    numbers: list[int] = []
    for work in (9, 2, 1, 3, 0):
        workers.fit_to(work)
        numbers.append(len(workers.slots))
    assert numbers == [3, 2, 1, 3, 0]


def test_those_that_are_not_ready_yet_are_let_go_first(crew: tuple[Crew, list[str]]):
    """A model that is loaded has cost a minute of a GPU."""
    workers, _ = crew
    ready = workers.slots[1]
    ready.ready = True
    workers.fit_to(1)
    assert workers.slots == [ready]


def test_seconds_of_workers_count_from_when_they_were_ready_and_after_they_are_gone(crew: tuple[Crew, list[str]]):
    """What the summary calls busy is a share of them."""
    workers, _ = crew
    for slot, seconds in zip(workers.slots, (100, 20, 3000), strict=True):
        slot.since = time.monotonic() - seconds
        slot.ready = seconds < 1000
    assert 120 <= workers.worked_s < 130
    workers.dismiss(workers.slots[0])
    assert 120 <= workers.worked_s < 130
    workers.dismiss_all()
    assert 120 <= workers.worked_s < 130


def test_a_worker_that_hangs_while_it_starts_is_replaced(crew: tuple[Crew, list[str]]):
    """A model that never comes from a store, or a driver that does not answer: the others must not wait for it."""
    workers, said = crew
    hung = workers.slots[0]
    hung.node = "somewhere"  # placed; those that wait for room may wait for ever
    hung.since = time.monotonic() - 3500
    workers.replace_hung_starts()
    assert said == [], "a checkpoint takes its time"
    hung.since -= 200
    workers.replace_hung_starts()
    workers.fit_to(9)
    assert len(workers.slots) == 3
    assert hung not in workers.slots
    assert said == ["a worker did not start (no node yet): it was not ready 3700 s after it was placed"]


def loses_for_memory(crew: Crew, index: int) -> None:
    """As the driver does, when Ray has killed a worker that had this chunk."""
    slot = crew.slots[0]
    crew.lose(slot)
    crew.note_out_of_memory(slot, [Attempt(Chunk(shard="a", index=index, start=0, stop=1))])
    crew.fit_to(9)


def test_each_worker_lost_for_memory_is_one_fewer_until_one_is_left(crew: tuple[Crew, list[str]]):
    """Too many for their machine would be killed again and again; and the last one may have met a large image."""
    workers, said = crew
    numbers = [len(workers.slots)]
    for number in range(3):
        loses_for_memory(workers, number)
        numbers.append(len(workers.slots))
    assert numbers == [3, 2, 1, 1]
    assert "one worker fewer from now on (2 in all); run.max_workers sets how many" in said[1]
    assert "there is but one worker: use a machine with more memory" in said[2]


def test_workers_lost_to_one_image_come_back_when_it_is_left_out(crew: tuple[Crew, list[str]]):
    """One monstrous image must not leave a machine of eight GPUs with two workers for the rest of the run."""
    workers, said = crew
    for index in (1, 2, 1):
        loses_for_memory(workers, index)
    workers.note_named("a-00003")
    workers.note_named("a-00001")
    workers.fit_to(9)
    assert len(workers.slots) == 2, "the worker that the second chunk cost stays away"
    assert said[-1] == "what took the memory is known; workers that are asked for again: 1"


@pytest.mark.usefixtures("cluster")
def test_a_machine_that_is_gone_or_out_of_reach_is_told_from_a_worker_that_died():
    """Its chunks are not blamed, and neither is it for a worker that did not start."""
    died, here = ActorDiedError(), str(ray.get_runtime_context().get_node_id())
    assert not machine_is_lost(died, here)
    assert machine_is_lost(died, "0" * len(here))
    assert machine_is_lost(ActorUnavailableError("not now", None), here)
    assert not machine_is_lost(died, ""), "it was never placed: nobody knows"
