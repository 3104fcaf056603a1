"""Preferring the gateway's own zone, while enough of it is there."""

from collections.abc import Sequence

from cache.endpoints import Endpoint

#: One endpoint is no choice: a strategy needs two to spread load.
LEAST = 2


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
