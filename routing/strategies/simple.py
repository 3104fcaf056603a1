"""Strategies: each picks one of several routable endpoints. None ever sees another kind."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cache.endpoints import Endpoint, Key

#: In-flight requests by endpoint; an endpoint without any may be absent.
Loads = Mapping[Key, int]


class Strategy(Protocol):
    """One way to choose. Called under the lock of the in-flight counts: no I/O, no waiting."""

    def pick(self, endpoints: Sequence[Endpoint], loads: Loads) -> Endpoint:
        """Choose one of `endpoints`, which are at least one, routable and sorted."""


class Random:
    """Any endpoint, each as likely as the others."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def pick(self, endpoints: Sequence[Endpoint], loads: Loads) -> Endpoint:
        """Choose without looking at load."""
        return endpoints[int(self._rng.random() * len(endpoints))]


class RoundRobin:
    """The endpoint whose last turn is the longest ago; one that never had a turn comes first.

    Turns are remembered by endpoint, not as a position in a list: models that take turns with each
    other, and endpoints that come and go, do not disturb the order.
    """

    #: Endpoints remembered at most; those whose turn is the longest ago are forgotten first.
    MEMORY = 65_536

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._turn = 0
        self._last_turns: dict[Key, int] = {}

    def pick(self, endpoints: Sequence[Endpoint], loads: Loads) -> Endpoint:
        """Choose the next one."""
        start = int(self._rng.random() * len(endpoints))  # several workers begin differently
        chosen = endpoints[start]
        longest_ago = self._last_turns.get(chosen.key, 0)
        for endpoint in endpoints:
            turn = self._last_turns.get(endpoint.key, 0)
            if turn < longest_ago:
                chosen, longest_ago = endpoint, turn
        self._turn += 1
        self._last_turns.pop(chosen.key, None)
        self._last_turns[chosen.key] = self._turn  # last in the dict's order
        if len(self._last_turns) > self.MEMORY:
            del self._last_turns[next(iter(self._last_turns))]
        return chosen


class LeastRequest:
    """The endpoint with the fewest requests in flight; among equals any."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def pick(self, endpoints: Sequence[Endpoint], loads: Loads) -> Endpoint:
        """Choose the least loaded one."""
        least = [endpoints[0]]
        lowest = loads.get(endpoints[0].key, 0)
        for endpoint in endpoints[1:]:
            load = loads.get(endpoint.key, 0)
            if load < lowest:
                least, lowest = [endpoint], load
            elif load == lowest:
                least.append(endpoint)
        return least[int(self._rng.random() * len(least))]


class PowerOfTwo:
    """Of two endpoints drawn at random the one with fewer requests in flight (Mitzenmacher)."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def pick(self, endpoints: Sequence[Endpoint], loads: Loads) -> Endpoint:
        """Choose the less loaded of two different ones."""
        if len(endpoints) == 1:
            return endpoints[0]
        first, second = self._rng.sample(range(len(endpoints)), 2)
        one, other = endpoints[first], endpoints[second]
        return other if loads.get(other.key, 0) < loads.get(one.key, 0) else one


#: Names as the `routing-strategy` header and `GATEWAY_STRATEGY` give them.
STRATEGIES: Mapping[str, Callable[[random.Random], Strategy]] = {
    "least-request": LeastRequest,
    "power-of-two": PowerOfTwo,
    "random": Random,
    "round-robin": RoundRobin,
}
