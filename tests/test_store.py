"""The TTL cache: unknown, fresh, stale."""

import threading

import pytest

from cache.endpoints import Endpoint, Pool, Snapshot
from cache.store import EndpointsStale, EndpointsUnknown, SnapshotStore

TTL = 600.0


class Timer:
    """A clock that is set by hand; it starts where a machine long since up would be."""

    def __init__(self) -> None:
        self.now = 50_000.0

    def __call__(self) -> float:
        return self.now


def snapshot(listed_at: float, *models: str) -> Snapshot:
    return Snapshot({model: Pool(model) for model in models}, listed_at)


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def store(timer: Timer) -> SnapshotStore:
    return SnapshotStore(TTL, timer)


def test_before_the_first_list_nothing_is_known(store: SnapshotStore) -> None:
    assert store.age() is None
    with pytest.raises(EndpointsUnknown):
        store.snapshot()


def test_the_latest_snapshot_is_the_one_that_was_put_not_a_copy(
    store: SnapshotStore, timer: Timer
) -> None:
    latest = snapshot(timer.now, "b")
    store.put(snapshot(timer.now, "a"))
    store.put(latest)
    assert store.snapshot() is latest


def test_an_empty_list_is_knowledge_too(store: SnapshotStore, timer: Timer) -> None:
    store.put(snapshot(timer.now, "a"))
    store.put(snapshot(timer.now))
    assert not store.snapshot().pools


def test_age_counts_from_the_moment_the_list_began(store: SnapshotStore, timer: Timer) -> None:
    store.put(snapshot(timer.now - 3))
    timer.now += 4
    assert store.age() == 7


def test_the_last_good_list_serves_until_it_is_ttl_seconds_old(
    store: SnapshotStore, timer: Timer
) -> None:
    last = snapshot(timer.now, "a")
    store.put(last)
    timer.now += TTL - 0.001
    assert store.snapshot() is last
    timer.now += 0.001
    with pytest.raises(EndpointsStale, match="600 s old"):
        store.snapshot()
    assert store.age() == TTL


def test_stale_is_never_mistaken_for_unknown(store: SnapshotStore, timer: Timer) -> None:
    store.put(snapshot(timer.now))
    timer.now += 10 * TTL
    for _ in range(2):
        with pytest.raises(EndpointsStale):
            store.snapshot()


def test_a_watch_event_changes_the_pools_and_not_the_age(
    store: SnapshotStore, timer: Timer
) -> None:
    listed_at = timer.now
    store.put(snapshot(listed_at, "a"))
    timer.now += TTL - 1
    store.put(snapshot(listed_at, "a", "b"))
    assert list(store.snapshot().pools) == ["a", "b"]
    assert store.age() == TTL - 1
    timer.now += 1
    with pytest.raises(EndpointsStale):
        store.snapshot()


def test_a_watch_event_on_a_stale_list_makes_nothing_fresh(
    store: SnapshotStore, timer: Timer
) -> None:
    listed_at = timer.now
    store.put(snapshot(listed_at, "a"))
    timer.now += TTL + 1
    store.put(snapshot(listed_at, "b"))
    with pytest.raises(EndpointsStale):
        store.snapshot()


def test_a_good_list_ends_staleness(store: SnapshotStore, timer: Timer) -> None:
    store.put(snapshot(timer.now))
    timer.now += 2 * TTL
    store.put(snapshot(timer.now, "a"))
    assert list(store.snapshot().pools) == ["a"]
    assert store.age() == 0


def test_readers_see_whole_snapshots_while_they_are_replaced(
    store: SnapshotStore, timer: Timer
) -> None:
    def generation(number: int) -> Snapshot:
        endpoints = tuple(Endpoint(f"10.0.0.{last}", 1 + number) for last in range(5))
        return Snapshot({"a": Pool("a", endpoints)}, timer.now)

    store.put(generation(0))
    done = threading.Event()
    torn: list[set[int]] = []

    def read() -> None:
        while not done.is_set():
            ports = {endpoint.port for endpoint in store.snapshot().pools["a"].routable}
            if len(ports) != 1:
                torn.append(ports)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(500):
        store.put(generation(number))
    done.set()
    for reader in readers:
        reader.join()
    assert torn == []
