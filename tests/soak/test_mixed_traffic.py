"""Five minutes of everything at once: no answer is wrong, and nothing is left behind."""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from simulator.model import Model
from simulator.pod import Engine
from tests.e2e.crowd import descriptors, processes_of, resident_bytes, threads, workers
from tests.e2e.place import Place, place
from tests.harness import wait_for
from tests.soak.mix import DIED_TWICE, LEFT, RIGHT, TRUNCATED, UNKNOWN, Mix

MINUTES = 5
#: Seconds that a fault of the API server lasts.
FAULT_SECONDS = 1.0
FAULTS = ("refuse", "hang", "401", "403", "429", "500", "503", "garbage", "truncated", "410")
#: Idle connections to pods are closed after 30 s.
PATIENCE = 60.0


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("mixed"), grace_seconds="30") as here:
        yield here


@dataclass(frozen=True)
class Held:
    """What the processes of a gateway hold, its memory aside."""

    processes: int
    descriptors: int
    threads: int

    @classmethod
    def by(cls, here: Place) -> "Held":
        pids = processes_of(here.gateway)
        return cls(len(pids), sum(map(descriptors, pids)), sum(map(threads, pids)))

    def is_all_of(self, other: "Held") -> bool:
        """Whether this is no more than `other`, but for what is made when it is first needed."""
        return (
            self.processes == other.processes
            and self.descriptors <= other.descriptors + 8
            and self.threads <= other.threads + 2
        )


def disturbances(
    here: Place, models: list[Model], *, reloads: bool
) -> Iterator[Callable[[], None]]:
    """Without an end: what happens to pods, to the API server and to the gateway, one by one."""
    rng = random.Random(5)
    cluster, api = here.cluster, here.cluster.api

    def update(*, dies: bool) -> None:
        # One that has died is gone for longer than an answer takes: few requests die twice.
        loading = 0.6 if dies else 0.1
        model = rng.choice(models)
        cluster.rolling_update(model, order="random", gap=0.1, load_seconds=loading, dies=dies)

    def update_while_away(fault: str) -> None:
        api.fault(fault)
        update(dies=False)
        time.sleep(FAULT_SECONDS)
        api.heal()

    def crash() -> None:
        """A pod dies; the API server says so a little later, and another comes."""
        model = rng.choice(models)
        pod = rng.choice(model.pods)
        pod.crash(notice=0.2)
        model.add_pod()
        time.sleep(0.5)
        pod.remove()

    def scale() -> None:
        model = rng.choice(models)
        count = len(model.pods)
        model.scale(count + 2)
        model.scale(count)

    def forget() -> None:
        """The API server forgets the past, and its watches break."""
        api.compact()
        api.fault("break-watch")

    def freeze() -> None:
        api.fault("freeze-watch")
        update(dies=False)
        api.heal()

    def reload() -> None:
        """The server reloads: new workers, and the old ones end when they have finished."""
        before = set(workers(here.gateway))
        os.kill(here.gateway.process.pid, signal.SIGHUP)
        wait_for(lambda: set(workers(here.gateway)) - before, "a new worker is there")

    for fault in itertools.cycle(FAULTS):
        yield lambda: update(dies=False)
        yield crash
        yield lambda fault=fault: update_while_away(fault)  # type: ignore[misc]
        yield scale
        yield lambda: update(dies=True)
        yield forget
        yield freeze
        if reloads:
            yield reload


def disturb_for(here: Place, models: list[Model], seconds: float, *, reloads: bool) -> Mix:
    """Traffic and disturbances for so long; every answer is one that the rules allow."""
    begun = time.monotonic()
    with Mix(here.gateway, [model.name for model in models]) as mix:
        for disturb in disturbances(here, models, reloads=reloads):
            if mix.wrong or time.monotonic() > begun + seconds:
                break
            disturb()
    assert mix.wrong == []
    here.wait_until_idle()
    return mix


@pytest.mark.fault(1, 12, 19, 22)
def test_minutes_of_everything_at_once_give_no_wrong_answer_and_leave_nothing_behind(
    here: Place, minute: float, record_property: Callable[[str, object], None]
) -> None:
    engine = Engine(token_seconds=0.01)
    models = [here.deploy("llama", pods=5, engine=engine), here.deploy("qwen", pods=3)]
    fresh = Held.by(here)
    # A reload begins with new memory, so there are none once it has been measured.
    first = disturb_for(here, models, minute, reloads=True)
    memory = resident_bytes(here.gateway)
    then = disturb_for(here, models, (MINUTES - 1) * minute, reloads=False)
    wait_for(lambda: Held.by(here).is_all_of(fresh), "all is given back", PATIENCE)
    grown = resident_bytes(here.gateway) - memory

    seen = first.seen + then.seen
    asked = seen.total() - seen[LEFT] - seen[UNKNOWN]
    record_property("answers", ", ".join(f"{n} {what}" for what, n in seen.most_common()))
    record_property("held at first, and at last", f"{fresh}, {Held.by(here)}")
    record_property("memory before and grown", f"{memory >> 10} kB, {grown >> 10} kB")
    assert seen[RIGHT] > 0.7 * asked
    assert seen[TRUNCATED] > 0, "no pod died in the middle: this test has lost its point"
    assert seen[DIED_TWICE] < 0.005 * asked
    assert grown < 0.1 * memory
    for model in models:
        here.wait_for_states(model.name, {pod.name: "ready" for pod in model.pods})
        assert here.gateway.chat(model.name, body={"max_tokens": 1}).status_code == 200
