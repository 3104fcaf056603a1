"""Reading EndpointSlices: JSON as the API server sends it in, a `Snapshot` out. No I/O.

The rules are those of the `discovery.k8s.io/v1` API type and of kube-proxy's reading of it; what
the API leaves optional becomes plain here and nowhere else. A slice is read alone: a malformed one
is counted and spoils nothing.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cache.endpoints import Endpoint, Key, Pool, Snapshot

MODEL_LABEL = "model.aibrix.ai/name"
PORT_LABEL = "model.aibrix.ai/port"
SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How slices are to be read.

    `service` names the one Service of the single-service mode, else the label says the model.
    `port_name` prefers a port by name. `require_serving` also tests `conditions.serving`.
    """

    service: str = ""
    port_name: str = ""
    require_serving: bool = True
    allow_loopback: bool = False


@dataclass(frozen=True, slots=True)
class ReadSlice:
    """What one slice says: its model (if any), its endpoints, and why others were skipped."""

    model: str | None
    endpoints: tuple[Endpoint, ...] = ()
    skipped: tuple[str, ...] = ()


def read_slice(raw: object, reading: Reading) -> ReadSlice:
    """Read one EndpointSlice.

    Never raises: what can't be understood is named in `skipped` by a reason (`malformed`, `label`,
    `fqdn`, `port` for a whole slice; `malformed`, `address` for one endpoint of it).
    """
    try:
        return _read_slice(raw, reading)
    except (AttributeError, KeyError, TypeError, ValueError):
        # Any other shape than the API type's: there is no telling what was meant.
        return ReadSlice(None, skipped=("malformed",))


def _read_slice(raw: Any, reading: Reading) -> ReadSlice:
    labels = raw["metadata"].get("labels") or {}
    model = labels.get(SERVICE_LABEL if reading.service else MODEL_LABEL)
    if not isinstance(model, str) or not model or (reading.service and model != reading.service):
        return ReadSlice(None, skipped=("label",))
    entries = raw.get("endpoints") or []
    if not isinstance(entries, list):
        return ReadSlice(model, skipped=("malformed",))
    if not entries:
        return ReadSlice(model)
    if raw.get("addressType") == "FQDN":
        return ReadSlice(model, skipped=("fqdn",))
    port = _port(raw.get("ports") or [], labels.get(PORT_LABEL), reading.port_name)
    if port is None:
        return ReadSlice(model, skipped=("port",))
    endpoints: list[Endpoint] = []
    skipped: list[str] = []
    for entry in entries:
        try:
            endpoints.append(_read_endpoint(entry, port, reading))
        except _UnusableAddress:
            skipped.append("address")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            skipped.append("malformed")
    return ReadSlice(model, tuple(endpoints), tuple(skipped))


def _port(ports: list[Any], labelled: object, name: str) -> int | None:
    """The port to use, by the first rule that finds one; None leaves the slice unusable."""
    usable = [
        (port.get("name") or "", port["port"])
        for port in ports
        if (port.get("protocol") or "TCP") == "TCP" and _is_port_number(port.get("port"))
    ]
    rules = (
        [number for its_name, number in usable if name and its_name == name],
        [number for _, number in usable if str(number) == labelled],
        [number for _, number in usable if len(usable) == 1],
        [number for its_name, number in usable if its_name == "http"],
    )
    return next((found[0] for found in rules if found), None)


def _is_port_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65_536


class _UnusableAddress(Exception):
    """The address is one that must never be a target."""


def _read_endpoint(entry: Any, port: int, reading: Reading) -> Endpoint:
    address = entry["addresses"][0]  # "consumers must handle" only the first (API type)
    if not _is_target(address, reading.allow_loopback):
        raise _UnusableAddress(address)
    conditions = entry.get("conditions") or {}
    ready = _condition(conditions, "ready", absent=True)
    serving = _condition(conditions, "serving", absent=True)
    terminating = _condition(conditions, "terminating", absent=False)
    target = entry.get("targetRef") or {}
    return Endpoint(
        address=address,
        port=port,
        pod=_name(target.get("name")) if target.get("kind", "Pod") == "Pod" else None,
        zone=_name(entry.get("zone")),
        node=_name(entry.get("nodeName")),
        ready=ready,
        serving=serving,
        terminating=terminating,
        routable=ready and not terminating and (serving or not reading.require_serving),
    )


def _name(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    raise TypeError(value)


def _condition(conditions: Mapping[str, object], name: str, *, absent: bool) -> bool:
    value = conditions.get(name)
    if value is None:
        return absent
    if not isinstance(value, bool):
        raise TypeError(name)
    return value


@lru_cache(maxsize=65_536)
def _is_target(address: str, allow_loopback: bool) -> bool:
    """Whether a pod may live there. Raises `ValueError` for what is no IP address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped or ip.scope_id):
        return False
    if ip.is_loopback:
        return allow_loopback
    return not (ip.is_unspecified or ip.is_multicast or ip.is_link_local)


@dataclass(frozen=True, slots=True)
class _Held:
    """A slice: what tells its versions apart, and what it says."""

    version: object
    read: ReadSlice


class SliceSet:
    """The slices known now, by name, and the pools they form.

    A list replaces all of them, a watch event one; both end in `snapshot()`, the one way a snapshot
    is made. Only what changed is read again, so that an event costs its model's pool and not the
    whole cluster. Not thread-safe: it belongs to the poller.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._slices: dict[str, _Held] = {}
        self._pools: dict[str, Pool] = {}

    def replace(self, items: Iterable[object]) -> list[str]:
        """Make `items`, a complete list, the truth; return why what was newly skipped was."""
        before, self._slices = self._slices, {}
        skipped: list[str] = []
        for raw in items:
            name = _slice_name(raw)
            if name is None:
                skipped.append("malformed")
                continue
            held = before.get(name)
            version = _version(raw)
            if held is None or held.version != version:
                held = _Held(version, read_slice(raw, self._reading))
                skipped.extend(held.read.skipped)
            self._slices[name] = held
        changed = [
            held
            for name in before.keys() | self._slices.keys()
            if before.get(name) is not self._slices.get(name)
            for held in (before.get(name), self._slices.get(name))
        ]
        self._rebuild(held.read.model for held in changed if held is not None)
        return skipped

    def apply(self, kind: str, raw: object) -> list[str]:
        """Apply a watch event (`ADDED`, `MODIFIED`, `DELETED`); return why what was skipped was.

        A `DELETED` carries the slice as it last matched the selector, so it goes by its name.
        """
        name = _slice_name(raw)
        if name is None:
            return ["malformed"]
        before = self._slices.pop(name, None)
        after = None
        if kind != "DELETED":
            after = self._slices[name] = _Held(_version(raw), read_slice(raw, self._reading))
        self._rebuild(held.read.model for held in (before, after) if held is not None)
        return list(after.read.skipped) if after else []

    def snapshot(self, listed_at: float) -> Snapshot:
        """The pools as they stand; `listed_at` is the monotonic time of the last full list."""
        pools = dict(self._pools)
        if self._reading.service:
            # A Service without slices is one without pods, not an unknown model.
            pools.setdefault(self._reading.service, Pool(self._reading.service))
        return Snapshot(pools, listed_at)

    def _rebuild(self, models: Iterable[str | None]) -> None:
        slices: dict[str, list[ReadSlice]] = {model: [] for model in models if model is not None}
        for held in self._slices.values():
            if held.read.model in slices:
                slices[held.read.model].append(held.read)
        for model, parts in slices.items():
            if parts:
                self._pools[model] = _pool(model, parts)
            else:
                self._pools.pop(model, None)


def _pool(model: str, slices: Iterable[ReadSlice]) -> Pool:
    """One pool of all slices of a model.

    Slices overlap while the controller moves endpoints between them: of two entries for one
    address and port the one that isn't terminating wins, then the routable one.
    """
    best: dict[Key, Endpoint] = {}
    for part in slices:
        for endpoint in part.endpoints:
            other = best.get(endpoint.key)
            if other is None or _preference(endpoint) > _preference(other):
                best[endpoint.key] = endpoint
    return Pool(model, tuple(best[key] for key in sorted(best)))


def _preference(endpoint: Endpoint) -> tuple[bool, bool]:
    return (not endpoint.terminating, endpoint.routable)


def _slice_name(raw: object) -> str | None:
    metadata = raw.get("metadata") if isinstance(raw, dict) else None
    if not isinstance(metadata, dict):
        return None
    name = metadata.get("name")
    return f"{metadata.get('namespace', '')}/{name}" if isinstance(name, str) and name else None


def _version(raw: Any) -> object:
    """What differs between two versions of an object; a file's slices may have no such mark."""
    metadata = raw["metadata"]
    mark = (metadata.get("uid"), metadata.get("resourceVersion"))
    return raw if None in mark else mark
