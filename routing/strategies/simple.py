"""Strategies that need nothing but this worker's own counts."""

import random
from collections.abc import Sequence

from cache.endpoints import Endpoint, Key
from routing.strategies.base import Strategy
from routing.view import Query, View


class Random(Strategy):
    """Any endpoint, each as likely as the others."""

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """Numbers drawn at random."""
        return [self._rng.random() for _ in endpoints]

    def pick(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> Endpoint:
        """Choose without looking at load."""
        return self.any_of(endpoints)


class RoundRobin(Strategy):
    """The endpoint whose last turn is the longest ago; one that never had a turn comes first.

    Turns are remembered by endpoint, not as a position in a list: models that take turns with each
    other, and endpoints that come and go, do not disturb the order.
    """

    #: Endpoints remembered at most; those whose turn is the longest ago are forgotten first.
    MEMORY = 65_536

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._turn = 0
        self._last_turns: dict[Key, int] = {}

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """The number of each one's last turn."""
        return [self._last_turns.get(endpoint.key, 0) for endpoint in endpoints]

    def pick(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> Endpoint:
        """Choose the one that is next; among those that never had a turn any."""
        turns = self.costs(endpoints, view, query)
        longest_ago = min(turns)
        if longest_ago:  # no two had the same turn
            return endpoints[turns.index(longest_ago)]
        return super().pick(endpoints, view, query)

    def chosen(self, endpoint: Endpoint, query: Query) -> None:
        """It was this one's turn."""
        self._turn += 1
        self._last_turns.pop(endpoint.key, None)
        self._last_turns[endpoint.key] = self._turn  # last in the dict's order
        if len(self._last_turns) > self.MEMORY:
            del self._last_turns[next(iter(self._last_turns))]


class LeastRequest(Strategy):
    """The endpoint with the fewest requests in flight; among equals any."""

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """This worker's requests in flight on each."""
        count = view.in_flight.get
        return [count(endpoint.key, 0) for endpoint in endpoints]


class PowerOfTwo(Strategy):
    """Of two endpoints drawn at random the one with fewer requests in flight (Mitzenmacher)."""

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """Nothing for the one it would pick."""
        picked = self.pick(endpoints, view, query)
        return [float(endpoint is not picked) for endpoint in endpoints]

    def pick(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> Endpoint:
        """Choose the less loaded of two different ones."""
        if len(endpoints) == 1:
            return endpoints[0]
        first, second = self._rng.sample(range(len(endpoints)), 2)
        one, other = endpoints[first], endpoints[second]
        fewer = view.in_flight.get(other.key, 0) < view.in_flight.get(one.key, 0)
        return other if fewer else one
