"""The daemon thread that asks every routable endpoint's engine for its load, round after round."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType

from cache.endpoints import Endpoint, Key
from load.engines import MOST_RATE, NoMetrics, Reading, read
from load.fetch import FetchError, Pages
from load.gateways import Gateways
from load.values import EngineLoad, LoadSnapshot, LoadStore
from metrics import SCRAPES

log = logging.getLogger("gateway.load")

#: Engines that are asked at the same time.
PARALLEL = 16
#: A report serves until so many rounds could have brought a newer one.
FRESH_ROUNDS = 3
#: Asking and reading may take this part of a processor; where there are so many engines that they
#: would take more, rounds follow each other more slowly.
CPU_PART = 0.1


@dataclass(frozen=True, slots=True)
class _Asked:
    """One engine's answer: its load and running total of tokens, or why there is none."""

    endpoint: Endpoint
    load: EngineLoad | None
    tokens: float | None
    result: str
    cpu: float


class Scraper:
    """Feeds `store`. `endpoints` gives those to ask, `in_flight` this worker's requests on one.

    `seconds` is the time between two rounds. `clock` is monotonic.
    """

    def __init__(
        self,
        store: LoadStore,
        endpoints: Callable[[], Iterable[Endpoint]],
        in_flight: Callable[[Key], int],
        *,
        seconds: float,
        pages: Pages,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._endpoints = endpoints
        self._in_flight = in_flight
        self._seconds = seconds
        self._pages = pages
        self._clock = clock
        self._loads: dict[Key, EngineLoad] = {}
        self._totals: dict[Key, tuple[float, float]] = {}  # tokens, when
        self._gateways = Gateways()
        self._failing = 0
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="scraper")
        self._thread = threading.Thread(target=self.run, name="scraper", daemon=True)

    def start(self) -> None:
        """Start the thread. Once per process, after the fork."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does when its present round is over."""
        self._stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def run(self) -> None:
        """Ask round after round until stopped.

        A bug ends the thread: reports grow old, and strategies fall back and count that they do.
        """
        try:
            while not self._stopping.is_set():
                self._stopping.wait(self.step())
        except Exception as error:  # noqa: BLE001 - its consequence is the end of the thread
            if not self._stopping.is_set():
                SCRAPES.labels("internal_error").inc()
                log.critical("asking engines for their load died and needs a restart: %r", error)

    def step(self) -> float:
        """One round; returns the seconds to wait for the next."""
        began = self._clock()
        endpoints = {endpoint.key: endpoint for endpoint in self._endpoints()}.values()
        self._pages.keep(endpoints)
        asked = list(self._pool.map(self._ask, endpoints))
        round_seconds = self._clock() - began
        pause = max(
            self._seconds - round_seconds,
            sum(one.cpu for one in asked) / CPU_PART,
        )
        fresh = FRESH_ROUNDS * (round_seconds + max(pause, self._seconds))
        self._take(asked, fresh)
        self._tell(asked)
        return pause

    def _ask(self, endpoint: Endpoint) -> _Asked:
        cpu = time.thread_time()
        in_flight = self._in_flight(endpoint.key)
        load = tokens = None
        result = "ok"
        try:
            reading = read(self._pages.fetch(endpoint))
            load = self._load(endpoint.key, reading, in_flight)
            tokens = reading.tokens
        except FetchError as error:
            result = error.result
        except NoMetrics:
            result = "no_metrics"
        except ValueError:
            result = "malformed"
        SCRAPES.labels(result).inc()
        return _Asked(endpoint, load, tokens, result, time.thread_time() - cpu)

    def _load(self, key: Key, reading: Reading, in_flight: int) -> EngineLoad:
        now = self._clock()
        rate = reading.rate
        before = self._totals.get(key)
        if reading.tokens is not None and before is not None and now > before[1]:
            made = max(0.0, reading.tokens - before[0])  # a restart counts anew
            rate = min(made / (now - before[1]), MOST_RATE)
        return EngineLoad(reading.running, reading.waiting, reading.kv_usage, rate, in_flight, now)

    def _take(self, asked: Iterable[_Asked], fresh: float) -> None:
        """Publish what is known now; a report that could not be renewed serves a while longer."""
        now = self._clock()
        loads: dict[Key, EngineLoad] = {}
        totals: dict[Key, tuple[float, float]] = {}
        for one in asked:
            key = one.endpoint.key
            load = one.load or self._loads.get(key)
            if load is not None and now - load.at < fresh:
                loads[key] = load
            if one.load is not None and one.tokens is not None:
                totals[key] = (one.tokens, one.load.at)
        self._loads, self._totals = loads, totals
        gateways = self._gateways.seen(loads.values())
        self._store.put(LoadSnapshot(MappingProxyType(loads), now + fresh, gateways))

    def _tell(self, asked: Iterable[_Asked]) -> None:
        """Say once when engines stop to report, and once when all do again."""
        failing = [one for one in asked if one.load is None]
        if failing and not self._failing:
            first = failing[0]
            log.info(
                "%d engines don't report their load (%s: %s); where strategies need it, requests "
                "in flight count instead",
                len(failing),
                first.endpoint.name,
                first.result,
            )
        elif self._failing and not failing:
            log.info("all engines report their load")
        self._failing = len(failing)
