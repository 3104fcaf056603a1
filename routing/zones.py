"""Preferring the gateway's own zone, while enough of it is there."""

from collections.abc import Sequence

from cache.endpoints import Endpoint, Key

#: One endpoint is no choice: a strategy needs two to spread load.
LEAST = 2
#: Pools of which is remembered what is near; all are forgotten when there are more.
MEMORY = 1024


class Zone:
    """The gateway's own zone; one without a name prefers nothing."""

    def __init__(self, name: str) -> None:
        self._name = name
        # By the first endpoint of a pool. An entry is replaced as a whole: no lock is needed.
        self._known: dict[Key, tuple[Sequence[Endpoint], Sequence[Endpoint]]] = {}

    def nearest(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """What `nearest` says; the same tuple for the same tuple, as long as pools are few."""
        if not self._name:
            return endpoints
        if not isinstance(endpoints, tuple):  # what is left of a pool, for one request
            return nearest(endpoints, self._name)
        first = endpoints[0].key
        of, near = self._known.get(first, ((), ()))
        if of is not endpoints:
            near = tuple(nearest(endpoints, self._name))
            if len(self._known) >= MEMORY:
                self._known.clear()
            self._known[first] = endpoints, near
        return near


def nearest(endpoints: Sequence[Endpoint], zone: str) -> Sequence[Endpoint]:
    """Those of `endpoints` in `zone` if they are enough, else all.

    Enough are two, and at least half of what each zone would have if they were spread evenly: as
    few as one engine of ten would else get all requests of the gateways beside it.
    """
    near = [endpoint for endpoint in endpoints if endpoint.zone == zone]
    if len(near) < LEAST or len(near) == len(endpoints):
        return endpoints
    zones = len({endpoint.zone for endpoint in endpoints})
    return near if 2 * zones * len(near) >= len(endpoints) else endpoints
