"""The parts of a gateway and how they are put together; nothing here decides anything."""

import random
import resource
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
from proxy.inference import INFERENCE_PATHS, InferenceHandler
from proxy.keys import ApiKeys, UpstreamKey
from proxy.pool import ConnectionPool
from proxy.relayed import Limits, StreamRelay
from proxy.spares import Spares
from proxy.transport import EndpointAdapter, Transport
from routing.aside import SetAside
from routing.budget import RetryBudget
from routing.inflight import InFlight
from routing.router import Router
from settings import Settings

#: The part of all file descriptors that idle connections may take; `gunicorn.conf.py` leaves it.
_IDLE_PART = 8


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
    relay: StreamRelay | None
    spares: Spares
    informed: threading.Event  # set by the first good list
    started: float = field(default_factory=time.time)

    def start(self) -> None:
        """Start what runs in the background."""
        self.peers.start()
        if self.relay is not None:
            self.relay.link.start()
            self.spares.start()
        self.poller.start()

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
    def streams(self) -> int:
        """How many streams this worker accounts for while the relay moves them."""
        return 0 if self.relay is None else self.relay.link.count

    def stop(self) -> None:
        """Stop what runs in the background."""
        self.poller.stop()
        self.peers.stop()
        if self.relay is not None:
            self.relay.link.stop()

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
    in_flight = InFlight()
    # Longer than a connect may take: its failure ends the trial, and not the clock.
    aside = SetAside(clock, trial_seconds=2 * settings.connect_timeout)
    connections = _connections(settings, clock)
    informed = threading.Event()

    def on_change(snapshot: Snapshot) -> None:
        informed.set()
        aside.observe(snapshot)
        connections.prune(snapshot.known(connections.sizes()))

    router = _router(settings, store, in_flight, aside, rng)
    relay = _relay(settings, directory, in_flight, clock)

    def end_what_runs() -> None:
        connections.shut_down_all()
        if relay is not None:
            relay.link.cut()

    drain = Drain(settings.grace_seconds, end_what_runs)
    return Gateway(
        settings,
        store,
        _poller(settings, source, store, on_change, clock, rng),
        router,
        _inference(settings, router, connections, drain, relay, clock),
        drain,
        Peers(directory, lambda: Facts.of(in_flight.counts(), aside.set_aside())),
        relay,
        connections.spares,
        informed,
    )


def _connections(settings: Settings, clock: Callable[[], float]) -> ConnectionPool:
    return ConnectionPool(
        clock,
        per_endpoint=settings.threads,
        most_idle=resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _IDLE_PART,
        spare_timeout=settings.connect_timeout,
    )


def _router(
    settings: Settings,
    store: SnapshotStore,
    in_flight: InFlight,
    aside: SetAside,
    rng: random.Random,
) -> Router:
    return Router(
        store,
        in_flight,
        aside,
        default_strategy=settings.strategy,
        rng=rng,
        service=settings.service,
        terminating_fallback=settings.terminating_fallback,
    )


def _relay(
    settings: Settings, directory: Path | None, in_flight: InFlight, clock: Callable[[], float]
) -> StreamRelay | None:
    if directory is None or not settings.relay:
        return None
    limits = Limits(settings.idle_timeout, settings.send_timeout, settings.total_timeout)
    return StreamRelay(directory, limits, in_flight, clock)


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
    relay: StreamRelay | None,
    clock: Callable[[], float],
) -> InferenceHandler:
    transport = Transport(
        EndpointAdapter(
            connections,
            clock,
            idle_timeout=settings.idle_timeout,
            total_timeout=settings.total_timeout,
        ),
        connect_timeout=settings.connect_timeout,
        first_byte_timeout=settings.first_byte_timeout,
    )
    forwarder = Forwarder(
        transport, RetryBudget(clock), retries=settings.retries, replay=settings.replay
    )
    upstream_key = settings.upstream_api_key_file
    return InferenceHandler(
        router,
        forwarder,
        drain,
        paths=(*INFERENCE_PATHS, *settings.extra_paths),
        capacity=settings.threads,
        max_body_bytes=settings.max_body_bytes,
        retry_after=settings.retry_after,
        max_streams=settings.max_streams,
        relay=relay,
        keys=ApiKeys(settings.api_keys_file) if settings.api_keys_file else None,
        upstream_key=UpstreamKey(upstream_key) if upstream_key else None,
        clock=clock,
    )
