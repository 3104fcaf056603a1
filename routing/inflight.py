"""How many requests each endpoint is answering now, and how soon it began those before."""

import threading
import time
from collections.abc import Callable, Sequence

from cache.endpoints import Endpoint, Key, Snapshot
from load.values import NOTHING, LoadSnapshot
from routing.latency import Latencies
from routing.strategies.base import Strategy
from routing.view import Query, View


class Lease:
    """One request's place on an endpoint, given back once however often `release` is called.

    `fell_back` says that the endpoint was chosen without the report of some engine that the
    strategy goes by. `began` is the monotonic time, in seconds, at which it was chosen.
    """

    __slots__ = ("_in_flight", "began", "endpoint", "fell_back", "held")

    def __init__(
        self, endpoint: Endpoint, in_flight: "InFlight", began: float, *, fell_back: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.began = began
        self.fell_back = fell_back
        self.held = True
        self._in_flight = in_flight

    def first_byte(self, at: float) -> None:
        """The first byte of a good answer came at monotonic time `at`."""
        self._in_flight.observed(self.endpoint.key, at - self.began)

    def release(self) -> None:
        """Give the place back."""
        self._in_flight.release(self)


class InFlight:
    """Counts by address and port, so that they outlive every update of the slices.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        # guards: _counts, whether a lease is held, _latencies, and the strategies' own state
        self._lock = threading.Lock()
        self._counts: dict[Key, int] = {}
        self._clock = clock
        self._latencies = Latencies(clock)

    def pick(
        self,
        strategy: Strategy,
        endpoints: Sequence[Endpoint],
        query: Query,
        loads: LoadSnapshot = NOTHING,
    ) -> Lease:
        """Let `strategy` choose and count the choice, in one move: two requests see each other."""
        with self._lock:
            view = View(self._counts, loads, self._latencies)
            endpoint = strategy.pick(endpoints, view, query)
            strategy.chosen(endpoint, query)
            self._counts[endpoint.key] = self._counts.get(endpoint.key, 0) + 1
        return Lease(endpoint, self, self._clock(), fell_back=view.fell_back)

    def count(self, endpoint: Endpoint) -> Lease:
        """Count a request that `endpoint` is answering already."""
        with self._lock:
            self._counts[endpoint.key] = self._counts.get(endpoint.key, 0) + 1
        return Lease(endpoint, self, self._clock())

    def observed(self, key: Key, seconds: float) -> None:
        """An endpoint took `seconds` to begin a good answer."""
        with self._lock:
            self._latencies.observed(key, seconds)

    def observe(self, snapshot: Snapshot) -> None:
        """Forget how soon endpoints answered that are gone."""
        with self._lock:
            known = self._latencies.keys()
        gone = set(known) - snapshot.known(known)
        if gone:
            with self._lock:
                self._latencies.forget(gone)

    def guarding(self, work: Callable[[], None]) -> None:
        """Do `work` on the strategies' own state while nobody chooses by it."""
        with self._lock:
            work()

    def on(self, key: Key) -> int:
        """How many requests one endpoint is answering."""
        return self._counts.get(key, 0)

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
