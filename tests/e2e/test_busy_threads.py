"""However busy threads and connections are, others have their turns."""

import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from simulator.pod import Engine
from tests.e2e.crowd import p99, timed
from tests.e2e.place import Place, place
from tests.wire import chat_body, post

CLIENTS = 16
GET_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n"
#: Of many turns, 200 KB in all: each object in it takes `json` two microseconds.
TURNS = [{"role": "user", "content": "hello there"}] * 4400


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("busy")) as here:
        here.deploy("quick", engine=Engine(tokens=1))
        yield here


@contextmanager
def asking(here: Place, request: bytes, clients: int, status: int) -> Iterator[Callable[[], int]]:
    """Clients that ask without a pause, and get this; how many answers there were until now."""
    over = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        while not over.is_set():
            statuses.append(here.exchange(request).status)

    askers = [threading.Thread(target=ask) for _ in range(clients)]
    for asker in askers:
        asker.start()
    try:
        yield lambda: len(statuses)
    finally:
        over.set()
        for asker in askers:
            asker.join()
    assert set(statuses) == {status}


def test_health_is_told_while_all_look_through_long_prompts(
    here: Place, record_property: Callable[[str, object], None]
) -> None:
    def probe() -> None:
        assert here.exchange(GET_HEALTH).status == 200

    with asking(here, post(chat_body("quick", messages=TURNS)), CLIENTS, 200) as answered:
        times: list[float] = []
        while answered() < 3 * CLIENTS or len(times) < 50:
            times.append(timed(probe))
    half, most = statistics.median(times), p99(times)
    record_property("health beside long prompts, p50 / p99", f"{half:.3f} / {most:.3f} s")
    assert half < 0.05


def test_a_hostile_body_of_32_mb_does_not_stop_the_others(here: Place) -> None:
    """It names no model there is, so that no pod of this process has to read it."""
    lists = b",".join([b"[]"] * 10_000_000)
    request = post(b'{"model":"nobody","x":[' + lists + b"]}")

    def probe() -> None:
        assert here.exchange(GET_HEALTH).status == 200

    with asking(here, request, 1, 404) as answered:
        times = []
        while not answered():
            times.append(timed(probe))
    assert statistics.median(times) < 0.05
    assert max(times) < 1.0
