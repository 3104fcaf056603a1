"""The poller's step: lists, failures and how long it waits after them."""

import logging
from collections.abc import Iterator

import pytest

from cache.poller import FIRST_BACKOFF_SECONDS, FIRST_LIST_RETRY_SECONDS
from cache.slices import Reading, SliceSet
from cache.source import Event, Listing, SourceError
from cache.store import EndpointsUnknown
from tests.harness import wait_for
from tests.pollers import POLL_SECONDS, Polled, World, counted, listing
from tests.slices import raw_slice

SERVER_ERROR = SourceError("server_error", "etcd is away")
UNAUTHORIZED = SourceError("unauthorized", "Unauthorized")


@pytest.fixture
def world() -> World:
    return World()


def test_a_list_is_published_with_the_time_at_which_it_began(world: World) -> None:
    world.lists, world.listing_takes = [listing("10.0.0.1")], 0.5
    polled = Polled(world)
    polled.steps(1)
    assert polled.addresses() == ["10.0.0.1"]
    assert polled.published == [polled.store.snapshot()]
    assert polled.store.snapshot().listed_at == 1000.0


def test_without_a_version_to_watch_from_it_waits_until_the_next_list_is_due(
    world: World,
) -> None:
    world.lists, world.listing_takes = [listing("10.0.0.1")], 0.5
    Polled(world).steps(2)
    assert world.calls == [("list", 1000.0), ("list", 1000.0 + POLL_SECONDS)]


def test_a_server_slower_than_the_interval_is_not_asked_without_a_pause(world: World) -> None:
    world.lists, world.listing_takes = [listing()], 3 * POLL_SECONDS
    Polled(world).steps(2)
    assert world.waits == [POLL_SECONDS / 2] * 2


def test_an_empty_list_is_believed_at_once(world: World) -> None:
    world.lists = [listing("10.0.0.1"), Listing([])]
    polled = Polled(world)
    polled.steps(2)
    assert not polled.store.snapshot().pools


@pytest.mark.parametrize(
    "kind",
    [
        *("unauthorized", "forbidden", "expired", "throttled", "server_error"),
        *("refused", "unreachable", "timeout", "garbage", "file"),
    ],
)
def test_a_failed_list_is_counted_and_never_empties_the_cache(world: World, kind: str) -> None:
    world.lists = [listing("10.0.0.1"), SourceError(kind, "no")]
    polled = Polled(world)
    before = counted("gateway_polls_total", "result", kind)
    polled.steps(12)
    assert counted("gateway_polls_total", "result", kind) == before + 11
    assert polled.addresses() == ["10.0.0.1"]
    assert polled.store.snapshot().listed_at == 1000.0
    assert polled.poller.last_failure == kind


def test_waits_double_from_a_second_to_five_intervals(world: World) -> None:
    world.lists = [listing("10.0.0.1"), SERVER_ERROR]
    Polled(world, jitter=1.0).steps(7)
    assert world.waits[1:] == [1, 2, 4, 8, 10, 10]


def test_jitter_shortens_a_wait_by_up_to_a_half_also_at_its_longest(world: World) -> None:
    world.lists = [listing("10.0.0.1"), SERVER_ERROR]
    Polled(world, jitter=0.0).steps(7)
    assert world.waits[1:] == [0.5, 1, 2, 4, 5, 5]


def test_one_failure_hides_changes_for_a_second_only_however_long_the_interval(
    world: World,
) -> None:
    world.lists = [listing("10.0.0.1"), SERVER_ERROR, listing("10.0.0.2")]
    polled = Polled(world, poll=60.0)
    polled.steps(3)
    assert world.waits[1] == FIRST_BACKOFF_SECONDS
    assert polled.addresses() == ["10.0.0.2"]


def test_a_short_interval_is_its_own_first_wait(world: World) -> None:
    world.lists = [listing("10.0.0.1"), SERVER_ERROR]
    Polled(world, poll=0.25).steps(4)
    assert world.waits[1:] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(("asked", "waited"), [(0.5, 1.0), (7.0, 7.0), (3600.0, 10.0)])
def test_retry_after_is_honoured_up_to_five_intervals(
    world: World, asked: float, waited: float
) -> None:
    world.lists = [listing(), SourceError("throttled", "later", retry_after=asked)]
    Polled(world).steps(2)
    assert world.waits[-1] == waited


def test_before_the_first_good_list_it_is_asked_for_often(world: World) -> None:
    world.lists = [SERVER_ERROR]
    polled = Polled(world)
    polled.steps(8)
    assert world.waits == [FIRST_LIST_RETRY_SECONDS] * 8
    with pytest.raises(EndpointsUnknown):
        polled.store.snapshot()


def test_an_overloaded_server_is_given_the_time_it_asks_for_also_before_the_first_list(
    world: World,
) -> None:
    world.lists = [SourceError("throttled", "later", retry_after=1.0)]
    Polled(world).steps(1)
    assert world.waits == [1.0]


def test_a_good_list_ends_the_backoff_and_the_failure(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.discovery")
    world.lists = [listing(), *[SERVER_ERROR] * 4, listing("10.0.0.1"), SERVER_ERROR]
    polled = Polled(world)
    polled.steps(6)
    assert polled.poller.last_failure is None
    assert polled.addresses() == ["10.0.0.1"]
    assert "works again after 4 failed polls" in caplog.messages[-1]
    polled.steps(1)
    assert world.waits[-1] == FIRST_BACKOFF_SECONDS


def test_a_failure_is_logged_once_until_its_kind_changes(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.lists = [*[SERVER_ERROR] * 5, *[SourceError("timeout", "silence")] * 5]
    Polled(world).steps(10)
    assert [message.partition(")")[0] for message in caplog.messages] == [
        "EndpointSlices can't be listed (server_error",
        "EndpointSlices can't be listed (timeout",
    ]


@pytest.mark.parametrize("before", [listing(), SERVER_ERROR])
def test_an_unaccepted_token_is_read_again_and_the_list_repeated_at_once(
    world: World, before: Listing | SourceError
) -> None:
    world.lists = [before, UNAUTHORIZED, listing("10.0.0.1")]
    polled = Polled(world)
    polled.steps(3)
    assert world.called() == ["list", "list", "renew", "list"]
    assert world.calls[1][1] == world.calls[3][1]
    assert polled.addresses() == ["10.0.0.1"]


def test_a_token_that_stays_unaccepted_is_tried_at_growing_intervals(world: World) -> None:
    world.lists = [listing(), UNAUTHORIZED]
    Polled(world).steps(5)
    assert world.called().count("renew") == 4
    assert world.waits[1:] == [2, 4, 8]


def test_credentials_that_can_not_be_read_are_told_and_the_old_ones_tried_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.lists = [UNAUTHORIZED, listing("10.0.0.1")]
    world.renewal = SourceError("unauthorized", "no such file")
    polled = Polled(world)
    polled.steps(2)
    assert "can't be read again: no such file" in caplog.text
    assert polled.addresses() == ["10.0.0.1"]


def test_what_is_skipped_is_counted_by_its_reason(world: World) -> None:
    world.lists = [Listing([raw_slice(addressType="FQDN"), raw_slice(name="n", model=""), 5])]
    before = {r: skipped(r) for r in ("fqdn", "label", "malformed")}
    Polled(world).steps(1)
    assert {r: skipped(r) - before[r] for r in before} == {"fqdn": 1, "label": 1, "malformed": 1}


def skipped(reason: str) -> float:
    return counted("gateway_discovery_skipped_total", "reason", reason)


def test_a_poller_that_was_not_started_is_in_trouble(world: World) -> None:
    assert Polled(world).poller.trouble() == "the discovery thread is not running"


class Buggy:
    """A source that breaks its promise to raise nothing but `SourceError`."""

    longest_list = 30.0

    def list(self) -> Listing:
        raise ZeroDivisionError("a bug")

    def watch(self, resource_version: str, seconds: float) -> Iterator[Event]:
        raise NotImplementedError

    def renew_credentials(self) -> None:
        raise NotImplementedError


def test_a_bug_in_the_source_ends_the_thread_and_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    before = counted("gateway_polls_total", "result", "internal_error")
    polled = Polled(world, source=Buggy())
    polled.poller.start()
    expected = "the discovery thread died: ZeroDivisionError: a bug"
    wait_for(lambda: polled.poller.trouble() == expected, "the death is told")
    assert counted("gateway_polls_total", "result", "internal_error") == before + 1
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]


def test_a_thread_that_polls_is_well_and_ends_when_it_is_told_to(world: World) -> None:
    world.lists = [listing("10.0.0.1")]
    polled = Polled(world)
    polled.poller.start()
    wait_for(lambda: len(world.waits) > 10, "it has polled")
    assert polled.poller.trouble() is None
    polled.poller.stop()
    wait_for(lambda: polled.poller.trouble() is not None, "it has ended")
    assert polled.poller.trouble() == "the discovery thread is not running"


class Silent(Buggy):
    """A source that hangs until it is released, as if no timeout bounded it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hanging = True
        self.asked = False

    def list(self) -> Listing:
        self.asked = True
        wait_for(lambda: not self.hanging, "the test is over")
        return listing()


@pytest.mark.parametrize(("poll", "patience"), [(0.1, 3.0), (2.0, 20.0), (300.0, 60.0)])
def test_a_thread_that_hangs_is_told_ten_intervals_after_the_longest_list(
    world: World, poll: float, patience: float
) -> None:
    source = Silent(world)
    polled = Polled(world, source=source, poll=poll)
    polled.poller.start()
    wait_for(lambda: source.asked, "it hangs")
    try:
        world.now += source.longest_list + patience
        assert polled.poller.trouble() is None
        world.now += 1
        stuck = f"the discovery thread has been stuck for {patience + 1:.0f} s"
        assert polled.poller.trouble() == stuck
    finally:
        polled.poller.stop()
        source.hanging = False
    wait_for(lambda: "not running" in (polled.poller.trouble() or ""), "it has ended")


@pytest.mark.parametrize("poll", [2.0, 300.0])
@pytest.mark.parametrize("then", [SERVER_ERROR, listing(version="1")])
def test_a_long_wait_or_watch_is_no_trouble(
    world: World, poll: float, then: Listing | SourceError
) -> None:
    """While an API server is away the waits grow; readiness must not suffer from that."""
    world.lists = [listing(), then]
    polled = Polled(world, poll=poll)
    troubles: list[str | None] = []

    def look() -> None:
        troubles.append(polled.poller.trouble())
        if len(troubles) == 8:
            polled.poller.stop()

    world.at_the_end = look
    polled.poller.start()
    wait_for(lambda: "not running" in (polled.poller.trouble() or ""), "it has ended")
    assert troubles == [None] * 8


def test_the_published_snapshot_rests_on_the_pure_reading(world: World) -> None:
    world.lists = [listing("10.0.0.2", "10.0.0.1", ready=False)]
    polled = Polled(world)
    polled.steps(1)
    slices = SliceSet(Reading())
    slices.replace(listing("10.0.0.2", "10.0.0.1", ready=False).items)
    assert polled.store.snapshot() == slices.snapshot(1000.0)
