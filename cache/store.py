"""The TTL cache that holds the snapshot, and the one lock around it."""

import threading
from collections.abc import Callable
from typing import Final

from cachetools import TLRUCache

from cache.endpoints import Snapshot

_ONLY: Final = "snapshot"


class EndpointsUnknown(LookupError):
    """No list has succeeded yet: nothing can be said about any model."""


class EndpointsStale(LookupError):
    """The last good list is older than the TTL: it must not be trusted any more."""


class SnapshotStore:
    """Keeps the latest snapshot until its list is `ttl` seconds old.

    Age counts from the full list a snapshot rests on, not from the last watch event: only a
    list is the whole truth. `timer` is a monotonic clock in seconds.
    """

    def __init__(self, ttl: float, timer: Callable[[], float]) -> None:
        self.ttl = ttl
        self._timer = timer
        self._lock = threading.Lock()  # guards: _cache, _listed_at
        self._cache: TLRUCache[str, Snapshot] = TLRUCache(
            maxsize=1, ttu=lambda _key, snapshot, _now: snapshot.listed_at + ttl, timer=timer
        )
        self._listed_at: float | None = None
        #: What was put last, however old. Replaced, never edited: it is read without the lock.
        self.latest: Snapshot | None = None

    def put(self, snapshot: Snapshot) -> None:
        """Replace what is known."""
        with self._lock:
            self._cache[_ONLY] = snapshot
            self._listed_at = snapshot.listed_at
            self.latest = snapshot

    def snapshot(self) -> Snapshot:
        """Return the latest snapshot; raises `EndpointsUnknown` or `EndpointsStale`."""
        with self._lock:
            try:
                return self._cache[_ONLY]  # `get` looks twice
            except KeyError:
                listed_at = self._listed_at
        if listed_at is None:
            raise EndpointsUnknown("no list of EndpointSlices has succeeded yet")
        age = self._timer() - listed_at
        raise EndpointsStale(f"the last good list of EndpointSlices is {age:.0f} s old")

    def age(self) -> float | None:
        """Seconds since the last good list began; None before the first."""
        with self._lock:
            return None if self._listed_at is None else self._timer() - self._listed_at
