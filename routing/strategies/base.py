"""What every strategy is: one way to choose among routable endpoints."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import compress, repeat
from operator import eq

from cache.endpoints import Endpoint
from routing.view import Query, View


class Strategy(ABC):
    """One way to choose.

    `pick`, `costs` and `chosen` are called under the lock of the in-flight counts, which guards the
    strategies' own state too: no I/O, no waiting. `endpoints`, at least one, are routable, sorted.
    One that `spans_zones` must see those of all zones, because gateways elsewhere see them too.
    """

    spans_zones = False
    #: In a mix costs count in full if they differ by so much; where it is 0, by whatever they do.
    in_full = 0.0

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    @abstractmethod
    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """What speaks against each of `endpoints`; comparable with each other only."""

    def pick(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> Endpoint:
        """Choose the one with the lowest cost; among equals, and costs that are no numbers, any."""
        costs = self.costs(endpoints, view, query)
        lowest = min(costs)
        best = list(compress(endpoints, map(eq, costs, repeat(lowest))))
        return self.any_of(best or endpoints)

    def prepare(self, query: Query) -> None:  # noqa: B027 - most need nothing
        """Add to `query` what choosing needs. Called once a request, under no lock."""

    def chosen(self, endpoint: Endpoint, query: Query) -> None:  # noqa: B027 - the same
        """Remember that the request goes to `endpoint`."""

    def any_of(self, endpoints: Sequence[Endpoint]) -> Endpoint:
        """One of `endpoints`, each as likely as the others."""
        return endpoints[int(self._rng.random() * len(endpoints))]
