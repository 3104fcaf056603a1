"""The router: from a model and a strategy's name to endpoints that are routable now."""

import random
from collections.abc import Callable, Sequence
from functools import partial

from cache.endpoints import Endpoint, Key, Pool
from cache.store import EndpointsStale, EndpointsUnknown, SnapshotStore
from load.values import LoadStore
from metrics import STRATEGY_FALLBACKS
from routing.aside import SetAside
from routing.inflight import InFlight, Lease
from routing.lasterrors import LastErrors, culprit
from routing.strategies import ALIASES, STRATEGIES, Strategies
from routing.strategies.base import Strategy
from routing.view import Query
from routing.zones import Zone


class ModelUnknown(LookupError):
    """The cluster has no such model."""


class NoReadyEndpoints(LookupError):
    """The model is known, but none of its endpoints may get a request; the message counts them."""


_NONE_ROUTABLE = (ModelUnknown, NoReadyEndpoints, EndpointsUnknown, EndpointsStale)


class Router:
    """Chooses endpoints for requests. Every strategy sees routable endpoints only.

    `service` is the one Service of the single-service mode, else empty. `zone` is the gateway's
    own, whose endpoints are preferred while they are enough; empty prefers none.
    """

    def __init__(
        self,
        store: SnapshotStore,
        in_flight: InFlight,
        aside: SetAside,
        loads: LoadStore,
        *,
        default_strategy: str,
        rng: random.Random,
        service: str = "",
        zone: str = "",
        terminating_fallback: bool = False,
    ) -> None:
        self._store = store
        self.in_flight = in_flight
        self.aside = aside
        self.loads = loads
        self._default = default_strategy
        self._service = service
        self._zone = Zone(zone)
        self._terminating_fallback = terminating_fallback
        self.errors = LastErrors()
        self._strategies = Strategies(rng)

    @property
    def needs_model(self) -> bool:
        """Whether a request must name its model."""
        return not self._service

    def known(self, model: str | None) -> Pool:
        """The pool of the model a request is for, whatever it names in single-service mode.

        Raises `ModelUnknown`, and what `SnapshotStore.snapshot` raises.
        """
        return self.pool(self._service or model or "")

    def candidates(
        self, query: Query, strategy: str | None, pool: Pool | None = None
    ) -> "Candidates":
        """Begin to choose for one request, by the default strategy if it names none.

        `pool` is its model's, if it was looked up just now. Raises `UnknownStrategy`,
        `ModelUnknown`, `NoReadyEndpoints`, and what `SnapshotStore.snapshot` raises.
        """
        name = strategy or self._default
        name = ALIASES.get(name, name)
        chosen = self._strategies.get(name)
        if pool is None:
            pool = self.pool(query.model)
        self.eligible(pool)
        chosen.prepare(query)
        query.body = b""  # it may be large, and nothing else is read from it
        label = name if name in STRATEGIES else "mix"
        return Candidates(self, query, chosen, label, pool)

    def preferred(
        self, pool: Pool, endpoints: Sequence[Endpoint], *, everywhere: bool
    ) -> Sequence[Endpoint]:
        """Those of `pool`'s `endpoints` to choose from: not set aside, and near unless told so."""
        free = self.aside.free(endpoints) if self.aside.concerns(pool.keys) else endpoints
        return free if everywhere else self._zone.nearest(free)

    def forget(self, endpoints: Sequence[Endpoint]) -> None:
        """These endpoints are gone: another pod may get their address."""
        if endpoints:
            self.errors.forget(endpoints)
            keys = [endpoint.key for endpoint in endpoints]
            self.in_flight.guarding(lambda: self._strategies.forget(keys))

    def eligible(self, pool: Pool) -> tuple[Endpoint, ...]:
        """The endpoints of `pool` that may get a request now; raises `NoReadyEndpoints`."""
        if pool.routable:
            return pool.routable
        if self._terminating_fallback and (last := pool.terminating_but_serving):
            return last
        raise NoReadyEndpoints(pool.describe())

    def is_latest(self, pool: Pool) -> bool:
        """Whether `pool`, which was good a moment ago, is still what is known of its model."""
        latest = self._store.latest
        return latest is not None and latest.pools.get(pool.model) is pool

    def pool(self, model: str) -> Pool:
        """The pool of `model`; raises `ModelUnknown`, and what `SnapshotStore.snapshot` raises."""
        try:
            return self._store.snapshot().pools[model]
        except KeyError:
            shown = model if len(model) <= 100 else model[:100] + "…"
            raise ModelUnknown(f"the model {shown!r} does not exist") from None


class Candidates:
    """The endpoints one request may try, one after the other, none of them twice.

    Each is chosen when it is asked for, from the newest snapshot: an endpoint that began to
    terminate while another was tried is not among them. After the first, those that have not failed
    since they last answered come before all others. `pool` is what was found just now.
    """

    def __init__(
        self, router: Router, query: Query, strategy: Strategy, label: str, pool: Pool
    ) -> None:
        self.model = query.model
        self._router = router
        self._query = query
        self._strategy = strategy
        self._label = label
        self._pool = pool
        # It is for the sake of sessions that gateways of all zones come to the same choice.
        self._everywhere = strategy.spans_zones and bool(query.session)
        self._tried: set[Key] = set()

    def take(self) -> Lease | None:
        """Choose the next endpoint and count the request on it; None if no other is left.

        The first time it raises as `Router.candidates` does when by now there is none at all.
        """
        router = self._router
        try:
            if self._tried or not router.is_latest(self._pool):
                self._pool = router.pool(self.model)
            untried: Sequence[Endpoint] = router.eligible(self._pool)
        except _NONE_ROUTABLE:
            if not self._tried:
                raise
            return None
        if self._tried:
            untried = [endpoint for endpoint in untried if endpoint.key not in self._tried]
            if not untried:
                return None
            # A further attempt is no time to find out whether a doubtful one is back.
            untried = [one for one in untried if router.aside.is_sound(one)] or untried
        lease = router.in_flight.pick(
            self._strategy,
            router.preferred(self._pool, untried, everywhere=self._everywhere),
            self._query,
            router.loads.snapshot(),
        )
        if lease.fell_back:
            STRATEGY_FALLBACKS.labels(self._label).inc()
        self._tried.add(lease.endpoint.key)
        router.aside.chosen(lease.endpoint)
        return lease

    def is_sound(self, endpoint: Endpoint) -> bool:
        """Whether `endpoint` has not failed since it last answered."""
        return self._router.aside.is_sound(endpoint)

    def error_note(self, endpoint: Endpoint) -> Callable[[str], None]:
        """What remembers, for people, how an exchange with `endpoint` failed.

        It may be kept for as long as a stream runs, and holds on to nothing of the request.
        """
        return partial(self._router.errors.note, culprit(endpoint))

    def failed(self, endpoint: Endpoint) -> None:
        """Note that `endpoint` failed on transport level."""
        self._router.aside.failed(endpoint, self._routable())

    def succeeded(self, endpoint: Endpoint) -> None:
        """Note that `endpoint` answered, whatever the status."""
        self._router.aside.succeeded(endpoint)

    def _routable(self) -> Sequence[Endpoint]:
        try:
            return self._router.eligible(self._router.pool(self.model))
        except _NONE_ROUTABLE:
            return ()
