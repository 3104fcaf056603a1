"""Lists of another size or shape than usual: what is good in them counts, and nothing stalls."""

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from simulator.pod import Engine
from tests.e2e.place import Place, place, seen_by
from tests.harness import wait_for
from tests.slices import entry, raw_slice
from tests.wire import chat_body, exchange, post

Record = Callable[[str, object], None]

#: Items no API server should send, and the reason each is counted by.
POISON: dict[str, tuple[object, str]] = {
    "null": (None, "malformed"),
    "a number": (7, "malformed"),
    "a text": ("slice", "malformed"),
    "a list": ([[]], "malformed"),
    "no metadata": ({"endpoints": []}, "malformed"),
    "no name": (raw_slice(entry(), name=""), "malformed"),
    "labels of another shape": (
        {"metadata": {"name": "p", "labels": ["model.aibrix.ai/name"]}},
        "malformed",
    ),
    "endpoints of another shape": (raw_slice(endpoints={"addresses": []}), "malformed"),
    "an address of another shape": (raw_slice(entry({"ip": "10.0.0.1"})), "malformed"),
    "an address that is none": (raw_slice(entry("pod-7")), "malformed"),
    "an address that is never a target": (raw_slice(entry("169.254.169.254")), "address"),
    "an endpoint without addresses": (raw_slice({"addresses": []}), "malformed"),
    "a condition of another shape": (raw_slice(entry(ready="true")), "malformed"),
    "a name that would split a header": (raw_slice(entry(pod="p\r\nx: y")), "malformed"),
    "a port out of range": (raw_slice(entry(), ports=[{"port": 65_536}]), "port"),
    "an enormous number": (raw_slice(entry(), ports=[{"port": 10**4000}]), "port"),
    "ports of another shape": (raw_slice(entry(), ports="8000"), "malformed"),
    "host names": (raw_slice(entry("pod.test"), addressType="FQDN"), "fqdn"),
    "a model's name with a line in it": (raw_slice(entry(), model="a\nb"), "label"),
}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("town")
    with place(directory, poll_seconds="0.1", watch="false") as running:
        running.deploy("llama", pods=2, engine=Engine(tokens=1))
        yield running


def polls(town: Place, result: str) -> float:
    return town.gateway.metric("gateway_polls_total", result=result)


def check_served(town: Place) -> None:
    pods = town.cluster.models["llama"].pods
    before = len(seen_by(*pods))
    assert exchange(town.gateway.port, post(chat_body("llama"))).status == 200
    assert len(seen_by(*pods)) == before + 1


@pytest.mark.fault(7)
def test_a_poisoned_item_is_counted_and_spoils_no_other(town: Place) -> None:
    failed = polls(town, "garbage")
    for number, (what, (item, reason)) in enumerate(POISON.items()):
        before = skipped(town, reason)
        key = f"{'az'[number % 2]}-poison"  # before all others, or behind them
        town.cluster.put_verbatim(key, item)
        wait_for(partial(counts_more, town, reason, before), f"{what} is counted as {reason}")
        check_served(town)
    model = town.cluster.models["llama"]
    model.add_pod()
    town.wait_for_states("llama", {pod.name: "ready" for pod in model.pods})
    assert polls(town, "garbage") == failed
    assert town.gateway.get("/healthz").json()["last_poll_error"] is None


def skipped(town: Place, reason: str) -> float:
    return town.gateway.metric("gateway_discovery_skipped_total", reason=reason)


def counts_more(town: Place, reason: str, than: float) -> bool:
    return skipped(town, reason) > than


SLICES, ENDPOINTS = 100, 250
MEGABYTE = 10**6


def huge_slice(number: int) -> dict[str, Any]:
    """A slice of half a megabyte, each endpoint with all that a large cluster's have."""
    zone = f"eu-central-1{'abc'[number % 3]}"
    entries = [
        entry(f"10.{number}.{each >> 8}.{each & 255}", f"huge-5d8f9c7b6d-{number:03}-{each:04}")
        | {
            "nodeName": f"ip-10-0-{number}-{each % 200}.eu-central-1.compute.internal",
            "zone": zone,
            "hints": {"forZones": [{"name": zone}], "forNodes": [{"name": f"n{each % 200}"}]},
            "deprecatedTopology": {
                f"topology.test/level-{n}": f"{zone}-{each:0250}" for n in range(6)
            },
        }
        for each in range(ENDPOINTS)
    ]
    return raw_slice(*entries, name=f"huge-{number}", model="huge", version="1")


def peak_memory(pid: int) -> float:
    """The most memory, in MB, that the process has had."""
    (line,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(line) * 1024 / MEGABYTE


@pytest.mark.fault(7)
def test_a_list_of_fifty_megabytes_is_read_while_requests_go_on(
    tmp_path: Path, record_property: Record
) -> None:
    slices = [huge_slice(number) for number in range(SLICES)]
    size = SLICES * len(json.dumps(slices[-1], separators=(",", ":"))) / MEGABYTE
    waits = []
    with place(tmp_path, poll_seconds="1", watch="false") as town:
        town.deploy("llama", engine=Engine(tokens=1))
        (worker,) = town.gateway.workers()
        small = peak_memory(worker)
        for each in slices:
            town.cluster.put_verbatim(each["metadata"]["name"], each)

        def known() -> float:
            began = time.monotonic()
            check_served(town)
            waits.append(time.monotonic() - began)
            return town.gateway.metric("gateway_endpoints", model="huge")

        wait_for(lambda: known() == SLICES * ENDPOINTS, "all of it is known")
        assert polls(town, "ok") == town.gateway.metric("gateway_polls_total")
        assert town.gateway.get("/healthz").status_code == 200
        grown = peak_memory(worker) - small
    assert size > 50
    assert grown < 20 * size
    record_property("row 7: a list's size, memory for it", f"{size:.0f} MB, {grown:.0f} MB")
    record_property("row 7: the longest answer meanwhile", f"{max(waits):.2f} s")
