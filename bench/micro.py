"""How long a list takes to become a snapshot, and a request to find its endpoint.

Prints a table and writes it to `bench/report/micro.md`; fails where more is taken than is allowed.
"""

import json
import platform
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from bench.picks import PICK, bench_bodies, bench_picks, bench_picks_of_many
from bench.rows import RUNS, Row, seconds
from cache.pages import parse_page
from cache.slices import Reading, SliceSet

MODELS = 1000
ENDPOINTS = 10
REPORT = Path(__file__).parent / "report" / "micro.md"


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


def bench_lists(run: int) -> Iterator[Row]:
    """From the bytes of a list to a snapshot: the first, an unchanged one, and a watch event."""
    body, changed = raw_list(run), raw_slice(0, RUNS)
    slices = SliceSet(Reading())

    def read() -> None:
        slices.replace(parse_page(body)["items"])
        slices.snapshot(0.0)

    def apply() -> None:
        slices.apply("MODIFIED", changed)
        slices.snapshot(0.0)

    what = f"list of {MODELS} models with {ENDPOINTS} endpoints, all new"
    yield Row(what, [seconds(read)], "ms", allowed=250)
    yield Row("the same list again", [seconds(read)], "ms")
    yield Row("one watch event among them", [seconds(apply)], "ms")


def main() -> int:
    """Print and write a table of all figures; 1 if one is beyond what is allowed."""
    rows: dict[str, Row] = {}
    for run in range(RUNS):  # a machine that is busy for some seconds does not spoil all of one
        print(f"[{run + 1}/{RUNS}] lists and choices", file=sys.stderr)
        for row in chain(bench_lists(run), bench_picks(), bench_picks_of_many(), bench_bodies()):
            rows[row.what] = row.after(rows.get(row.what))
    head = (
        "# Lists and choices\n\n"
        f"Python {platform.python_version()}, {RUNS} runs of each; the fastest counts. {PICK}\n\n"
        "| what | min | median | max | | allowed |\n|---|--:|--:|--:|---|--:|"
    )
    table = "\n".join([head, *map(str, rows.values())])
    print(table)
    REPORT.write_text(f"{table}\n")
    return 0 if all(row.holds for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
