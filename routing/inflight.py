"""How many requests each endpoint is answering now."""

import threading
from collections.abc import Sequence

from cache.endpoints import Endpoint, Key
from routing.strategies import Strategy


class Lease:
    """One request's place on an endpoint, given back once however often `release` is called."""

    __slots__ = ("_in_flight", "endpoint", "held")

    def __init__(self, endpoint: Endpoint, in_flight: "InFlight") -> None:
        self.endpoint = endpoint
        self.held = True
        self._in_flight = in_flight

    def release(self) -> None:
        """Give the place back."""
        self._in_flight.release(self)


class InFlight:
    """Counts by address and port, so that they outlive every update of the slices."""

    def __init__(self) -> None:
        # guards: _counts, whether a lease is held, and the strategies' own state
        self._lock = threading.Lock()
        self._counts: dict[Key, int] = {}

    def pick(self, strategy: Strategy, endpoints: Sequence[Endpoint]) -> Lease:
        """Let `strategy` choose and count the choice, in one move: two requests see each other."""
        with self._lock:
            endpoint = strategy.pick(endpoints, self._counts)
            self._counts[endpoint.key] = self._counts.get(endpoint.key, 0) + 1
        return Lease(endpoint, self)

    def count(self, endpoint: Endpoint) -> Lease:
        """Count a request that `endpoint` is answering already."""
        with self._lock:
            self._counts[endpoint.key] = self._counts.get(endpoint.key, 0) + 1
        return Lease(endpoint, self)

    def counts(self) -> dict[Key, int]:
        """A copy of the counts; endpoints without requests are absent."""
        with self._lock:
            return dict(self._counts)

    def release(self, lease: Lease) -> None:
        """Take `lease` out of the counts, once."""
        key = lease.endpoint.key
        with self._lock:
            if not lease.held:
                return
            lease.held = False
            left = self._counts[key] - 1
            if left:
                self._counts[key] = left
            else:
                del self._counts[key]
