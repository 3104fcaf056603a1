"""Restarts in the middle of traffic: clients come until nobody listens, and go elsewhere then."""

import signal
import threading
from collections import Counter
from itertools import cycle

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.e2e.test_restarts import read_one, whole_stream
from tests.harness import PATIENCE, GatewayProcess, wait_for
from tests.wire import RawAnswer, Wire, chat_body, post

RESTARTS = 3
#: Streams by model: how many tokens, 20 ms apart.
LENGTHS = {"brief": 5, "middle": 25, "long": 75}


class Traffic:
    """Clients of two gateways, which try the other one where nobody listens, as a Service's do.

    As with a Service, nobody is sent to one that is `starting`, and not ready yet.
    """

    def __init__(self, gateways: list[GatewayProcess]) -> None:
        self._gateways = gateways
        self.starting: GatewayProcess | None = None
        self._stopping = threading.Event()
        self.good: Counter[str] = Counter()
        self.bad: list[str] = []
        ways = [*LENGTHS, *LENGTHS, "fresh", "fresh", "kept", "kept"]
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number, way))
            for number, way in enumerate(ways)
        ]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, number: int, way: str) -> None:
        gateways = cycle(self._gateways)
        for _ in range(number % 2):
            next(gateways)
        while not self._stopping.is_set():
            gateway = next(gateways)
            if gateway is self.starting:
                continue
            try:
                wire = Wire(gateway.port)
            except ConnectionRefusedError:
                continue
            with wire:
                try:
                    wrong = self._ask(wire, way)
                except (OSError, AssertionError) as error:
                    wrong = f"{type(error).__name__}: {error}"
            if wrong:
                self.bad.append(f"{way}: {wrong}")
            self.good[way] += not wrong

    def _ask(self, wire: Wire, way: str) -> str:
        if way in LENGTHS:
            answer = wire.send(post(chat_body(way, stream=True))).read_to_the_end()
            return "" if whole_stream(answer, LENGTHS[way]) else repr(answer)
        if way == "fresh":
            return wrong_with(wire.send(post(chat_body("short"))).read_to_the_end())
        for _ in range(50):
            answer = read_one(wire.send(post(chat_body("short"), close=False)))
            if wrong_with(answer) or answer.value("connection") == "close":
                return wrong_with(answer)
        return ""


def wrong_with(answer: RawAnswer) -> str:
    good = answer.status == 200 and answer.complete and not answer.reset
    return "" if good else repr(answer)


@pytest.mark.fault(22)
@pytest.mark.parametrize("count", ["1", "2"])
def test_a_gateway_that_stops_while_traffic_still_comes_cuts_nobody_off(
    cluster: Cluster, start_gateway: GatewayFactory, count: str
) -> None:
    for name, tokens in LENGTHS.items():
        cluster.model(name, pods=2, engine=Engine(tokens=tokens, token_seconds=0.02))
    cluster.model("short", pods=2, engine=Engine(tokens=1))
    gateways = [start_gateway(workers=count).ready() for _ in range(2)]
    with Traffic(gateways) as traffic:
        for number in range(RESTARTS):
            gateway = gateways[number % 2]
            before = traffic.good.copy()
            gateway.process.send_signal(signal.SIGTERM)
            assert gateway.process.wait(PATIENCE) == 0
            traffic.starting = gateway
            gateway.start().ready()
            traffic.starting = None
            wait_for(lambda b=before: (traffic.good - b).keys() >= {"fresh"}, "it goes on")  # type: ignore[misc]
    assert traffic.bad == []
    assert traffic.good.keys() == {*LENGTHS, "fresh", "kept"}
