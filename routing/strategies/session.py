"""Session affinity: requests of one session go to the same endpoint while it is routable."""

import random
from collections.abc import Sequence

from cache.endpoints import Endpoint
from routing.strategies.base import Strategy
from routing.strategies.rendezvous import PRIME, Rendezvous, number_of
from routing.strategies.simple import LeastRequest
from routing.view import Query, View


class SessionAffinity(Strategy):
    """The endpoint that rendezvous hashing gives the session, in every gateway the same.

    A request that names no session goes to the endpoint with the fewest requests in flight.
    """

    spans_zones = True

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._rendezvous = Rendezvous()
        self._without = LeastRequest(rng)

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """How far each is from being the session's own."""
        if not query.session:
            return self._without.costs(endpoints, view, query)
        weights = self._rendezvous.weights(_name(query), endpoints)
        return [-weight / PRIME for weight in weights]

    def pick(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> Endpoint:
        """Choose the session's own."""
        if not query.session:
            return self._without.pick(endpoints, view, query)
        return self._rendezvous.first(_name(query), endpoints)


def _name(query: Query) -> int:
    return number_of(query.session.encode())
