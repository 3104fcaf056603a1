"""Lists of EndpointSlices: any JSON is read, in any order and by lists or events alike."""

import ipaddress
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cache.endpoints import Endpoint, Pool
from cache.slices import Reading, SliceSet
from fuzz.lists import Choices, made_list
from fuzz.promises import expect

_RECORDED = Path(__file__).parent.parent / "tests" / "data" / "kubernetes"

#: All ways to read that differ in more than a name.
READINGS: Final = (
    Reading(),
    Reading(port_name="metrics", require_serving=False, allow_loopback=True),
    Reading(service="m"),
)
#: Deeper than the gateway is when it parses, so that what it can parse can be walked through.
_FRAMES = 50

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_ODD = (
    b'{"items": null}',
    b"[null, [], {}, 5, true]",
    b'[{"metadata": {"name": "a", "labels": {"model.aibrix.ai/name": "m", '
    b'"model.aibrix.ai/port": "80", "kubernetes.io/service-name": "m"}}, '
    b'"ports": [{"port": 80}, {"port": 8000.0, "name": "http"}], "endpoints": ['
    b'{"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": false}}, '
    b'{"addresses": ["::ffff:10.0.0.1", 1], "zone": "z", "nodeName": "n"}, '
    b'{"addresses": ["127.0.0.1"], "targetRef": {"kind": "Pod", "name": "p"}}]}]',
    b'[{"metadata": {"name": "a", "labels": {"model.aibrix.ai/name": "m"}}, "endpoints": '
    + b"[" * 100
    + b"]" * 100
    + b"}]",
)

#: What means something in a list that is JSON.
WORDS: Final = tuple(
    f'"{word}"'.encode()
    for word in (
        *("metadata", "name", "namespace", "labels", "uid", "resourceVersion", "endpoints"),
        *("addresses", "conditions", "ready", "serving", "terminating", "targetRef", "zone"),
        *("nodeName", "ports", "port", "protocol", "addressType", "items", "FQDN", "fe80::1"),
        *("model.aibrix.ai/name", "model.aibrix.ai/port", "10.0.0.1", "169.254.169.254"),
    )
)


def seeds() -> list[bytes]:
    """Where a search begins: recorded lists, odd ones, and some choices."""
    recorded = [path.read_bytes() for path in sorted(_RECORDED.glob("*.json"))]
    return [*recorded, *_ODD, bytes(range(99)), bytes(range(200, 100, -1)), bytes([1] * 60)]


def check(data: bytes) -> None:
    """Check `data` as the API server's answer to a list, or as choices of one; raises `Broken`."""
    if data[:1] not in (b"{", b"["):
        choices = Choices(data)
        reading = choices.of(*READINGS)
        check_items(made_list(choices), reading, made_list(choices))
        return
    try:
        document = _parsed(data, _FRAMES)
    except (ValueError, RecursionError):
        return  # no list: the last good one serves
    items = document.get("items") if isinstance(document, dict) else document
    if isinstance(items, list):
        for reading in READINGS:
            check_items(items, reading)


def _parsed(data: bytes, frames: int) -> Any:
    return _parsed(data, frames - 1) if frames else json.loads(data)


def check_items(items: list[Any], reading: Reading, before: list[Any] | None = None) -> None:
    """Check the list `items`, which follows the list `before`; raises `Broken`.

    Whatever raises anything else is as bad: it would end discovery.
    """
    pools = listed(items, reading)
    check_pools(pools, reading)

    events = SliceSet(reading)
    for item in items:
        events.apply("ADDED", item)
    expect(pools == pools_of(events), "a list says what its items say one by one", items)

    if _have_names_of_their_own(items):
        turned = listed(items[::-1], reading)
        expect(pools == turned, "the order of slices does not matter", items)

        after = SliceSet(reading)
        after.replace([*items[::2], *(before or [])])
        after.replace(items)
        expect(pools == pools_of(after), "a list replaces all that was known", before, items)

    for item in items:
        events.apply("DELETED", item)
    expect(pools_of(events) == listed([], reading), "what is deleted is gone", items)


def listed(items: list[Any], reading: Reading) -> Mapping[str, Pool]:
    """What the list alone says."""
    slices = SliceSet(reading)
    slices.replace(items)
    return pools_of(slices)


def pools_of(slices: SliceSet) -> Mapping[str, Pool]:
    """What is known now."""
    return dict(slices.snapshot(0.0).pools)


def check_pools(pools: Mapping[str, Pool], reading: Reading) -> None:
    """Check what may be routed to; raises `Broken`."""
    for model, pool in pools.items():
        expect(bool(model) and model.isprintable() and pool.model == model, "a name", model)
        for first, second in pairwise(pool.endpoints):
            expect(first.key < second.key, "endpoints are sorted, each there once", pool)
        routable = tuple(endpoint for endpoint in pool.endpoints if endpoint.routable)
        expect(pool.routable == routable, "a pool knows its routable endpoints", pool)
        for endpoint in pool.endpoints:
            _check_endpoint(endpoint, reading)


def _check_endpoint(endpoint: Endpoint, reading: Reading) -> None:
    verdict = endpoint.ready and not endpoint.terminating
    if reading.require_serving:
        verdict = verdict and endpoint.serving
    expect(endpoint.routable is verdict, "routable is ready, serving, not terminating", endpoint)
    address = ipaddress.ip_address(endpoint.address)
    expect(not _is_forbidden(address, reading), "some addresses are never targets", endpoint)
    expect(str(address) == endpoint.address, "an address has one spelling", endpoint)
    expect(type(endpoint.port) is int and 0 < endpoint.port < 65_536, "a port", endpoint)
    for name in (endpoint.pod, endpoint.zone, endpoint.node):
        harmless = name is None or (name.isascii() and name.isprintable() and name != "")
        expect(harmless, "names are harmless in a header", endpoint)


def _is_forbidden(address: _Address, reading: Reading) -> bool:
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        return True
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_loopback and not reading.allow_loopback
    if address.ipv4_mapped is not None or address.scope_id is not None:
        return True
    behind = [address.sixtofour, address.teredo and address.teredo[1]]
    if address in _NAT64:
        behind.append(ipaddress.IPv4Address(address.packed[-4:]))
    if any(ip and (ip.is_loopback or _is_forbidden(ip, reading)) for ip in behind):
        return True
    return address.is_loopback and not reading.allow_loopback


def _have_names_of_their_own(items: list[Any]) -> bool:
    """As the slices of one answer of an API server have; of two with one name the last counts."""
    names = [
        str(item["metadata"].get("name"))
        for item in items
        if isinstance(item, dict) and isinstance(item.get("metadata"), dict)
    ]
    return len(set(names)) == len(names)
