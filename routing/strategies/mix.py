"""A weighted mix of strategies: `prefix-cache:2,least-busy:1`."""

import random
from collections.abc import Sequence

from cache.endpoints import Endpoint
from routing.strategies.base import Strategy
from routing.view import Query, View


class Mix(Strategy):
    """The endpoint with the lowest weighted sum of costs, each strategy's normalised to 0 … 1.

    A strategy that finds all endpoints equal has no say.
    """

    def __init__(self, rng: random.Random, parts: Sequence[tuple[Strategy, float]]) -> None:
        super().__init__(rng)
        self._parts = parts
        self.spans_zones = any(strategy.spans_zones for strategy, _ in parts)

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """The weighted sums."""
        sums = [0.0] * len(endpoints)
        for strategy, weight in self._parts:
            costs = strategy.costs(endpoints, view, query)
            lowest, highest = min(costs), max(costs)
            if highest > lowest:
                factor = weight / max(highest - lowest, strategy.in_full)
                sums = [
                    total + factor * (cost - lowest)
                    for total, cost in zip(sums, costs, strict=True)
                ]
        return sums

    def prepare(self, query: Query) -> None:
        """Let each prepare."""
        for strategy, _ in self._parts:
            strategy.prepare(query)

    def chosen(self, endpoint: Endpoint, query: Query) -> None:
        """Let each remember."""
        for strategy, _ in self._parts:
            strategy.chosen(endpoint, query)
