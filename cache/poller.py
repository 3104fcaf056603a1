"""The daemon thread that keeps the store fresh: list, then watch until the next list is due."""

import logging
import threading
import time
from collections.abc import Callable

from cache.endpoints import Snapshot
from cache.slices import SliceSet
from cache.source import Source, SourceError
from cache.store import SnapshotStore
from metrics import LISTED_AT, POLLS, SKIPPED, SNAPSHOT_TTL, WATCHES

log = logging.getLogger("gateway.discovery")

#: The wait after the first failed poll, which is doubled with each further one: one hiccup of the
#: API server shall not hide changes for a long interval.
FIRST_BACKOFF_SECONDS = 1.0
#: A wait after failed polls is at most this many poll intervals, whatever `Retry-After` says.
MAX_BACKOFF_INTERVALS = 5
#: Before the first good list nobody can be served, so a failed one is repeated at least so often.
FIRST_LIST_RETRY_SECONDS = 0.5
#: The thread counts as stuck when its next sign of life is overdue by this many poll intervals,
#: within these bounds in seconds. What takes long, it announces: a list, a watch, a wait. The rest
#: is work on what came, which a busy machine may stretch.
STUCK_INTERVALS = 10
STUCK_LEAST_SECONDS, STUCK_MOST_SECONDS = 3.0, 60.0
#: A watch that was forbidden is tried again after this long: rights may have been granted, or an
#: API server was only starting, which forbids everything for some milliseconds.
WATCH_AGAIN_SECONDS = 60.0


class Poller:
    """Feeds the store from a source.

    `on_change` is told every new snapshot. `clock` is monotonic; `wait(seconds)` returns early and
    true when the poller is to stop; `jitter()` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        source: Source,
        store: SnapshotStore,
        slices: SliceSet,
        *,
        poll_seconds: float,
        watch: bool,
        jitter: Callable[[], float],
        on_change: Callable[[Snapshot], None],
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._source = source
        self._store = store
        self._slices = slices
        self._poll_seconds = poll_seconds
        self._stuck_after = min(
            max(STUCK_INTERVALS * poll_seconds, STUCK_LEAST_SECONDS), STUCK_MOST_SECONDS
        )
        self._watch_from = 0.0 if watch else float("inf")
        self._jitter = jitter
        self._on_change = on_change
        self._clock = clock
        self._stopping = threading.Event()
        self._wait = wait or self._stopping.wait
        self._failures = 0
        self._failed_watches = 0
        self._warned_of_watch = False
        self._last_failure: str | None = None
        self._sign_due = clock()
        self._died: str | None = None
        self._thread = threading.Thread(target=self.run, name="poller", daemon=True)

    def start(self) -> None:
        """Start the thread. Once per process, after the fork."""
        LISTED_AT.set(0.0)  # never yet, which must not look like a worker that is not there
        SNAPSHOT_TTL.set(self._store.ttl)
        for results in (POLLS, WATCHES):
            results.labels("ok")  # a count that begins with 1 is no increase to Prometheus
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does when its present step is over."""
        self._stopping.set()

    def run(self) -> None:
        """Step until stopped. A bug ends the thread, which `/healthz` then tells."""
        try:
            while not self._stopping.is_set():
                self.step()
        except Exception as error:  # noqa: BLE001 - its consequence is the end of the thread
            reason = f"{type(error).__name__}: {error}"
            POLLS.labels("internal_error").inc()
            log.critical("discovery died and needs a restart: %s", reason)
            self._died = reason

    def trouble(self) -> str | None:
        """Why this thread can't be relied on, or None if it is well."""
        if self._died is not None:
            return f"the discovery thread died: {self._died}"
        if not self._thread.is_alive():
            return "the discovery thread is not running"
        overdue = self._clock() - self._sign_due
        if overdue > self._stuck_after:
            return f"the discovery thread has been stuck for {overdue:.0f} s"
        return None

    @property
    def last_failure(self) -> str | None:
        """What the last poll failed with; None after a good one."""
        return self._last_failure

    def step(self) -> None:
        """One list and what follows it: a watch until the next is due, or a wait."""
        started = self._sign_of_life(then=self._source.longest_list)
        try:
            listing = self._source.list()
        except SourceError as error:
            self._list_failed(error)
            return
        self._list_succeeded()
        self._publish(self._slices.replace(listing.items), started)
        # A server so slow that the next list is due already gets a pause all the same.
        due = max(started + self._poll_seconds, self._clock() + self._poll_seconds / 2)
        if listing.resource_version is not None and self._clock() >= self._watch_from:
            self._watch(listing.resource_version, started, due)
        else:
            self._pause(due - self._clock())

    def _watch(self, version: str, listed_at: float, due: float) -> None:
        """Apply changes until `due`. Whatever ends the watch, the next step's list repairs it."""
        try:
            while (remaining := due - self._clock()) > 0 and not self._stopping.is_set():
                opened = self._sign_of_life(then=remaining)
                for event in self._source.watch(version, remaining):
                    self._sign_of_life(then=due - self._clock())
                    version = _version_of(event.object) or version
                    if event.kind != "BOOKMARK":
                        self._publish(self._slices.apply(event.kind, event.object), listed_at)
                self._watch_succeeded()
                if self._clock() - opened < remaining / 2:
                    self._pause(min(remaining, 0.1))  # a server that hangs up at once
        except SourceError as error:
            self._watch_failed(error, due)

    def _publish(self, skipped: list[str], listed_at: float) -> None:
        for reason in skipped:
            SKIPPED.labels(reason).inc()
        snapshot = self._slices.snapshot(listed_at)
        self._store.put(snapshot)
        self._on_change(snapshot)
        LISTED_AT.set(listed_at)

    def _list_succeeded(self) -> None:
        self._sign_of_life()
        POLLS.labels("ok").inc()
        if self._last_failure is not None:
            log.info("discovery works again after %d failed polls", self._failures)
        self._failures = 0
        self._last_failure = None

    def _list_failed(self, error: SourceError) -> None:
        """Count it, say it once, keep what is known, and wait longer each time."""
        POLLS.labels(error.kind).inc()
        self._failures += 1
        first_of_its_kind = error.kind != self._last_failure
        if first_of_its_kind:
            log.warning("EndpointSlices can't be listed (%s): %s", error.kind, error)
        self._last_failure = error.kind
        if error.kind == "unauthorized":
            self._renew_credentials()
            if first_of_its_kind:
                return  # with a new token the next list may succeed at once
        self._pause(self._backoff(error.retry_after or 0.0))

    def _backoff(self, asked: float) -> float:
        longest = self._poll_seconds * MAX_BACKOFF_INTERVALS
        first = min(self._poll_seconds, FIRST_BACKOFF_SECONDS)
        doubled = first * 2.0 ** min(self._failures - 1, 20)
        seconds = min(doubled, longest) * (0.5 + self._jitter() / 2)
        if self._store.age() is None:
            seconds = min(seconds, FIRST_LIST_RETRY_SECONDS)
        return max(seconds, min(asked, longest))

    def _renew_credentials(self) -> None:
        try:
            self._source.renew_credentials()
        except SourceError as error:
            log.warning("the credentials can't be read again: %s", error)

    def _watch_succeeded(self) -> None:
        WATCHES.labels("ok").inc()
        self._failed_watches = 0
        if self._warned_of_watch:
            log.info("EndpointSlices can be watched again")
        self._warned_of_watch = False

    def _watch_failed(self, error: SourceError, due: float) -> None:
        WATCHES.labels(error.kind).inc()
        self._failed_watches += 1
        if error.kind == "forbidden":
            self._watch_from = self._clock() + WATCH_AGAIN_SECONDS
            if not self._warned_of_watch:
                log.warning(
                    "EndpointSlices can't be watched, so a change is seen after up to %g s: %s",
                    self._poll_seconds,
                    error,
                )
            self._warned_of_watch = True
        elif error.kind == "unauthorized":
            self._renew_credentials()
        # One broken watch is followed by a list at once; a server that breaks every one is not.
        if self._failed_watches > 1 or error.kind == "forbidden":
            self._pause(due - self._clock())

    def _pause(self, seconds: float) -> None:
        self._sign_of_life(then=max(0.0, seconds))
        self._wait(max(0.0, seconds))

    def _sign_of_life(self, then: float = 0.0) -> float:
        """Tell that the thread is well, and that it may be silent for the seconds of `then`."""
        now = self._clock()
        self._sign_due = now + then
        return now


def _version_of(item: object) -> str | None:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else None
