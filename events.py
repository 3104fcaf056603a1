"""The last changes of endpoints, for people: what became what, when, and how soon we knew."""

import contextlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import compress
from operator import is_not
from pathlib import Path

from cache.endpoints import Endpoint, Pool, Snapshot

log = logging.getLogger("gateway.events")

#: So many events are kept of each kind.
KEPT = 50
#: A change that is said to be older than so many seconds was not told by that slice's version.
_OLDEST_DELAY = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """One endpoint's change from one state to another; None is where there is no endpoint.

    `at` is the time at which this worker saw it, in seconds since the epoch. `delay` are the
    seconds since the API said so, None where that is not known; `exact` whether it is more than an
    upper bound.
    """

    at: float
    model: str
    name: str
    address: str
    before: str | None
    after: str | None
    delay: float | None = None
    exact: bool = False


class Chronicle:
    """The last changes in a file, with which a worker begins that comes after others.

    Every worker writes the same: what it began with and what it has seen since. So whichever was
    the last to write, nothing is missing, be the others replaced or killed. None keeps nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lines: deque[str] = deque(maxlen=KEPT)

    def read(self) -> list[Event]:
        """What is written there, oldest first; nothing where that can't be read."""
        self._lines.clear()
        if self._file is None:
            return []
        try:
            lines = self._file.read_text().splitlines()[-KEPT:]
            events = [Event(**json.loads(line)) for line in lines]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            log.warning("the last events can't be read: %s", error)
            return []
        self._lines.extend(lines)
        return events

    def write(self, events: Iterable[Event]) -> None:
        """Add `events`. Without room for them they are in this worker's memory only."""
        if self._file is None:
            return
        self._lines.extend(json.dumps(asdict(event)) for event in events)
        fresh = self._file.with_name(f"{self._file.name}-{os.getpid()}")
        try:
            fresh.write_text("\n".join(self._lines))
            fresh.replace(self._file)
        except OSError as error:
            log.debug("the last events can't be written: %s", error)
            with contextlib.suppress(OSError):
                fresh.unlink()


class EventLog:
    """What has happened to endpoints lately.

    Changes of slices are one kind of event and endpoints being set aside another, because the
    former are the same in every worker, also in those before it, which `chronicle` has, and the
    latter each worker's own. `wall` is the time since the epoch, in seconds.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, chronicle: Chronicle | None = None
    ) -> None:
        self._wall = wall
        self._chronicle = chronicle or Chronicle(None)
        self._pools: Mapping[str, Pool] | None = None  # replaced, never edited
        self._lock = threading.Lock()  # guards: _changes, _asides
        self._changes = deque(self._chronicle.read(), maxlen=KEPT)
        self._asides: deque[Event] = deque(maxlen=KEPT)

    def observe(self, snapshot: Snapshot) -> list[Endpoint]:
        """Note how `snapshot` differs from the one before; return which endpoints are gone.

        Called at every watch event, so what did not change costs a comparison of references. The
        first snapshot is the beginning and no change. From the poller's thread only.
        """
        before, self._pools = self._pools, snapshot.pools
        if before is None:
            self._begin()
            return []
        now = self._wall()
        gone: list[Endpoint] = []
        changes: deque[Event] = deque(maxlen=KEPT)
        for old, new in _changed(before, snapshot.pools):
            for was, becomes in _differences(old, new):
                if becomes is None and was is not None:
                    gone.append(was)
                changes.append(_event(now, new.model, was, becomes))
        if changes:
            with self._lock:
                self._changes.extend(changes)
            self._chronicle.write(changes)
        return gone

    def _begin(self) -> None:
        """From now on this worker sees changes itself; what came before, others have written."""
        changes = self._chronicle.read()
        with self._lock:
            self._changes = deque(changes, maxlen=KEPT)

    def set_aside(self, endpoint: Endpoint, aside: bool) -> None:
        """Note that `endpoint` is set aside now, or used again."""
        before, after = ("ready", "set_aside") if aside else ("set_aside", "ready")
        event = Event(
            at=self._wall(),
            model=self._model_of(endpoint),
            name=endpoint.name,
            address=endpoint.authority,
            before=before,
            after=after,
        )
        with self._lock:
            self._asides.append(event)

    def changes(self) -> list[Event]:
        """What slices told, oldest first."""
        with self._lock:
            return list(self._changes)

    def asides(self) -> list[Event]:
        """What this worker set aside and took back, oldest first."""
        with self._lock:
            return list(self._asides)

    def _model_of(self, endpoint: Endpoint) -> str:
        pools = self._pools or {}
        return next((pool.model for pool in pools.values() if endpoint.key in pool.keys), "")


def _changed(before: Mapping[str, Pool], after: Mapping[str, Pool]) -> Iterator[tuple[Pool, Pool]]:
    """The pools that differ, as they were and are."""
    if list(before) == list(after):  # nearly always; they are sorted
        pairs = zip(before.values(), after.values(), strict=True)
        yield from compress(pairs, map(is_not, before.values(), after.values()))
        return
    for model in {**before, **after}:
        old, new = before.get(model) or Pool(model), after.get(model) or Pool(model)
        if old is not new:
            yield old, new


def _differences(old: Pool, new: Pool) -> Iterator[tuple[Endpoint | None, Endpoint | None]]:
    """Endpoints whose state or pod differs. Another pod at the same address is another endpoint."""
    known = {endpoint.key: endpoint for endpoint in old.endpoints}
    for endpoint in new.endpoints:
        was = known.pop(endpoint.key, None)
        if was is not None and was.pod != endpoint.pod:
            yield was, None
            was = None
        if was is None or was.state != endpoint.state:
            yield was, endpoint
    for was in known.values():
        yield was, None


def _event(now: float, model: str, was: Endpoint | None, becomes: Endpoint | None) -> Event:
    shown = becomes or was
    if shown is None:
        raise ValueError("a change needs an endpoint")
    delay, exact = None, False
    # A trigger time that did not change with the endpoint belongs to an earlier change.
    if becomes is not None and (was is None or was.triggered != becomes.triggered):
        delay, exact = delay_since(becomes.triggered, now)
    return Event(
        at=now,
        model=model,
        name=shown.name,
        address=shown.authority,
        before=None if was is None else was.state,
        after=None if becomes is None else becomes.state,
        delay=delay,
        exact=exact,
    )


def delay_since(triggered: str | None, now: float) -> tuple[float | None, bool]:
    """Seconds from `triggered`, a time as RFC 3339 writes it, to `now`; and whether they are exact.

    Kubernetes knows the times of most changes to the second only, which it cuts off: then it is an
    upper bound. None where the time is missing, no time, or none that clocks could agree on.
    """
    if triggered is None:
        return None, False
    try:
        then = datetime.fromisoformat(triggered)
    except ValueError:
        return None, False
    if then.tzinfo is None:
        return None, False
    delay = now - then.timestamp()
    if not 0 <= delay <= _OLDEST_DELAY:
        return None, False
    return delay, then.microsecond != 0
