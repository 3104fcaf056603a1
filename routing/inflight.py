"""How many requests each endpoint is answering now."""

import threading
from collections.abc import Callable, Sequence

from cache.endpoints import Endpoint, Key
from routing.strategies import Strategy


class Lease:
    """One request's place on an endpoint, given back once however often `release` is called."""

    __slots__ = ("_release", "endpoint")

    def __init__(self, endpoint: Endpoint, release: Callable[[Key], None]) -> None:
        self.endpoint = endpoint
        self._release: Callable[[Key], None] | None = release

    def release(self) -> None:
        """Give the place back."""
        release, self._release = self._release, None
        if release is not None:
            release(self.endpoint.key)


class InFlight:
    """Counts by address and port, so that they outlive every update of the slices."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards: _counts, and the strategies' own state
        self._counts: dict[Key, int] = {}

    def pick(self, strategy: Strategy, endpoints: Sequence[Endpoint]) -> Lease:
        """Let `strategy` choose and count the choice, in one move: two requests see each other."""
        with self._lock:
            endpoint = strategy.pick(endpoints, self._counts)
            self._counts[endpoint.key] = self._counts.get(endpoint.key, 0) + 1
        return Lease(endpoint, self._release)

    def counts(self) -> dict[Key, int]:
        """A copy of the counts; endpoints without requests are absent."""
        with self._lock:
            return dict(self._counts)

    def _release(self, key: Key) -> None:
        with self._lock:
            left = self._counts[key] - 1
            if left:
                self._counts[key] = left
            else:
                del self._counts[key]
