"""The daemon thread that asks every routable endpoint's engine for its load, round after round."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import MappingProxyType

from cache.endpoints import Endpoint, Key
from load.engines import MOST_RATE, NoMetrics, Reading, read
from load.fetch import FetchError, Pages
from load.gateways import Gateways
from load.values import EngineLoad, LoadSnapshot, LoadStore
from metrics import SCRAPES

log = logging.getLogger("gateway.load")

#: Engines that are asked at the same time: of those that answered when they were last asked, and of
#: all others. These may take until their deadlines, and must not hold up the former.
PARALLEL, PARALLEL_DOUBTFUL = 16, 8
#: No report serves longer than so many rounds take, or than the seconds that one answer may take.
FRESH_ROUNDS = 3
LEAST_FRESH_SECONDS = 1.5
#: What has come is published so often while the rest is waited for.
PUBLISH_SECONDS = 0.1
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
        self._known: dict[Key, Endpoint] = {}
        self._asking: dict[Future[_Asked], Key] = {}
        self._answered: dict[Key, tuple[EngineLoad, float | None]] = {}  # with its tokens
        self._failing: dict[Key, _Asked] = {}
        self._told_of = 0
        self._gateways = Gateways()
        self._stopping = threading.Event()
        self._sound = ThreadPoolExecutor(PARALLEL, thread_name_prefix="scraper")
        self._doubtful = ThreadPoolExecutor(PARALLEL_DOUBTFUL, thread_name_prefix="scraper")
        self._thread = threading.Thread(target=self.run, name="scraper", daemon=True)

    def start(self) -> None:
        """Start the thread. Once per process, after the fork."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, which it does within moments."""
        self._stopping.set()
        for pool in (self._sound, self._doubtful):
            pool.shutdown(wait=False, cancel_futures=True)

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
        """One round; returns the seconds to wait for the next.

        Those that have not answered when the next is due are not waited for, nor asked twice.
        """
        began, cpu = self._clock(), 0.0
        gateways = self._gateways.seen(self._store.snapshot().engines.values())
        self._ask_all()
        while True:
            done, _ = wait(self._asking, min(PUBLISH_SECONDS, self._seconds))
            cpu += sum(self._take(answer) for answer in done)
            period = max(self._seconds, cpu / CPU_PART)
            self._publish(period, gateways)
            left = began + period - self._clock()
            if not self._asking or left <= 0 or self._stopping.is_set():
                break
        self._tell()
        return max(0.0, left)

    def _ask_all(self) -> None:
        """Ask all that are not being asked yet, and forget those that are gone."""
        self._known = {endpoint.key: endpoint for endpoint in self._endpoints()}
        self._pages.keep(self._known.values())
        for of_each in (self._answered, self._failing):
            for gone in of_each.keys() - self._known.keys():
                del of_each[gone]
        being_asked = set(self._asking.values())
        for key, endpoint in self._known.items():
            if key not in being_asked:
                is_sound = key in self._answered and key not in self._failing
                pool = self._sound if is_sound else self._doubtful
                self._asking[pool.submit(self._ask, endpoint, self._answered.get(key))] = key

    def _ask(self, endpoint: Endpoint, before: tuple[EngineLoad, float | None] | None) -> _Asked:
        cpu = time.thread_time()
        in_flight = self._in_flight(endpoint.key)
        load = tokens = None
        result = "ok"
        try:
            reading = read(self._pages.fetch(endpoint))
            load = self._load(reading, in_flight, before)
            tokens = reading.tokens
        except FetchError as error:
            result = error.result
        except NoMetrics:
            result = "no_metrics"
        except ValueError:
            result = "malformed"
        SCRAPES.labels(result).inc()
        return _Asked(endpoint, load, tokens, result, time.thread_time() - cpu)

    def _load(
        self, reading: Reading, in_flight: int, before: tuple[EngineLoad, float | None] | None
    ) -> EngineLoad:
        now = self._clock()
        rate = reading.rate
        if reading.tokens is not None and before is not None:
            load, tokens = before
            if tokens is not None and now > load.at:
                made = max(0.0, reading.tokens - tokens)  # a restart counts anew
                rate = min(made / (now - load.at), MOST_RATE)
        return EngineLoad(reading.running, reading.waiting, reading.kv_usage, rate, in_flight, now)

    def _take(self, answer: Future[_Asked]) -> float:
        """Note an answer, or that there was none; returns the processor's seconds it took."""
        key, asked = self._asking.pop(answer), answer.result()
        if key not in self._known:
            pass  # it has gone meanwhile
        elif asked.load is None:
            self._failing[key] = asked
        else:
            self._failing.pop(key, None)
            self._answered[key] = asked.load, asked.tokens
        return asked.cpu

    def _publish(self, period: float, gateways: float) -> None:
        """Publish what is known now and will be until the next round has brought something.

        One that would be too old before that, because it could not be renewed, is left out: what is
        published is forgotten as a whole, so that a choice need not look at each report's age.
        """
        fresh = max(FRESH_ROUNDS * period, LEAST_FRESH_SECONDS)
        now = self._clock()
        oldest = now + 1.5 * period - fresh  # with half a round to spare
        loads = {key: load for key, (load, _) in self._answered.items() if load.at > oldest}
        until = min((load.at for load in loads.values()), default=now) + fresh
        self._store.put(LoadSnapshot(MappingProxyType(loads), until, gateways))

    def _tell(self) -> None:
        """Say once when engines stop to report, and once when all do again."""
        failing = self._failing.values()
        if failing and not self._told_of:
            first = min(failing, key=lambda asked: asked.endpoint.name)
            log.info(
                "%d engines don't report their load (%s: %s); where strategies need it, requests "
                "in flight count instead",
                len(failing),
                first.endpoint.name,
                first.result,
            )
        elif self._told_of and not failing:
            log.info("all engines report their load")
        self._told_of = len(failing)
