"""The parts of a gateway and how they are put together; nothing here decides anything."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cache.endpoints import Pool, Snapshot
from cache.poller import Poller
from cache.slices import Reading, SliceSet
from cache.source import Source
from cache.store import EndpointsStale, EndpointsUnknown, SnapshotStore
from peers import Facts, Peers
from proxy.drain import Drain
from proxy.forwarder import Forwarder
from proxy.inference import InferenceHandler
from proxy.keys import ApiKeys
from proxy.pool import ConnectionPool
from proxy.transport import EndpointAdapter, Transport
from routing.aside import SetAside
from routing.budget import RetryBudget
from routing.inflight import InFlight
from routing.router import Router
from settings import Settings


@dataclass(slots=True)
class Gateway:
    """The parts that live as long as a worker does. Build one per process, after the fork."""

    settings: Settings
    store: SnapshotStore
    poller: Poller
    router: Router
    inference: InferenceHandler
    drain: Drain
    peers: Peers
    informed: threading.Event  # set by the first good list
    started: float = field(default_factory=time.time)

    def start(self) -> None:
        """Start what runs in the background."""
        self.peers.start()
        self.poller.start()

    def wait_until_informed(self, seconds: float) -> None:
        """Wait for the first good list, but no longer than `seconds`."""
        self.informed.wait(seconds)

    def begin_draining(self) -> None:
        """Turn unready at once; what runs goes on until the grace is over."""
        self.drain.begin()

    def stop(self) -> None:
        """Stop what runs in the background."""
        self.poller.stop()
        self.peers.stop()

    def pools(self) -> list[Pool]:
        """All models' pools; none where nothing trustworthy is known."""
        try:
            return list(self.store.snapshot().pools.values())
        except (EndpointsUnknown, EndpointsStale):
            return []


def build(
    settings: Settings,
    source: Source,
    *,
    directory: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
    rng: random.Random | None = None,
) -> Gateway:
    """Put the parts together. Nothing runs before `Gateway.start`.

    `directory` is shared by the workers of one gateway, None where there is only this one.
    """
    rng = rng or random.Random()
    store = SnapshotStore(settings.cache_ttl, clock)
    in_flight, aside = InFlight(), SetAside(clock)
    connections = ConnectionPool(clock, per_endpoint=settings.threads)
    informed = threading.Event()

    def on_change(snapshot: Snapshot) -> None:
        informed.set()
        aside.observe(snapshot)
        connections.prune(snapshot.keys())

    router = Router(
        store,
        in_flight,
        aside,
        default_strategy=settings.strategy,
        rng=rng,
        service=settings.service,
        terminating_fallback=settings.terminating_fallback,
    )
    drain = Drain(settings.grace_seconds, connections.shut_down_all)
    return Gateway(
        settings,
        store,
        _poller(settings, source, store, on_change, clock, rng),
        router,
        _inference(settings, router, connections, drain, clock),
        drain,
        Peers(directory, lambda: Facts.of(in_flight.counts(), aside.set_aside())),
        informed,
    )


def _poller(
    settings: Settings,
    source: Source,
    store: SnapshotStore,
    on_change: Callable[[Snapshot], None],
    clock: Callable[[], float],
    rng: random.Random,
) -> Poller:
    reading = Reading(
        service=settings.service,
        port_name=settings.port_name,
        require_serving=settings.require_serving,
        allow_loopback=settings.allow_loopback or settings.source_file is not None,
    )
    return Poller(
        source,
        store,
        SliceSet(reading),
        poll_seconds=settings.poll_seconds,
        watch=settings.watch,
        jitter=rng.random,
        on_change=on_change,
        clock=clock,
    )


def _inference(
    settings: Settings,
    router: Router,
    connections: ConnectionPool,
    drain: Drain,
    clock: Callable[[], float],
) -> InferenceHandler:
    transport = Transport(
        EndpointAdapter(connections, clock, idle_timeout=settings.idle_timeout),
        connect_timeout=settings.connect_timeout,
        first_byte_timeout=settings.first_byte_timeout,
    )
    forwarder = Forwarder(
        transport, RetryBudget(clock), retries=settings.retries, replay=settings.replay
    )
    return InferenceHandler(
        router,
        forwarder,
        drain,
        capacity=settings.threads,
        max_body_bytes=settings.max_body_bytes,
        retry_after=settings.retry_after,
        keys=ApiKeys(settings.api_keys_file) if settings.api_keys_file else None,
        clock=clock,
    )
