"""Endpoints that are set aside for a while because they fail on transport level."""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cache.endpoints import Endpoint, Key, Snapshot

#: This many transport failures in a row set an endpoint aside …
FAILURES = 3
#: … for so many seconds the first time, twice as long each further time, up to the longest.
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0
#: Seconds for which one that comes back gets no request after its first, unless told otherwise.
TRIAL_SECONDS = 1.0


@dataclass(slots=True)
class _Record:
    endpoint: Endpoint  # as its slice entry was at the first failure
    failures: int = 0
    times: int = 0
    until: float = 0.0
    trial_ends: float = 0.0


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Which `of` some endpoints are free, until something is heard of one or a time is over."""

    of: Sequence[Endpoint]
    free: Sequence[Endpoint]
    until: float


class SetAside:
    """The list of endpoints set aside.

    Only failures of the connection count, never an HTTP status. The last routable endpoint of a
    pool is never set aside, and a change of its slice entry brings any of them back. One whose time
    is over is tried with one request, and gets no other until that has succeeded or failed, or
    `trial_seconds` have passed: a black hole would swallow all that come while a connect times out.

    `tell` is told once that an endpoint is set aside (true), however often it is again before it
    answers, and that it is back (false) when it has answered or its slice entry has changed. That
    happens under the lock, so that it hears of changes in their order: it must be quick, and not
    call back.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        trial_seconds: float = TRIAL_SECONDS,
        tell: Callable[[Endpoint, bool], None] = lambda _endpoint, _aside: None,
    ) -> None:
        self._clock = clock
        self._trial_seconds = trial_seconds
        self._tell = tell
        # guards: _records and what is in them; changes of _verdicts, which is read without it
        self._lock = threading.Lock()
        self._records: dict[Key, _Record] = {}
        self._verdicts: dict[Key, _Verdict] = {}  # by the first endpoint of a pool

    def failed(self, endpoint: Endpoint, pool: Sequence[Endpoint]) -> None:
        """Note a transport failure of `endpoint`; `pool` is what was routable beside it."""
        with self._lock:
            record = self._records.setdefault(endpoint.key, _Record(endpoint))
            record.failures += 1
            record.trial_ends = 0.0
            self._verdicts.clear()
            now = self._clock()
            if record.failures < FAILURES or record.until > now:
                return
            others = [one for one in pool if one.key != endpoint.key]
            if not any(self._is_free(one, now) for one in others):
                return  # the last one: a doubtful endpoint is better than none
            if not record.times:
                self._tell(endpoint, True)
            record.until = now + min(FIRST_SECONDS * 2.0**record.times, LONGEST_SECONDS)
            record.times += 1

    def succeeded(self, endpoint: Endpoint) -> None:
        """Note that `endpoint` answered: whatever was held against it is forgotten."""
        if endpoint.key in self._records:  # spares the lock where all is well
            with self._lock:
                record = self._records.pop(endpoint.key, None)
                self._verdicts.clear()
                if record is not None and record.times:
                    self._tell(endpoint, False)

    def is_sound(self, endpoint: Endpoint) -> bool:
        """Whether nothing is held against `endpoint`: it has not failed since it last answered."""
        return endpoint.key not in self._records

    def concerns(self, keys: frozenset[Key]) -> bool:
        """Whether anything is held against one of `keys`; costs nothing for those of others."""
        return bool(self._records) and not keys.isdisjoint(tuple(self._records))

    def free(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """Those of `endpoints` that are not set aside or tried now; all of them if none were left.

        One that is being tried is better than one that is set aside. As long as nothing changes,
        the same tuple gives the same tuple, and finding it does not take longer with more of them.
        """
        if not self._records:
            return endpoints
        verdict = self._verdicts.get(endpoints[0].key)
        if verdict is not None and verdict.of is endpoints and self._clock() < verdict.until:
            return verdict.free
        with self._lock:
            return self._judge(endpoints)

    def chosen(self, endpoint: Endpoint) -> None:
        """Note that a request goes to `endpoint`: for one that was set aside it is the trial."""
        if endpoint.key not in self._records:  # spares the lock where all is well
            return
        with self._lock:
            record = self._records.get(endpoint.key)
            if record is not None and record.times:
                record.trial_ends = self._clock() + self._trial_seconds
                self._verdicts.clear()

    def observe(self, snapshot: Snapshot) -> None:
        """Forget endpoints whose slice entry is gone or has changed; free a pool's last ones."""
        if not self._records:
            return
        pools = snapshot.pools.values()
        with self._lock:
            self._verdicts.clear()
            now = self._clock()
            present = {e for pool in pools for e in pool.endpoints if e.key in self._records}
            routable = {e.key: e for e in present if e.routable}
            for key, record in list(self._records.items()):
                if record.endpoint not in present:
                    del self._records[key]
                    if record.times and key in routable:
                        self._tell(routable[key], False)
            for pool in pools:
                if not any(self._is_free(one, now) for one in pool.routable):
                    for one in pool.routable:
                        self._records[one.key].until = now

    def set_aside(self) -> list[Key]:
        """The endpoints that are set aside now."""
        with self._lock:
            now = self._clock()
            return [key for key, record in self._records.items() if record.until > now]

    def _judge(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        now = self._clock()
        free = tuple(one for one in endpoints if self._is_free(one, now)) or endpoints
        free = tuple(one for one in free if not self._is_tried(one, now)) or free
        if len(free) == len(endpoints):
            free = endpoints
        if isinstance(endpoints, tuple):  # a list may change
            times = [t for r in self._records.values() for t in (r.until, r.trial_ends) if t > now]
            until = min(times, default=math.inf)
            self._verdicts[endpoints[0].key] = _Verdict(endpoints, free, until)
        return free

    def _is_free(self, endpoint: Endpoint, now: float) -> bool:
        record = self._records.get(endpoint.key)
        return record is None or record.until <= now

    def _is_tried(self, endpoint: Endpoint, now: float) -> bool:
        record = self._records.get(endpoint.key)
        return record is not None and record.trial_ends > now
