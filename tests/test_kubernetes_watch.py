"""Watches of the EndpointSlice API, over real sockets."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.kubernetes import KubernetesSource, Limits
from cache.source import Event
from simulator.apiserver import TOKEN
from simulator.cluster import Cluster
from tests.harness import wait_for
from tests.kube_source import PATIENCE, canned, failure_of, put, source_at

LIMITS = Limits(silence=1.2)
LONG = 30.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture
def source(cluster: Cluster, tmp_path: Path) -> Iterator[KubernetesSource]:
    source = source_at(cluster.kubeconfig(tmp_path / "kubeconfig"), LIMITS)
    yield source
    source.close()


class Watcher:
    """A watch in a thread of its own; what it told, and how it ended."""

    def __init__(self, source: KubernetesSource, seconds: float) -> None:
        self.events: list[Event] = []
        self.error: Exception | None = None
        self.began = self.ended = time.monotonic()
        self._watch = source.watch(source.list().resource_version or "", seconds)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.events.extend(self._watch)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self.ended = time.monotonic()

    def told(self) -> list[tuple[str, str]]:
        return [(e.kind, e.object["metadata"].get("name", "")) for e in self.events]

    def wait(self) -> float:
        """Wait for its end and return the seconds it took."""
        self._thread.join(LONG)
        assert not self._thread.is_alive()
        return self.ended - self.began


def test_changes_are_told_while_the_watch_is_open(
    cluster: Cluster, source: KubernetesSource
) -> None:
    put(cluster, "a")
    watcher = Watcher(source, 1.0)
    wait_for(lambda: cluster.api.open_watches, "the watch is open")
    put(cluster, "b")
    put(cluster, "unselected", labelled=False)
    put(cluster, "b")
    put(cluster, "a", labelled=False)
    assert watcher.wait() < 1.5 + PATIENCE
    assert watcher.told() == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]
    assert watcher.error is None


def test_an_event_comes_when_it_happens_not_when_the_watch_ends(
    cluster: Cluster, source: KubernetesSource
) -> None:
    version = source.list().resource_version or ""
    put(cluster, "a")
    began = time.monotonic()
    watch = source.watch(version, LONG)
    assert next(watch).kind == "ADDED"
    assert time.monotonic() - began < PATIENCE
    watch.close()  # type: ignore[attr-defined]
    wait_for(lambda: not cluster.api.open_watches, "the watch is closed with its reader")


def test_a_watch_asks_for_bookmarks_whole_seconds_and_the_lists_version(
    cluster: Cluster, source: KubernetesSource
) -> None:
    list(source.watch("1000", 0.1))
    query = cluster.api.requests[-1].query
    assert query["resourceVersion"] == "1000"
    assert query["timeoutSeconds"] == "1"
    assert query["allowWatchBookmarks"] in ("true", "True")
    assert query["labelSelector"] == "model.aibrix.ai/name"


def test_bookmarks_are_told(cluster: Cluster, source: KubernetesSource) -> None:
    cluster.api.bookmark_seconds = 0.1
    put(cluster, "unselected", labelled=False)
    bookmark = next(source.watch("1000", LONG))
    assert bookmark.kind == "BOOKMARK"
    assert bookmark.object["metadata"]["resourceVersion"] == "1001"


@pytest.mark.parametrize("seconds", [0.2, 1.0])
def test_a_watch_without_a_change_ends_quietly_on_time(
    source: KubernetesSource, seconds: float
) -> None:
    began = time.monotonic()
    assert list(source.watch("1000", seconds)) == []
    assert seconds - 0.4 < time.monotonic() - began < seconds + 0.5 + PATIENCE


def test_a_watch_that_falls_silent_ends_quietly_long_before_its_time(
    cluster: Cluster, source: KubernetesSource
) -> None:
    watcher = Watcher(source, LONG)
    wait_for(lambda: cluster.api.open_watches, "the watch is open")
    cluster.api.fault("freeze-watch")
    put(cluster, "a")
    assert watcher.wait() < LIMITS.silence + PATIENCE
    assert (watcher.events, watcher.error) == ([], None)


@pytest.mark.parametrize("form", ["event", "http"])
def test_an_expired_version_is_expired_however_it_is_told(
    cluster: Cluster, source: KubernetesSource, form: str
) -> None:
    cluster.api.expired_watch = "event" if form == "event" else "http"
    put(cluster, "a")
    cluster.api.compact()
    error = failure_of(lambda: list(source.watch("1000", 1.0)))
    assert error.kind == "expired"
    assert "too old resource version" in str(error)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("401", "unauthorized"),
        ("403", "forbidden"),
        ("429", "throttled"),
        ("500", "server_error"),
        ("refuse", "unreachable"),
        ("hang", "timeout"),
        ("drip", "timeout"),
        ("garbage", "garbage"),
        ("truncated", "unreachable"),
    ],
)
def test_every_way_to_fail_has_its_kind_and_none_outlasts_the_watch(
    cluster: Cluster, source: KubernetesSource, fault: str, kind: str
) -> None:
    cluster.api.fault(fault)
    began = time.monotonic()
    assert failure_of(lambda: list(source.watch("1000", 1.0))).kind == kind
    assert time.monotonic() - began < 1.5 + PATIENCE
    cluster.api.heal()
    assert source.list().items == []


def test_a_watch_that_is_reset_is_unreachable(cluster: Cluster, source: KubernetesSource) -> None:
    watcher = Watcher(source, LONG)
    wait_for(lambda: cluster.api.open_watches, "the watch is open")
    cluster.api.fault("break-watch")
    watcher.wait()
    assert getattr(watcher.error, "kind", None) == "unreachable"


def test_an_open_watch_outlives_rights_and_token(
    cluster: Cluster, source: KubernetesSource
) -> None:
    watcher = Watcher(source, 1.0)
    wait_for(lambda: cluster.api.open_watches, "the watch is open")
    cluster.api.forbid("watch")
    cluster.api.tokens.discard(TOKEN)
    put(cluster, "a")
    watcher.wait()
    assert watcher.told() == [("ADDED", "a")]
    assert failure_of(lambda: list(source.watch("1000", 1.0))).kind == "unauthorized"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"[]", "garbage"),
        (b'"ADDED"', "garbage"),
        (b'{"type":"ADDED"}', "garbage"),
        (b'{"type":"SHOUTED","object":{}}', "garbage"),
        (b'{"type":["ADDED"],"object":{}}', "garbage"),
        (b"[" * 100_000, "garbage"),
        (b'{"type":"ERROR","object":null}', "server_error"),
        (b'{"type":"ERROR","object":{"code":[410]}}', "server_error"),
        (b'{"type":"ERROR","object":{"code":500,"message":"no"}}', "server_error"),
        (b'{"type":"ERROR","object":{"code":410,"message":"old"}}', "expired"),
    ],
)
def test_odd_events_are_failures_of_the_watch(tmp_path: Path, line: bytes, kind: str) -> None:
    with canned(tmp_path, LIMITS, line + b"\n") as source:
        assert failure_of(lambda: list(source.watch("1", 1.0))).kind == kind


def test_half_an_event_at_the_end_is_no_event(tmp_path: Path) -> None:
    whole = b'{"type":"ADDED","object":{}}\n\n'
    with canned(tmp_path, LIMITS, whole + whole[:10]) as source:
        assert list(source.watch("1", 1.0)) == [Event("ADDED", {})]
