"""Gateways before engines in virtual time: one run of a workload through one strategy."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from types import MappingProxyType

from bench.strategies.workloads import MODEL, Arrivals, Request
from cache.endpoints import Endpoint, Key, Pool, Snapshot
from cache.store import SnapshotStore
from load.gateways import Gateways
from load.scraper import FRESH_ROUNDS
from load.values import EngineLoad, LoadSnapshot, LoadStore
from routing.aside import SetAside
from routing.inflight import InFlight, Lease
from routing.router import Router
from routing.view import Query
from simulator.engine import EngineModel, Job, Pace

SCRAPE_SECONDS = 1.0


class Clock:
    """Virtual time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds since the run began."""
        return self.now


class Gateway:
    """One replica: the product's own parts on a virtual clock."""

    def __init__(self, endpoints: Sequence[Endpoint], strategy: str, clock: Clock, seed: str):
        store = SnapshotStore(float("inf"), clock)
        store.put(Snapshot({MODEL: Pool(MODEL, tuple(endpoints))}, 0.0))
        self._clock = clock
        self._loads = LoadStore(clock)
        self._in_flight = InFlight(clock)
        self._gateways = Gateways()
        self._before: dict[Key, tuple[float, float]] = {}  # tokens, when
        self._router = Router(
            store,
            self._in_flight,
            SetAside(clock),
            self._loads,
            default_strategy=strategy,
            rng=random.Random(seed),
        )

    def send(self, request: Request) -> Lease:
        """Choose an engine."""
        query = Query(MODEL, request.session, request.body)
        lease = self._router.candidates(query, None).take()
        assert lease is not None  # noqa: S101 - every endpoint is ready
        return lease

    def scrape(self, engines: Sequence[tuple[Endpoint, EngineModel]]) -> None:
        """Ask every engine for its load, as `load.scraper` does."""
        now = self._clock()
        loads = {endpoint.key: self._ask(endpoint.key, engine, now) for endpoint, engine in engines}
        until = now + FRESH_ROUNDS * SCRAPE_SECONDS
        gateways = self._gateways.seen(loads.values())
        self._loads.put(LoadSnapshot(MappingProxyType(loads), until, gateways))

    def _ask(self, key: Key, engine: EngineModel, now: float) -> EngineLoad:
        told = engine.told(now)
        tokens = told.prompt_tokens + told.generated_tokens
        before, at = self._before.get(key, (0.0, 0.0))
        rate = (tokens - before) / (now - at) if now > at else 0.0
        self._before[key] = (tokens, now)
        in_flight = self._in_flight.on(key)
        return EngineLoad(told.running, told.waiting, told.kv_usage, rate, in_flight, now)


@dataclass(frozen=True, slots=True)
class Done:
    """A request that was answered: when it came, how soon, and where."""

    came: float
    first_token_seconds: float
    ended: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    session: str
    engine: int


@dataclass(frozen=True, slots=True)
class Run:
    """All requests of a run, and the part of their time engines read prompts in, on average."""

    done: list[Done]
    utilisation: float


Event = tuple[float, int, Callable[[], None]]


class Fleet:
    """`replicas` gateways before engines of these paces."""

    def __init__(
        self,
        paces: Sequence[Pace],
        strategy: str,
        replicas: int,
        seed: int,
        gateway: type[Gateway] = Gateway,
    ) -> None:
        self._clock = Clock()
        self._engines = [EngineModel(pace) for pace in paces]
        endpoints = [Endpoint(f"10.0.0.{number + 1}", 8000) for number in range(len(paces))]
        self._numbers = {endpoint.key: number for number, endpoint in enumerate(endpoints)}
        self._pairs = list(zip(endpoints, self._engines, strict=True))
        self._gateways = [
            gateway(endpoints, strategy, self._clock, f"{seed}-{number}")
            for number in range(replicas)
        ]
        self._events: list[Event] = []
        self._serial = 0
        self._wakes = [0] * len(paces)  # the serial of each engine's next event
        self._open: dict[Job, tuple[Request, Lease, float]] = {}
        self._expected = 0
        self._done: list[Done] = []

    def run(self, arrivals: Arrivals) -> Run:
        """Until every request and what follows it is answered."""
        for at, request in arrivals:
            self._expect(at, request)
        for number, gateway in enumerate(self._gateways):
            gateway.scrape(self._pairs)
            self._scrape_at((number + 1) / len(self._gateways) * SCRAPE_SECONDS, gateway)
        while self._expected:
            at, _, act = heappop(self._events)
            self._clock.now = at
            act()
        busy = sum(engine.reading_seconds for engine in self._engines)
        last = arrivals[-1][0]
        return Run(self._done, busy / last / len(self._engines))

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self._serial += 1
        heappush(self._events, (when, self._serial, act))

    def _expect(self, at: float, request: Request) -> None:
        self._expected += 1
        self._at(at, lambda: self._arrive(request))

    def _scrape_at(self, when: float, gateway: Gateway) -> None:
        def scrape() -> None:
            gateway.scrape(self._pairs)
            self._scrape_at(when + SCRAPE_SECONDS, gateway)

        self._at(when, scrape)

    def _arrive(self, request: Request) -> None:
        job = Job(request.prefix, request.prompt_tokens, request.output_tokens)
        number = request.engine
        if number is None:
            gateway = self._gateways[int(request.dice * len(self._gateways))]
            lease = gateway.send(request)
            self._open[job] = (request, lease, self._clock.now)
            number = self._numbers[lease.endpoint.key]
        else:
            self._expected -= 1  # nobody here sees its answer
        self._engines[number].submit(self._clock.now, job)
        self._wake_at_next(number)

    def _wake_at_next(self, number: int) -> None:
        when = self._engines[number].next_event()
        if when < float("inf"):
            self._at(when, lambda: self._wake(number, serial))
            serial = self._wakes[number] = self._serial

    def _wake(self, number: int, serial: int) -> None:
        if serial != self._wakes[number]:
            return  # something came between
        for job in self._engines[number].advance(self._clock.now):
            if job not in self._open:
                continue  # another client's
            if job.first_token_at == self._clock.now:
                self._open[job][1].first_byte(self._clock.now)
            if job.ended_at == self._clock.now:
                self._end(number, job)
        self._wake_at_next(number)

    def _end(self, number: int, job: Job) -> None:
        request, lease, came = self._open.pop(job)
        lease.release()
        self._expected -= 1
        self._done.append(
            Done(
                came,
                job.first_token_at - came,
                job.ended_at,
                job.prompt_tokens,
                job.cached,
                job.output_tokens,
                request.session,
                number,
            )
        )
        if request.then is not None:
            self._expect(self._clock.now + request.pause, request.then)
