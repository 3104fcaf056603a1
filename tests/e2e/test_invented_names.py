"""Tens of thousands of names that no model has: nothing is kept of any of them."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from simulator.pod import Engine
from tests.e2e.crowd import resident_bytes
from tests.e2e.place import Place, place, process_of
from tests.e2e.test_views import label_sets
from tests.wire import Wire, chat_body, exchange, post

NAMES = 20_000
CONNECTIONS = 4
#: Requests that are on their way at once on a connection.
BATCH = 100
#: Bytes by which all its processes may grow together; a kilobyte a name would be twice that.
GROWTH = 10_000_000
ANSWER = re.compile(rb"HTTP/1\.1 (\d+) ")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("invented"), watch="false", scrape_seconds="0") as here:
        here.deploy("llama", engine=Engine(tokens=1))
        yield here


def asking(number: int) -> bytes:
    """A request with an invented name, and with one of other things that clients choose freely."""
    name = f"invented-{number}"
    match number % 4:
        case 0:
            return post(chat_body(name), f"routing-strategy: {name}", close=False)
        case 1:
            return post(chat_body(name), target=f"/v1/completions?{name}", close=False)
        case 2:
            return post(chat_body(name), f"x-request-id: {name}", close=False)
        case _:
            return post(b"", target=f"/v1/models/{name}", method="GET", close=False)


def ask(port: int, numbers: range, statuses: list[bytes]) -> None:
    """Ask for each, many at a time on one connection, and note each answer's status."""
    with Wire(port) as wire:
        for first in range(numbers.start, numbers.stop, BATCH):
            batch = range(first, min(first + BATCH, numbers.stop))
            wire.send(b"".join(asking(number) for number in batch))
            seen = b""
            while seen.count(b'"code": "') < len(batch):
                data = wire.socket.recv(1 << 20)
                assert data, "the connection is kept"
                seen += data
            statuses.extend(ANSWER.findall(seen))


def ask_all(here: Place, start: int, count: int) -> Counter[bytes]:
    statuses: list[bytes] = []
    each = count // CONNECTIONS
    askers = [
        threading.Thread(
            target=ask,
            args=(here.gateway.port, range(start + n * each, start + (n + 1) * each), statuses),
        )
        for n in range(CONNECTIONS)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    return Counter(statuses)


@pytest.mark.fault(23)
def test_twenty_thousand_invented_names_grow_neither_metrics_nor_memory(
    here: Place, record_property: Callable[[str, object], None]
) -> None:
    gateway = here.gateway
    assert exchange(gateway.port, post()).status == 200
    ask_all(here, 0, 2000)  # whatever is made only once is there
    labels, memory = label_sets(gateway.get("/metrics").text), resident_bytes(gateway)

    statuses = ask_all(here, 2000, NAMES)

    assert statuses == {b"404": NAMES}
    text = gateway.get("/metrics").text
    grown = resident_bytes(gateway) - memory
    record_property("row 23: invented names, lines of /metrics, growth of memory in kB",
                    f"{NAMES}, {len(text.splitlines())}, {grown >> 10}")  # fmt: skip
    assert label_sets(text) == labels
    assert "invented" not in text
    assert grown < GROWTH
    assert "invented" not in json.dumps(gateway.status())
    assert len(process_of(here.cluster.models["llama"].pods[0]).requests) == 1
    counted = gateway.metric("gateway_errors_total", code="model_not_found")
    assert counted == NAMES + 2000
    assert exchange(gateway.port, post()).status == 200
