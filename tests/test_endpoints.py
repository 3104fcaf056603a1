"""The plain values that everybody reads."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from cache.endpoints import Endpoint, Pool, Snapshot

READY = Endpoint("10.0.0.1", 8000, pod="a")
NOT_READY = Endpoint("10.0.0.2", 8000, pod="b", ready=False, serving=False, routable=False)
TERMINATING = Endpoint("10.0.0.3", 8000, pod="c", ready=False, terminating=True, routable=False)
TERMINATING_AND_READY = replace(TERMINATING, address="10.0.0.4", ready=True)
GONE_QUIET = replace(TERMINATING, address="10.0.0.5", serving=False)


@pytest.mark.parametrize(
    ("endpoint", "state"),
    [
        (READY, "ready"),
        (NOT_READY, "not_ready"),
        (TERMINATING, "terminating"),
        (TERMINATING_AND_READY, "terminating"),
        (GONE_QUIET, "terminating"),
        (replace(READY, serving=False, routable=False), "not_ready"),
        (replace(READY, serving=False), "ready"),  # where `ready` alone is trusted
    ],
)
def test_an_endpoint_is_in_one_of_three_states(endpoint: Endpoint, state: str) -> None:
    assert endpoint.state == state


@pytest.mark.parametrize(
    ("address", "authority"),
    [("10.0.0.1", "10.0.0.1:8000"), ("fd00::7", "[fd00::7]:8000"), ("::1", "[::1]:8000")],
)
def test_an_ipv6_address_goes_in_brackets_into_a_url(address: str, authority: str) -> None:
    assert Endpoint(address, 8000).authority == authority


def test_an_endpoint_without_a_pod_is_called_by_its_address() -> None:
    assert READY.name == "a"
    assert Endpoint("fd00::7", 1).name == "[fd00::7]:1"


def test_identity_is_address_and_port_while_any_other_change_makes_another_value() -> None:
    changed = replace(READY, zone="z")
    assert changed.key == READY.key == ("10.0.0.1", 8000)
    assert changed != READY
    assert replace(changed, zone=None) == READY


def test_a_pool_offers_only_what_is_routable() -> None:
    pool = Pool("m", (READY, NOT_READY, TERMINATING, TERMINATING_AND_READY, GONE_QUIET))
    assert pool.routable == (READY,)


def test_terminating_endpoints_that_still_serve_are_known_for_the_fallback() -> None:
    pool = Pool("m", (READY, NOT_READY, TERMINATING, TERMINATING_AND_READY, GONE_QUIET))
    assert pool.terminating_but_serving == (TERMINATING, TERMINATING_AND_READY)


@pytest.mark.parametrize(
    ("endpoints", "text"),
    [
        ((), "model 'm': 0 endpoints"),
        ((TERMINATING,), "model 'm': 1 endpoint, 1 terminating"),
        (
            (NOT_READY, replace(NOT_READY, port=1), TERMINATING_AND_READY),
            "model 'm': 3 endpoints, 2 not ready, 1 terminating",
        ),
        ((READY, NOT_READY), "model 'm': 2 endpoints, 1 ready, 1 not ready"),
    ],
)
def test_a_pool_counts_its_endpoints_by_state(endpoints: tuple[Endpoint, ...], text: str) -> None:
    assert Pool("m", endpoints).describe() == text


def test_a_snapshot_is_sorted_by_model_and_knows_every_identity() -> None:
    snapshot = Snapshot({"b": Pool("b", (READY,)), "a": Pool("a", (READY, NOT_READY))}, 1.0)
    assert list(snapshot.pools) == ["a", "b"]
    gone = ("10.0.0.99", 8000)
    assert snapshot.known([READY.key, NOT_READY.key, gone]) == {READY.key, NOT_READY.key}
    assert snapshot.known([gone]) == frozenset()


def test_nothing_of_a_snapshot_can_be_changed() -> None:
    pools = {"a": Pool("a", (READY,))}
    snapshot: Any = Snapshot(pools, 1.0)
    pools["b"] = Pool("b")
    assert list(snapshot.pools) == ["a"]
    with pytest.raises(TypeError):
        snapshot.pools["b"] = Pool("b")
    for value, name in ((snapshot, "pools"), (snapshot.pools["a"], "routable"), (READY, "ready")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)
