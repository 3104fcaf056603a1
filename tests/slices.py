"""EndpointSlices for tests: recorded ones, and small ones written by hand."""

import json
from pathlib import Path
from typing import Any

from cache.endpoints import Endpoint, Pool
from cache.slices import Reading, SliceSet

RECORDED = Path(__file__).parent / "data" / "kubernetes"
HTTP = {"name": "http", "port": 8000, "protocol": "TCP"}


def recorded_items(name: str) -> list[Any]:
    """The items of a recorded list; several files joined by ` + ` are the pages of one."""
    return [
        item
        for page in name.split(" + ")
        for item in json.loads((RECORDED / page).read_text())["items"]
    ]


def entry(address: object = "10.0.0.1", pod: str | None = None, **conditions: object) -> Any:
    """One endpoint of a slice; without conditions it has none."""
    raw: dict[str, Any] = {"addresses": [address]}
    if conditions:
        raw["conditions"] = conditions
    if pod:
        raw["targetRef"] = {"kind": "Pod", "name": pod}
    return raw


def raw_slice(
    *entries: object,
    name: str = "m-1",
    model: object = "m",
    ports: object = (HTTP,),
    version: str | None = None,
    labels: dict[str, object] | None = None,
    **fields: object,
) -> dict[str, Any]:
    """One slice of a model; `fields` replace what it has at its top level."""
    metadata: dict[str, Any] = {"name": name, "namespace": "models"}
    metadata["labels"] = {"model.aibrix.ai/name": model, **(labels or {})}
    if version:
        metadata |= {"uid": f"uid-{name}", "resourceVersion": version}
    return {
        "metadata": metadata,
        "addressType": "IPv4",
        "ports": list(ports) if isinstance(ports, tuple) else ports,
        "endpoints": list(entries),
        **fields,
    }


def pools_of(items: list[Any], reading: Reading | None = None) -> dict[str, Pool]:
    """What a list of slices says."""
    slices = SliceSet(reading or Reading())
    slices.replace(items)
    return dict(slices.snapshot(0.0).pools)


def endpoints_of(*items: object, reading: Reading | None = None) -> tuple[Endpoint, ...]:
    """The endpoints of model `m`; none where it is not known."""
    pool = pools_of(list(items), reading).get("m")
    return pool.endpoints if pool else ()


def addresses_of(*items: object, reading: Reading | None = None) -> list[str]:
    """Where model `m` is served."""
    return [endpoint.address for endpoint in endpoints_of(*items, reading=reading)]
