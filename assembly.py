"""How a gateway's parts are put together, as the settings say."""

import os
import random
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cache.endpoints import Snapshot
from cache.poller import Poller
from cache.slices import Reading, SliceSet
from cache.source import Source
from cache.store import SnapshotStore
from events import Chronicle, EventLog
from load.scraper import Scraper
from load.values import LoadStore
from parts import Gateway, pools_of
from peers import Peers
from proxy.drain import Drain
from proxy.forwarder import Forwarder
from proxy.hold import Hold
from proxy.inference import INFERENCE_PATHS, InferenceHandler
from proxy.keys import ApiKeys, UpstreamKey
from proxy.naming import Naming
from proxy.pages import MetricsPages
from proxy.pool import ConnectionPool
from proxy.relayed import Limits, StreamRelay
from proxy.trace import Tracing
from proxy.transport import EndpointAdapter, Transport
from routing.aside import SetAside
from routing.budget import RetryBudget
from routing.inflight import InFlight
from routing.router import Router
from settings import Settings
from tracing.environment import from_environ

#: The part of all file descriptors that idle connections may take; `gunicorn.conf.py` leaves it.
_IDLE_PART = 8


def build(
    settings: Settings,
    source: Source,
    *,
    directory: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
    rng: random.Random | None = None,
    tracing: Tracing | None = None,
) -> Gateway:
    """Put the parts together. Nothing runs before `Gateway.start`.

    `directory` is shared by the workers of one gateway, None where there is only this one.
    `tracing` is by default what OpenTelemetry's environment variables say.
    """
    tracing = from_environ(os.environ) if tracing is None else tracing
    return _Assembly(settings, source, directory, clock, rng or random.Random(), tracing).gateway


class _Assembly:
    """The parts of one gateway while it is put together: those that several others need."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        directory: Path | None,
        clock: Callable[[], float],
        rng: random.Random,
        tracing: Tracing,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._clock = clock
        self._rng = rng
        self._tracing = tracing
        self._store = SnapshotStore(settings.cache_ttl, clock)
        self._loads = LoadStore(clock)
        chronicle = Chronicle(directory / "events" if directory else None)
        self._events = EventLog(chronicle=chronicle)
        self._informed = threading.Event()
        self._hold = Hold(settings.hold_seconds, settings.hold_requests, clock)
        self._connections = ConnectionPool(
            clock,
            per_endpoint=settings.threads,
            most_idle=resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _IDLE_PART,
            spare_timeout=settings.connect_timeout,
        )
        self._router = self._make_router()
        self._relay = self._make_relay()
        self._drain = Drain(settings.grace_seconds, self._end_what_runs)
        self.gateway = Gateway(
            settings,
            self._store,
            self._make_poller(source),
            self._loads,
            self._make_scraper(),
            self._router,
            self._make_inference(),
            self._drain,
            Peers(directory, lambda: self.gateway.facts()),
            self._relay,
            self._connections.spares,
            self._informed,
            self._events,
            started_at=clock(),
            tracing=tracing,
        )

    def _on_change(self, snapshot: Snapshot) -> None:
        """The cluster looks like `snapshot` from now on."""
        self._informed.set()
        self._router.forget(self._events.observe(snapshot))
        self._router.aside.observe(snapshot)
        self._router.in_flight.observe(snapshot)
        self._hold.changed()
        self._connections.prune(snapshot.known(self._connections.sizes()))

    def _end_what_runs(self) -> None:
        """The grace is over."""
        self._hold.end()
        self._connections.shut_down_all()
        if self._relay is not None:
            self._relay.link.cut()

    def _make_router(self) -> Router:
        settings = self._settings
        aside = SetAside(
            self._clock,
            # Longer than a connect may take: its failure ends the trial, and not the clock.
            trial_seconds=2 * settings.connect_timeout,
            tell=self._events.set_aside,
        )
        return Router(
            self._store,
            InFlight(self._clock),
            aside,
            self._loads,
            default_strategy=settings.strategy,
            rng=self._rng,
            service=settings.service,
            zone=settings.zone,
            terminating_fallback=settings.terminating_fallback,
        )

    def _make_relay(self) -> StreamRelay | None:
        settings = self._settings
        if self._directory is None or not settings.relay:
            return None
        return StreamRelay(
            self._directory,
            Limits(settings.idle_timeout, settings.send_timeout, settings.total_timeout),
            self._router.in_flight,
            self._router.errors,
            self._clock,
            self._tracing,
        )

    def _make_poller(self, source: Source) -> Poller:
        settings = self._settings
        reading = Reading(
            service=settings.service,
            port_name=settings.port_name,
            require_serving=settings.require_serving,
            allow_loopback=settings.allow_loopback or settings.source_file is not None,
        )
        return Poller(
            source,
            self._store,
            SliceSet(reading),
            poll_seconds=settings.poll_seconds,
            watch=settings.watch,
            jitter=self._rng.random,
            on_change=self._on_change,
            clock=self._clock,
        )

    def _make_scraper(self) -> Scraper | None:
        if not self._settings.scrape_seconds:
            return None
        return Scraper(
            self._loads,
            lambda: [endpoint for pool in pools_of(self._store) for endpoint in pool.routable],
            self._router.in_flight.on,
            seconds=self._settings.scrape_seconds,
            pages=MetricsPages(self._clock),
            clock=self._clock,
        )

    def _make_inference(self) -> InferenceHandler:
        settings = self._settings
        keys, upstream_key = settings.api_keys_file, settings.upstream_api_key_file
        return InferenceHandler(
            self._router,
            self._make_forwarder(),
            self._drain,
            hold=self._hold,
            naming=Naming(self._router, dict(settings.model_aliases)),
            paths=(*INFERENCE_PATHS, *settings.extra_paths),
            capacity=settings.threads,
            max_body_bytes=settings.max_body_bytes,
            retry_after=settings.retry_after,
            max_streams=settings.max_streams,
            relay=self._relay,
            keys=ApiKeys(keys) if keys else None,
            upstream_key=UpstreamKey(upstream_key) if upstream_key else None,
            tracing=self._tracing,
            clock=self._clock,
        )

    def _make_forwarder(self) -> Forwarder:
        settings = self._settings
        adapter = EndpointAdapter(
            self._connections,
            self._clock,
            idle_timeout=settings.idle_timeout,
            total_timeout=settings.total_timeout,
        )
        transport = Transport(
            adapter,
            connect_timeout=settings.connect_timeout,
            first_byte_timeout=settings.first_byte_timeout,
        )
        return Forwarder(
            transport, RetryBudget(self._clock), retries=settings.retries, replay=settings.replay
        )
