"""How long a list takes to become a snapshot, and a request to find its endpoint."""

import json
import platform
import random
import sys
import time
from collections.abc import Callable
from statistics import median

from cache.pages import parse_page
from cache.slices import Reading, SliceSet
from cache.store import SnapshotStore
from routing.aside import SetAside
from routing.inflight import InFlight
from routing.router import Router
from routing.strategies import STRATEGIES

MODELS = 1000
ENDPOINTS = 10
RUNS = 7
PICKS = 20_000


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


def row(what: str, times: list[float], scale: float, unit: str) -> None:
    """Print the minimum, median and maximum of `times`."""
    low, middle, high = (scale * t for t in (min(times), median(times), max(times)))
    print(f"| {what} | {low:.2f} | {middle:.2f} | {high:.2f} | {unit} |")


def bench_lists() -> None:
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
    row(f"list of {MODELS} models with {ENDPOINTS} endpoints, all new", first, 1e3, "ms")
    row("the same list again", same, 1e3, "ms")
    row("one watch event among them", events, 1e3, "ms")


def bench_picks() -> None:
    """From a model's name to an endpoint that is counted, and back."""
    store = SnapshotStore(600.0, time.monotonic)
    slices = SliceSet(Reading())
    slices.replace(parse_page(raw_list(0))["items"])
    store.put(slices.snapshot(time.monotonic()))
    names = [f"model-{number}" for number in range(MODELS)]
    for strategy in STRATEGIES:
        router = Router(
            store,
            InFlight(),
            SetAside(time.monotonic),
            default_strategy=strategy,
            rng=random.Random(1),
        )

        def pick(router: Router = router) -> None:
            for number in range(PICKS):
                lease = router.candidates(names[number % MODELS], None).take()
                assert lease is not None  # noqa: S101 - every endpoint is ready
                lease.release()

        row(f"pick by {strategy}", [seconds(pick) / PICKS for _ in range(RUNS)], 1e6, "µs")


def main() -> int:
    """Print a table of all figures."""
    print(f"Python {platform.python_version()}, {RUNS} runs\n")
    print("| what | min | median | max | |\n|---|--:|--:|--:|---|")
    bench_lists()
    bench_picks()
    return 0


if __name__ == "__main__":
    sys.exit(main())
