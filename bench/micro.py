"""How long a list takes to become a snapshot, and a request to find its endpoint.

Prints a table and writes it to `bench/report/micro.md`; fails where more is taken than is allowed.
"""

import json
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Literal

from cache.endpoints import Endpoint, Pool, Snapshot
from cache.pages import parse_page
from cache.slices import Reading, SliceSet
from cache.store import SnapshotStore
from load.values import EngineLoad, LoadSnapshot, LoadStore
from routing.aside import SetAside
from routing.inflight import InFlight
from routing.router import Router
from routing.strategies import STRATEGIES
from routing.view import Query

MODELS = 1000
ENDPOINTS = 10
RUNS = 7
PICKS = 20_000
MANY = 100
PROMPTS = 20
#: Microseconds that a choice may take.
SIMPLE_ALLOWED = 20
ALLOWED = {"prefix-cache": 100}
REPORT = Path(__file__).parent / "report" / "micro.md"
#: Those that look at this worker's own counts only.
SIMPLE = ("random", "round-robin", "power-of-two", "least-request", "session-affinity")


def raw_list(version: int) -> bytes:
    """A list as an API server sends it: one slice a model."""
    items = [raw_slice(model, version) for model in range(MODELS)]
    document = {
        "kind": "EndpointSliceList",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"resourceVersion": str(version)},
        "items": items,
    }
    return json.dumps(document).encode()


def raw_slice(model: int, version: int) -> dict[str, object]:
    """One slice with ten ready endpoints, with the metadata a real one carries."""
    name = f"model-{model}"
    return {
        "metadata": {
            "name": f"{name}-x7k2p",
            "generateName": f"{name}-",
            "namespace": "models",
            "uid": f"00000000-0000-4000-8000-{model:012d}",
            "resourceVersion": str(version),
            "labels": {
                "kubernetes.io/service-name": name,
                "model.aibrix.ai/name": name,
                "model.aibrix.ai/port": "8000",
            },
        },
        "addressType": "IPv4",
        "endpoints": [raw_endpoint(model, number) for number in range(ENDPOINTS)],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8000}],
    }


def raw_endpoint(model: int, number: int) -> dict[str, object]:
    """One ready pod."""
    return {
        "addresses": [f"10.{model // 256}.{model % 256}.{number + 1}"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "targetRef": {"kind": "Pod", "namespace": "models", "name": f"model-{model}-{number}"},
        "nodeName": f"node-{number}",
        "zone": "zone-a",
    }


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Row:
    """Some runs of one thing, in seconds, shown in `unit`; the median may be `allowed` of these."""

    what: str
    times: Sequence[float]
    unit: Literal["ms", "µs"]
    allowed: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the median is within what is allowed."""
        return self.allowed is None or median(self.times) * _IN[self.unit] <= self.allowed

    def __str__(self) -> str:
        """A line of the table."""
        scale = _IN[self.unit]
        low, middle, high = (
            scale * t for t in (min(self.times), median(self.times), max(self.times))
        )
        allowed = "" if self.allowed is None else f"{self.allowed:g}"
        verdict = "" if self.holds else " **too long**"
        return (
            f"| {self.what} | {low:.2f} | {middle:.2f} | {high:.2f} | {self.unit} "
            f"| {allowed}{verdict} |"
        )


_IN = {"ms": 1e3, "µs": 1e6}


def bench_lists() -> Iterator[Row]:
    """From the bytes of a list to a snapshot: the first, an unchanged one, and a watch event."""
    first, same, events = [], [], []
    for run in range(RUNS):
        body = raw_list(run)
        slices = SliceSet(Reading())

        def read(slices: SliceSet = slices, body: bytes = body) -> None:
            slices.replace(parse_page(body)["items"])
            slices.snapshot(0.0)

        first.append(seconds(read))
        same.append(seconds(read))
        changed = raw_slice(run, RUNS)

        def apply(slices: SliceSet = slices, changed: object = changed) -> None:
            slices.apply("MODIFIED", changed)
            slices.snapshot(0.0)

        events.append(seconds(apply))
    what = f"list of {MODELS} models with {ENDPOINTS} endpoints, all new"
    yield Row(what, first, "ms", allowed=250)
    yield Row("the same list again", same, "ms")
    yield Row("one watch event among them", events, "ms")


def bench_picks() -> Iterator[Row]:
    """From a model's name to an endpoint that is counted, and back, among ten endpoints."""
    store = SnapshotStore(600.0, time.monotonic)
    slices = SliceSet(Reading())
    slices.replace(parse_page(raw_list(0))["items"])
    store.put(slices.snapshot(time.monotonic()))
    names = [f"model-{number}" for number in range(MODELS)]
    router = _router(store, LoadStore(time.monotonic))
    for strategy in SIMPLE:

        def pick(strategy: str = strategy) -> None:
            for number in range(PICKS):
                query = Query(names[number % MODELS], f"session-{number}")
                lease = router.candidates(query, strategy).take()
                assert lease is not None  # noqa: S101 - every endpoint is ready
                lease.release()

        times = [seconds(pick) / PICKS for _ in range(RUNS)]
        yield Row(f"pick by {strategy}, {ENDPOINTS} endpoints", times, "µs", SIMPLE_ALLOWED)


def bench_picks_of_many() -> Iterator[Row]:
    """The same among a hundred endpoints, all of which report their load, for a long prompt."""
    store, loads = SnapshotStore(600.0, time.monotonic), LoadStore(time.monotonic)
    rng = random.Random(1)
    many = tuple(Endpoint(f"10.0.{n // 250}.{n % 250 + 1}", 8000) for n in range(MANY))
    store.put(Snapshot({"llama": Pool("llama", many)}, time.monotonic()))
    reports = {e.key: EngineLoad(rng.randrange(9), rng.randrange(3), rng.random()) for e in many}
    loads.put(LoadSnapshot(reports, time.monotonic() + 3600))
    bodies = [long_body(rng) for _ in range(PROMPTS)]
    for strategy in STRATEGIES:
        router = _router(store, loads)
        router.aside.failed(Endpoint("10.9.9.9", 8000), ())  # some other model has its troubles

        def pick(router: Router = router, strategy: str = strategy) -> None:
            for number in range(PICKS // 20):
                body = bodies[number % PROMPTS]
                query = Query("llama", f"session-{number}", body)
                lease = router.candidates(query, strategy).take()
                assert lease is not None  # noqa: S101 - every endpoint is ready
                lease.release()

        pick()  # the prompts have been seen
        times = [seconds(pick) / (PICKS // 20) for _ in range(RUNS)]
        allowed = SIMPLE_ALLOWED if strategy in SIMPLE else ALLOWED.get(strategy)
        what = f"pick by {strategy}, {MANY} endpoints, a prompt of 32,000 tokens"
        yield Row(what, times, "µs", allowed)


def long_body(rng: random.Random) -> bytes:
    """A chat whose prompt has 32,000 tokens of four bytes."""
    words = " ".join(f"{rng.randrange(1000):03}" for _ in range(32_000))
    message = {"role": "user", "content": words}
    return json.dumps({"model": "llama", "messages": [message]}).encode()


def _router(store: SnapshotStore, loads: LoadStore) -> Router:
    return Router(
        store,
        InFlight(),
        SetAside(time.monotonic),
        loads,
        default_strategy="least-request",
        rng=random.Random(1),
    )


def main() -> int:
    """Print and write a table of all figures; 1 if one is beyond what is allowed."""
    head = (
        "# Lists and choices\n\n"
        f"Python {platform.python_version()}, {RUNS} runs of each; the median counts. A pick is "
        "all of a choice: candidates, hashing of the prompt, counting it and giving it back.\n\n"
        "| what | min | median | max | | allowed |\n|---|--:|--:|--:|---|--:|"
    )
    print(head)
    rows = []
    for measured in chain(bench_lists(), bench_picks(), bench_picks_of_many()):
        print(measured, flush=True)
        rows.append(measured)
    REPORT.write_text("\n".join([head, *map(str, rows)]) + "\n")
    return 0 if all(measured.holds for measured in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
