"""What a strategy sees: the request it chooses for, and the load of the endpoints."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import add

from cache.endpoints import Endpoint, Key
from load.values import NOTHING, LoadSnapshot, PoolLoad
from routing.latency import Latencies


@dataclass(slots=True)
class Query:
    """What a strategy may know of a request.

    `session` names the conversation it belongs to, if any. `prompt` and `prefix`, the beginning of
    its prompt and hashes of that, are made of `body` by a strategy that needs them (`prepare`);
    after that `body` is gone.
    """

    model: str = ""
    session: str = ""
    body: bytes = field(default=b"", repr=False)
    prompt: bytes = field(default=b"", repr=False)
    prefix: tuple[int, ...] = field(default=(), repr=False)


class View:
    """The load of endpoints at the moment of one choice.

    `in_flight` are this worker's own requests by endpoint, absent where there are none; `loads`
    what engines reported; `latencies` how soon they answered. `fell_back` tells afterwards that an
    engine's report was wanted and missing.
    """

    __slots__ = ("fell_back", "in_flight", "latencies", "loads")

    def __init__(
        self,
        in_flight: Mapping[Key, int],
        loads: LoadSnapshot = NOTHING,
        latencies: Latencies | None = None,
    ) -> None:
        self.in_flight = in_flight
        self.loads = loads
        self.latencies = latencies
        self.fell_back = False

    def reports(self, endpoints: Sequence[Endpoint]) -> "Reports":
        """What is known of the engines of `endpoints`; notes whether a report is missing."""
        pool = self.loads.of(endpoints)
        if not pool.complete:
            self.fell_back = True
        return Reports(pool, self.in_flight, self.loads.gateways)


class Reports:
    """The reports of some endpoints' engines, brought up to date by what is known since.

    Each list has an item for each endpoint, in their order, and `places` says where. A report is up
    to a second old, and several gateways read the same one: each would send the next second's
    requests to the same engine. So what this worker has sent since, less what has ended, counts
    times the number of `gateways`, but no engine has fewer requests than this worker has on it. An
    endpoint whose report is missing counts by this worker's `own` requests alone, times the same.

    With eight gateways that is a guess in steps of eight, and between two steps all of them would
    choose by the same old reports. So where a choice is made, `rng` draws what the others have
    done, up to one step: without it least-busy's median was 25 % above random's where one of eight
    engines behind eight gateways is slow (bench/strategies); with it they are equal.
    """

    def __init__(self, pool: PoolLoad, in_flight: Mapping[Key, int], gateways: float) -> None:
        self.engines = pool.engines
        self.places = pool.places
        self._others = pool.others
        count = in_flight.get
        self._own = [count(key, 0) for key in pool.places]
        self._gateways = gateways

    def since(self, rng: random.Random | None = None) -> list[float]:
        """Requests more (or fewer) that each engine has since its report."""
        gateways = self._gateways
        changes = [
            gateways * (own if engine is None else own - engine.in_flight)
            for engine, own in zip(self.engines, self._own, strict=True)
        ]
        others = gateways - 1.0
        if rng is None or not others:
            return changes
        draw = rng.random
        return [change + others * draw() for change in changes]

    def busy(self, rng: random.Random | None = None) -> list[float]:
        """Requests that run or wait in each engine by now."""
        if self._gateways == 1.0:  # at least our own, because reports are taken for no less
            return list(map(add, self._others, self._own))
        now = [
            since if engine is None else engine.requests + since
            for engine, since in zip(self.engines, self.since(rng), strict=True)
        ]
        return [
            requests if requests > own else own
            for requests, own in zip(now, self._own, strict=True)
        ]

    def running(self) -> float:
        """Requests that run in an engine, on average of those that report."""
        found = [engine.running for engine in self.engines if engine is not None]
        return sum(found) / max(1, len(found))

    def per_request(self, of: Sequence[float | None]) -> float:
        """What one running request adds to a reported figure, on average.

        Engines that report nothing of it have no part: they are idle, or stuck.
        """
        total = running = 0.0
        for engine, value in zip(self.engines, of, strict=True):
            if engine is not None and value:
                total += value
                running += engine.running
        return total / max(1.0, running)
