"""A hundred thousand models that nobody has."""

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.crowd import resident_bytes
from tests.e2e.place import Place, place
from tests.harness import PATIENCE, wait_for
from tests.wire import CHAT, chat_body

CLIENTS = 3


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("names")) as here:
        here.deploy("llama")
        yield here


def samples(here: Place) -> set[str]:
    """What `/metrics` has values of."""
    lines = here.gateway.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def ask_for(here: Place, names: range) -> Counter[int]:
    """Ask for each of these models once, `CLIENTS` at a time; the statuses of the answers."""
    statuses: list[int] = []

    def ask(own: range) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", here.gateway.port, timeout=PATIENCE)
        for number in own:
            # Every name is new; now and then one is long, and none is like another.
            name = f"invented-{number}" + "x" * (number % 50 == 0) * 1000
            connection.request("POST", CHAT, chat_body(name))
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()

    clients = [
        threading.Thread(target=ask, args=(names[number::CLIENTS],)) for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return Counter(statuses)


@pytest.mark.fault(23)
def test_a_hundred_thousand_invented_names_leave_nothing_behind(
    here: Place, minute: float, record_property: Callable[[str, object], None]
) -> None:
    count = int(100_000 * minute / 60)
    assert here.gateway.chat(body={"max_tokens": 1}).status_code == 200
    warm = count // 20
    assert ask_for(here, range(warm)) == {404: warm}
    # Counted now and then, whatever clients ask for.
    wait_for(lambda: here.gateway.metric("gateway_watches_total"), "a watch has ended")
    before, memory = samples(here), resident_bytes(here.gateway)
    size = len(here.gateway.get("/metrics").content)

    assert ask_for(here, range(warm, count)) == {404: count - warm}

    grown = resident_bytes(here.gateway) - memory
    after = len(here.gateway.get("/metrics").content)
    record_property("row 23: invented names", count)
    record_property("row 23: bytes of /metrics before and after", f"{size}, {after}")
    record_property("row 23: memory before and grown", f"{memory >> 10} kB, {grown >> 10} kB")
    assert samples(here) == before
    assert after < 1.05 * size, "only digits of the values that were there"
    assert grown < 0.05 * memory
    assert here.gateway.metric("gateway_errors_total", code="model_not_found") == count
    assert here.gateway.chat(body={"max_tokens": 1}).status_code == 200
