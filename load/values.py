"""The load of engines as plain values: `EngineLoad`, `PoolLoad`, `LoadSnapshot`, `LoadStore`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from cache.endpoints import Endpoint, Key


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What one engine reported, and what this worker had sent it when it was asked.

    `kv_usage` is the part of its KV cache that running requests take, from 0 to 1.
    `tokens_per_second` counts prompt and generated tokens since it was asked before. `in_flight`
    are this worker's requests on it, and `at` the monotonic time, both when it was asked.

    An engine that is stuck may go on reporting what was once so. Of `in_flight` we know, so an
    engine that reports fewer is taken to have the others in its queue.
    """

    running: float = 0.0
    waiting: float = 0.0
    kv_usage: float = 0.0
    tokens_per_second: float = 0.0
    in_flight: int = 0
    at: float = 0.0
    #: Requests that wait in it, and all that run or wait, whoever sent them: at least `in_flight`.
    queued: float = field(init=False)
    requests: float = field(init=False)

    def __post_init__(self) -> None:
        """Add up here, once: a choice looks at all engines."""
        queued = max(self.waiting, self.in_flight - self.running)
        object.__setattr__(self, "queued", queued)
        object.__setattr__(self, "requests", self.running + queued)


class PoolLoad:
    """The reports of some endpoints' engines, each list with an item for each, in their order.

    `places` are their positions in it by key, in that order too. `others` are the requests in each
    that were not this worker's when it was asked, none where a report is missing; `complete` says
    that none is.
    """

    __slots__ = ("complete", "engines", "of", "others", "places")

    def __init__(self, of: Sequence[Endpoint], reports: Mapping[Key, EngineLoad]) -> None:
        self.of = of
        self.places = {endpoint.key: place for place, endpoint in enumerate(of)}
        self.engines = [reports.get(key) for key in self.places]
        self.others = [one.requests - one.in_flight if one else 0.0 for one in self.engines]
        self.complete = all(self.engines)  # `None in` would ask every report whether it is equal


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """What all engines reported lately: those that did not answer are absent.

    Worth nothing after the monotonic time `until`. `gateways` estimates how many workers send
    requests as this one does (`load.gateways`).
    """

    engines: Mapping[Key, EngineLoad] = field(default_factory=lambda: MappingProxyType({}))
    until: float = -math.inf
    gateways: float = 1.0
    #: Only ever added to, and only while an endpoint is chosen, under the lock of `InFlight`.
    _pools: dict[Key, PoolLoad] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, endpoints: Sequence[Endpoint]) -> PoolLoad:
        """The reports of the engines of `endpoints`, at least one.

        Looked up once for each pool, because a second's requests all ask for the same.
        """
        first = endpoints[0].key
        found = self._pools.get(first)
        if found is None or found.of is not endpoints:
            found = PoolLoad(endpoints, self.engines)
            if self.engines and isinstance(endpoints, tuple):  # a list may change
                self._pools[first] = found
        return found


NOTHING = LoadSnapshot()


class LoadStore:
    """Holds the latest snapshot. `clock` is monotonic, in seconds.

    A reference is replaced, never edited, so that readers need no lock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._snapshot = NOTHING

    def put(self, snapshot: LoadSnapshot) -> None:
        """Publish `snapshot`."""
        self._snapshot = snapshot

    def snapshot(self) -> LoadSnapshot:
        """The latest one, or an empty one where it has become too old to say anything."""
        snapshot = self._snapshot
        return snapshot if self._clock() < snapshot.until else NOTHING
