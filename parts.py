"""What a gateway is made of, and how it starts and stops; nothing here decides anything."""

import threading
import time
from dataclasses import dataclass, field

from cache.endpoints import Pool
from cache.poller import Poller
from cache.store import EndpointsStale, EndpointsUnknown, SnapshotStore
from events import EventLog
from load.scraper import Scraper
from load.values import LoadStore
from peers import Facts, Peers
from proxy.drain import Drain
from proxy.inference import InferenceHandler
from proxy.record import begin_series
from proxy.relayed import StreamRelay
from proxy.spares import Spares
from proxy.trace import OFF, Tracing
from routing.router import Router
from settings import Settings


@dataclass(slots=True)
class Gateway:
    """The parts that live as long as a worker does. Build one per process, after the fork."""

    settings: Settings
    store: SnapshotStore
    poller: Poller
    loads: LoadStore
    scraper: Scraper | None
    router: Router
    inference: InferenceHandler
    drain: Drain
    peers: Peers
    relay: StreamRelay | None
    spares: Spares
    informed: threading.Event  # set by the first good list
    events: EventLog
    started_at: float  # by the monotonic clock
    started: float = field(default_factory=time.time)
    tracing: Tracing = OFF

    def start(self) -> None:
        """Start what runs in the background."""
        self.tracing.start()
        begin_series()
        self.peers.start()
        if self.relay is not None:
            self.relay.link.start()
            self.spares.start()
        self.poller.start()
        if self.scraper is not None:
            self.scraper.start()

    def wait_until_informed(self, seconds: float) -> None:
        """Wait for the first good list, but no longer than `seconds`."""
        self.informed.wait(seconds)

    def wait_until_linked(self, seconds: float) -> None:
        """Wait for the relay, but no longer than `seconds`."""
        if self.relay is not None:
            self.relay.link.linked.wait(seconds)

    def begin_draining(self) -> None:
        """Turn unready at once; what runs goes on until the grace is over."""
        self.drain.begin()
        if self.relay is not None:
            self.relay.link.leave()

    @property
    def streams(self) -> bool:
        """Whether this worker accounts for streams that the relay moves, or may yet have to."""
        return self.relay is not None and self.relay.link.needed

    def stop(self) -> None:
        """Stop what runs in the background."""
        self.poller.stop()
        if self.scraper is not None:
            self.scraper.stop()
        self.peers.stop()
        if self.relay is not None:
            self.relay.link.stop()
        self.tracing.stop()

    def trouble(self) -> str | None:
        """Why this worker should get no traffic, or None if it should."""
        if self.drain.begun:
            return "draining"
        if (trouble := self.poller.trouble()) is not None:
            return trouble
        try:
            self.store.snapshot()
        except (EndpointsUnknown, EndpointsStale) as error:
            return str(error)
        return None

    def facts(self) -> Facts:
        """What only this worker knows."""
        return Facts.of(
            self.router.in_flight.counts(),
            self.router.aside.set_aside(),
            started=self.started_at,
            trouble=self.trouble(),
            events=self.events.asides(),
            errors=self.router.errors.all(),
        )

    def pools(self) -> list[Pool]:
        """All models' pools; none where nothing trustworthy is known."""
        return pools_of(self.store)


def pools_of(store: SnapshotStore) -> list[Pool]:
    """All models' pools; none where nothing trustworthy is known."""
    try:
        return list(store.snapshot().pools.values())
    except (EndpointsUnknown, EndpointsStale):
        return []
