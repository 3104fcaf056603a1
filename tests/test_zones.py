"""The own zone comes first, while enough of it is there."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from cache.endpoints import Endpoint
from load.values import LoadStore
from routing.aside import SetAside
from routing.inflight import InFlight
from routing.router import Router
from routing.view import Query
from routing.zones import MEMORY, Zone, nearest
from tests.fakes import Clock, endpoint, store_of


def spread(**zones: int) -> tuple[Endpoint, ...]:
    """As many endpoints in each zone."""
    names = [zone for zone, count in zones.items() for _ in range(count)]
    return tuple(replace(endpoint(n), zone=zone) for n, zone in enumerate(names, 1))


def zones(endpoints: Sequence[Endpoint]) -> Counter[str | None]:
    return Counter(one.zone for one in endpoints)


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ({"a": 3, "b": 3}, {"a": 3}),
        ({"a": 2, "b": 6}, {"a": 2}),  # half of an even share
        ({"a": 2, "b": 7}, {"a": 2, "b": 7}),  # less
        ({"a": 1, "b": 1}, {"a": 1, "b": 1}),  # one is no choice
        ({"b": 3, "c": 1}, {"b": 3, "c": 1}),
        ({"a": 4}, {"a": 4}),
        ({"a": 2, "b": 2, "c": 2}, {"a": 2}),
    ],
)
def test_the_own_zone_is_preferred_while_it_is_enough(
    there: dict[str, int], chosen: dict[str, int]
) -> None:
    assert zones(nearest(spread(**there), "a")) == chosen


def test_what_is_near_is_found_once_for_a_pool_and_anew_for_what_is_left_of_it() -> None:
    zone, pool = Zone("a"), spread(a=3, b=3)
    near = zone.nearest(pool)
    assert zones(near) == {"a": 3}
    assert zone.nearest(pool) is near
    left = list(pool)
    del left[1]
    assert zones(zone.nearest(left)) == {"a": 2}
    del left[1]
    assert zones(zone.nearest(left)) == {"a": 1, "b": 3}
    assert zone.nearest(pool) is near
    assert zones(zone.nearest(pool[:1] + pool[3:])) == {"a": 1, "b": 3}


def test_pools_that_come_and_go_do_not_pile_up() -> None:
    zone, pool = Zone("a"), spread(a=2, b=1)
    near = zone.nearest(pool)
    for number in range(MEMORY):
        other = tuple(replace(one, address=f"10.9.{number >> 8}.{number & 255}") for one in pool)
        assert zones(zone.nearest(other)) == {"a": 2}
    assert zone.nearest(pool) is not near
    assert zone.nearest(pool) == near


def router(zone: str, endpoints: tuple[Endpoint, ...]) -> Router:
    clock = Clock()
    return Router(
        store_of(clock, llama=endpoints),
        InFlight(),
        SetAside(clock),
        LoadStore(clock),
        default_strategy="least-request",
        rng=random.Random(1),
        zone=zone,
    )


def takes(candidates_of: Router, strategy: str | None, times: int) -> Counter[str | None]:
    query = Query("llama", "some session")
    leases = [candidates_of.candidates(query, strategy).take() for _ in range(times)]
    return Counter(lease.endpoint.zone for lease in leases if lease)


def test_requests_stay_in_the_gateway_s_zone() -> None:
    assert takes(router("a", spread(a=2, b=2)), None, 20) == {"a": 20}


def test_without_a_zone_they_go_everywhere() -> None:
    assert takes(router("", spread(a=2, b=2)), None, 20) == {"a": 10, "b": 10}


def test_a_retry_goes_to_another_zone_rather_than_nowhere() -> None:
    candidates = router("a", spread(a=2, b=2)).candidates(Query("llama"), None)
    taken = [candidates.take() for _ in range(5)]
    assert [lease.endpoint.zone for lease in taken if lease][:1] == ["a"]
    assert zones([lease.endpoint for lease in taken if lease]) == {"a": 2, "b": 2}
    assert taken[4] is None


def test_a_zone_whose_endpoints_are_set_aside_is_left() -> None:
    endpoints = spread(a=2, b=2)
    setting = router("a", endpoints)
    for _ in range(3):
        setting.aside.failed(endpoints[0], endpoints)
    assert takes(setting, None, 6) == {"a": 2, "b": 4}


@pytest.mark.parametrize("strategy", ["session-affinity", "session-affinity:1,least-busy:1"])
def test_sessions_span_zones_so_that_gateways_of_all_zones_agree(strategy: str) -> None:
    endpoints = spread(a=3, b=3)
    chosen = {
        lease.endpoint.key
        for zone in ("a", "b", "")
        if (lease := router(zone, endpoints).candidates(Query("llama", "s-1"), strategy).take())
    }
    assert len(chosen) == 1


@pytest.mark.parametrize("strategy", ["session-affinity", "session-affinity:1,least-busy:1"])
def test_a_request_without_a_session_stays_in_the_zone_whatever_the_strategy(
    strategy: str,
) -> None:
    setting = router("a", spread(a=2, b=2))
    leases = [setting.candidates(Query("llama"), strategy).take() for _ in range(20)]
    assert Counter(lease.endpoint.zone for lease in leases if lease) == {"a": 20}
