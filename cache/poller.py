"""The daemon thread that keeps the store fresh: list, then watch until the next list is due."""

import logging
import threading
import time
from collections.abc import Callable

from cache.endpoints import Snapshot
from cache.slices import SliceSet
from cache.source import Source, SourceError
from cache.store import SnapshotStore
from metrics import LISTED_AT, POLLS, SKIPPED, WATCHES

log = logging.getLogger("gateway.discovery")

#: A wait after failed polls is at most this many poll intervals, whatever `Retry-After` says.
MAX_BACKOFF_INTERVALS = 5
#: Before the first good list nobody can be served, so a failed one is repeated at least so often.
FIRST_LIST_RETRY_SECONDS = 0.5
#: Without a sign of life for this long, on top of the interval, the thread counts as stuck. Every
#: wait of a step is bounded well below it.
STUCK_SECONDS = 60.0
#: A watch that was forbidden is tried again after this long: rights may have been granted.
WATCH_AGAIN_SECONDS = 300.0


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
        self._last_sign = clock()
        self._died: str | None = None
        self._thread = threading.Thread(target=self.run, name="poller", daemon=True)

    def start(self) -> None:
        """Start the thread. Once per process, after the fork."""
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
            self._died = f"{type(error).__name__}: {error}"
            POLLS.labels("internal_error").inc()
            log.critical("discovery died and needs a restart: %s", self._died)

    def trouble(self) -> str | None:
        """Why this thread can't be relied on, or None if it is well."""
        if self._died is not None:
            return f"the discovery thread died: {self._died}"
        if not self._thread.is_alive():
            return "the discovery thread is not running"
        silent = self._clock() - self._last_sign
        if silent > self._poll_seconds + STUCK_SECONDS:
            return f"the discovery thread has been stuck for {silent:.0f} s"
        return None

    @property
    def last_failure(self) -> str | None:
        """What the last poll failed with; None after a good one."""
        return self._last_failure

    def step(self) -> None:
        """One list and what follows it: a watch until the next is due, or a wait."""
        started = self._sign_of_life()
        try:
            listing = self._source.list()
        except SourceError as error:
            self._list_failed(error)
            return
        self._list_succeeded()
        self._publish(self._slices.replace(listing.items), started)
        due = started + self._poll_seconds
        if listing.resource_version is not None and self._clock() >= self._watch_from:
            self._watch(listing.resource_version, started, due)
        else:
            self._wait(max(0.0, due - self._clock()))

    def _watch(self, version: str, listed_at: float, due: float) -> None:
        """Apply changes until `due`. Whatever ends the watch, the next step's list repairs it."""
        try:
            while (remaining := due - self._clock()) > 0 and not self._stopping.is_set():
                opened = self._clock()
                for event in self._source.watch(version, remaining):
                    self._sign_of_life()
                    version = _version_of(event.object) or version
                    if event.kind != "BOOKMARK":
                        self._publish(self._slices.apply(event.kind, event.object), listed_at)
                self._failed_watches = 0
                WATCHES.labels("ok").inc()
                if self._clock() - opened < remaining / 2:
                    self._wait(min(remaining, 0.1))  # a server that hangs up at once
        except SourceError as error:
            self._watch_failed(error, due)

    def _publish(self, skipped: list[str], listed_at: float) -> None:
        for reason in skipped:
            SKIPPED.labels(reason).inc()
        snapshot = self._slices.snapshot(listed_at)
        self._store.put(snapshot)
        LISTED_AT.set(listed_at)
        self._on_change(snapshot)

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
        if error.kind != self._last_failure:
            log.warning("EndpointSlices can't be listed (%s): %s", error.kind, error)
        self._last_failure = error.kind
        if error.kind == "unauthorized":
            self._renew_credentials()
            if self._failures == 1:
                return  # with a new token the next list may succeed at once
        self._wait(self._backoff(error.retry_after or 0.0))

    def _backoff(self, asked: float) -> float:
        longest = self._poll_seconds * MAX_BACKOFF_INTERVALS
        doubled = self._poll_seconds * 2.0 ** min(self._failures - 1, 10)
        seconds = min(max(doubled * (0.5 + self._jitter() / 2), asked), longest)
        if self._store.age() is None:
            return min(seconds, FIRST_LIST_RETRY_SECONDS)
        return seconds

    def _renew_credentials(self) -> None:
        try:
            self._source.renew_credentials()
        except SourceError as error:
            log.warning("the credentials can't be read again: %s", error)

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
            self._wait(max(0.0, due - self._clock()))

    def _sign_of_life(self) -> float:
        self._last_sign = self._clock()
        return self._last_sign


def _version_of(item: object) -> str | None:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else None
