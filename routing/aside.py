"""Endpoints that are set aside for a while because they fail on transport level."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cache.endpoints import Endpoint, Key, Snapshot

#: This many transport failures in a row set an endpoint aside …
FAILURES = 3
#: … for so many seconds the first time, twice as long each further time, up to the longest.
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0


@dataclass(slots=True)
class _Record:
    endpoint: Endpoint  # as its slice entry was at the first failure
    failures: int = 0
    times: int = 0
    until: float = 0.0


class SetAside:
    """The list of endpoints set aside.

    Only failures of the connection count, never an HTTP status. The last routable endpoint of a
    pool is never set aside, and a change of its slice entry brings any of them back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards: _records and what is in them
        self._records: dict[Key, _Record] = {}

    def failed(self, endpoint: Endpoint, pool: Sequence[Endpoint]) -> None:
        """Note a transport failure of `endpoint`; `pool` is what was routable beside it."""
        with self._lock:
            record = self._records.setdefault(endpoint.key, _Record(endpoint))
            record.failures += 1
            now = self._clock()
            if record.failures < FAILURES or record.until > now:
                return
            others = [one for one in pool if one.key != endpoint.key]
            if not any(self._is_free(one, now) for one in others):
                return  # the last one: a doubtful endpoint is better than none
            record.until = now + min(FIRST_SECONDS * 2.0**record.times, LONGEST_SECONDS)
            record.times += 1

    def succeeded(self, endpoint: Endpoint) -> None:
        """Note that `endpoint` answered: whatever was held against it is forgotten."""
        if endpoint.key in self._records:  # spares the lock where all is well
            with self._lock:
                self._records.pop(endpoint.key, None)

    def is_sound(self, endpoint: Endpoint) -> bool:
        """Whether nothing is held against `endpoint`: it has not failed since it last answered."""
        return endpoint.key not in self._records

    def free(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """Those of `endpoints` that are not set aside now; all of them if none were left."""
        if not self._records:
            return endpoints
        with self._lock:
            now = self._clock()
            return [one for one in endpoints if self._is_free(one, now)] or endpoints

    def observe(self, snapshot: Snapshot) -> None:
        """Forget endpoints whose slice entry is gone or has changed; free a pool's last ones."""
        if not self._records:
            return
        pools = snapshot.pools.values()
        with self._lock:
            now = self._clock()
            present = {e for pool in pools for e in pool.endpoints if e.key in self._records}
            for key, record in list(self._records.items()):
                if record.endpoint not in present:
                    del self._records[key]
            for pool in pools:
                if not any(self._is_free(one, now) for one in pool.routable):
                    for one in pool.routable:
                        self._records[one.key].until = now

    def set_aside(self) -> list[Key]:
        """The endpoints that are set aside now."""
        with self._lock:
            now = self._clock()
            return [key for key, record in self._records.items() if record.until > now]

    def _is_free(self, endpoint: Endpoint, now: float) -> bool:
        record = self._records.get(endpoint.key)
        return record is None or record.until <= now
