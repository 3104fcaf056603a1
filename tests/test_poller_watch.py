"""Between lists: changes as they happen, and what becomes of a watch that ends."""

import logging
from itertools import pairwise

import pytest

from cache.poller import WATCH_AGAIN_SECONDS
from cache.source import Event, SourceError
from tests.pollers import POLL_SECONDS, Polled, Watch, World, counted, event, listing

FORBIDDEN = SourceError("forbidden", "may not watch")
EXPIRED = SourceError("expired", "too old")
BROKEN = SourceError("unreachable", "reset")


@pytest.fixture
def world() -> World:
    world = World()
    world.lists = [listing("10.0.0.1", version="1")]
    return world


def bookmark(version: str) -> Event:
    return Event("BOOKMARK", {"metadata": {"resourceVersion": version}})


def test_a_watch_goes_on_from_the_lists_version_until_the_next_list_is_due(world: World) -> None:
    Polled(world).steps(2)
    assert world.called() == ["list", "watch", "list", "watch"]
    assert world.calls[1] == ("watch", "1", POLL_SECONDS)
    assert world.calls[2] == ("list", 1000.0 + POLL_SECONDS)


def test_every_event_is_published_at_once_and_refreshes_no_age(world: World) -> None:
    world.watches = [
        Watch([event("MODIFIED", "10.0.0.2"), event("MODIFIED", "10.0.0.3")], seconds=0.5)
    ]
    polled = Polled(world)
    polled.steps(1)
    seen = [[e.address for e in s.pools["m"].endpoints] for s in polled.published]
    assert seen == [["10.0.0.1"], ["10.0.0.2"], ["10.0.0.3"]]
    assert {s.listed_at for s in polled.published} == {1000.0}


def test_a_deleted_slice_takes_its_model_away(world: World) -> None:
    world.watches = [Watch([event("DELETED", "10.0.0.1")])]
    polled = Polled(world)
    polled.steps(1)
    assert not polled.store.snapshot().pools


def test_the_list_stays_the_truth_over_what_a_watch_told(world: World) -> None:
    world.watches = [Watch([event("MODIFIED", "10.0.0.9")])]
    polled = Polled(world)
    polled.steps(1)
    assert polled.addresses() == ["10.0.0.9"]
    polled.steps(1)
    assert polled.addresses() == ["10.0.0.1"]


@pytest.mark.parametrize("told", [event("MODIFIED", "10.0.0.1", version="7"), bookmark("7")])
def test_a_watch_that_ends_early_is_resumed_from_the_last_version(
    world: World, told: Event
) -> None:
    world.watches = [Watch([told], seconds=0.5, lasts=False)]
    Polled(world).steps(1)
    assert world.watched_from() == ["1", "7"]


def test_a_bookmark_publishes_nothing(world: World) -> None:
    world.watches = [Watch([bookmark("7")])]
    polled = Polled(world)
    polled.steps(1)
    assert len(polled.published) == 1


def test_an_event_without_a_version_leaves_the_last_one(world: World) -> None:
    odd = [Event("MODIFIED", None), Event("BOOKMARK", {"metadata": {"resourceVersion": 7}})]
    world.watches = [Watch(odd, seconds=0.1, lasts=False)]
    Polled(world).steps(1)
    assert world.watched_from() == ["1", "1"]


def test_a_malformed_event_is_counted_and_changes_nothing(world: World) -> None:
    world.watches = [Watch([Event("MODIFIED", [])])]
    before = counted("gateway_discovery_skipped_total", "reason", "malformed")
    polled = Polled(world)
    polled.steps(1)
    assert counted("gateway_discovery_skipped_total", "reason", "malformed") == before + 1
    assert polled.addresses() == ["10.0.0.1"]


def test_a_server_that_ends_every_watch_at_once_is_asked_ten_times_a_second(world: World) -> None:
    world.watches = [Watch(lasts=False) for _ in range(100)]
    Polled(world).steps(1)
    assert len(world.watched_from()) == pytest.approx(10 * POLL_SECONDS, abs=1)
    assert max(world.waits) <= 0.1 + 1e-6


@pytest.mark.parametrize("error", [EXPIRED, BROKEN])
def test_a_watch_that_breaks_is_followed_by_a_list_at_once(
    world: World, error: SourceError
) -> None:
    before = counted("gateway_watches_total", "result", error.kind)
    world.watches = [Watch([event("MODIFIED", "10.0.0.2")], seconds=0.25, error=error)]
    Polled(world).steps(2)
    assert world.called()[:3] == ["list", "watch", "list"]
    assert world.calls[2] == ("list", 1000.5)
    assert counted("gateway_watches_total", "result", error.kind) == before + 1


def test_a_server_that_breaks_every_watch_is_polled_at_the_usual_interval(world: World) -> None:
    world.watches = [Watch(error=BROKEN) for _ in range(4)]
    Polled(world).steps(4)
    times = [call[1] for call in world.calls if call[0] == "list"]
    assert [round(time - 1000, 3) for time in times] == [0, 0, 2, 4]


def test_a_watch_with_an_unaccepted_token_renews_it_and_lists_at_once(world: World) -> None:
    world.watches = [Watch(error=SourceError("unauthorized", "expired"))]
    Polled(world).steps(2)
    assert world.called()[:4] == ["list", "watch", "renew", "list"]
    assert world.waits == []


def test_without_the_right_to_watch_it_polls_and_says_so_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.watches = [Watch(error=FORBIDDEN) for _ in range(10)]
    polled = Polled(world)
    while world.now < 1000 + 3.5 * WATCH_AGAIN_SECONDS:
        polled.steps(1)
    times = [call[1] for call in world.calls if call[0] == "list"]
    assert {round(b - a, 3) for a, b in pairwise(times)} == {POLL_SECONDS}
    assert len(world.watched_from()) == 4  # tried again now and then: it may have been granted
    assert caplog.messages == [
        "EndpointSlices can't be watched, so a change is seen after up to 2 s: may not watch"
    ]
    assert polled.poller.last_failure is None


def test_a_right_that_is_granted_is_used_again_and_said_again_when_it_is_lost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.discovery")
    world.watches = [Watch(error=FORBIDDEN), Watch(), Watch(error=FORBIDDEN)]
    polled = Polled(world)
    while len(world.watched_from()) < 3:
        polled.steps(1)
    assert [message[:31] for message in caplog.messages] == [
        "EndpointSlices can't be watched",
        "EndpointSlices can be watched a",
        "EndpointSlices can't be watched",
    ]


def test_it_never_watches_where_that_is_switched_off(world: World) -> None:
    Polled(world, watch=False).steps(3)
    assert world.called() == ["list"] * 3
    assert world.waits == [POLL_SECONDS] * 3
