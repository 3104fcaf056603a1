"""Reading EndpointSlices: JSON as the API server sends it in, a `Snapshot` out. No I/O.

The rules are those of the `discovery.k8s.io/v1` API type and of kube-proxy's reading of it; what
the API leaves optional becomes plain here and nowhere else. A slice is read alone: a malformed one
is counted and spoils nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cache.endpoints import Endpoint, Key, Pool, Snapshot
from cache.fields import (
    UnusableAddress,
    choose_port,
    condition,
    list_of,
    mapping,
    name_of,
    port_number,
    target_address,
    trigger_time,
)

MODEL_LABEL = "model.aibrix.ai/name"
PORT_LABEL = "model.aibrix.ai/port"
METRICS_PORT_LABEL = "model.aibrix.ai/metric-port"
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
    `fqdn`, `port` for a whole slice; `malformed`, `address` for one endpoint of it). A slice that
    still names its model makes that model known, whatever else is wrong with it.
    """
    try:
        item = mapping(raw)
        labels = mapping(item.get("metadata"), "labels")
        model = labels.get(SERVICE_LABEL if reading.service else MODEL_LABEL)
    except TypeError:
        return ReadSlice(None, skipped=("malformed",))
    if not isinstance(model, str) or not model.isprintable() or not model:
        return ReadSlice(None, skipped=("label",))
    if reading.service and model != reading.service:
        return ReadSlice(None, skipped=("label",))
    try:
        return _read_endpoints(item, model, labels.get(PORT_LABEL), reading)
    except TypeError:
        # Any other shape than the API type's: there is no telling what was meant.
        return ReadSlice(model, skipped=("malformed",))


def _read_endpoints(
    item: Mapping[str, Any], model: str, labelled_port: object, reading: Reading
) -> ReadSlice:
    """Read what a slice lists; raises `TypeError` for a slice of the wrong shape."""
    entries = list_of(item, "endpoints")
    if item.get("addressType") == "FQDN":
        return ReadSlice(model, skipped=("fqdn",))
    if not entries:
        return ReadSlice(model)
    port = choose_port(list_of(item, "ports"), labelled_port, reading.port_name)
    if port is None:
        return ReadSlice(model, skipped=("port",))
    endpoints: list[Endpoint] = []
    skipped: list[str] = []
    metadata = item["metadata"]
    metrics_port = port_number(metadata["labels"].get(METRICS_PORT_LABEL))
    common = _Common(port, metrics_port, trigger_time(metadata))
    for entry in entries:
        try:
            endpoints.append(_read_endpoint(entry, common, reading))
        except UnusableAddress:
            skipped.append("address")
        except (IndexError, TypeError, ValueError):
            skipped.append("malformed")
    return ReadSlice(model, tuple(endpoints), tuple(skipped))


class _Common(NamedTuple):
    """What all endpoints of a slice share."""

    port: int
    metrics_port: int | None
    triggered: str | None


def _read_endpoint(raw: Any, common: _Common, reading: Reading) -> Endpoint:
    entry = mapping(raw)
    # All addresses of an entry are the same pod's; the API type calls for the first alone.
    address = target_address(list_of(entry, "addresses")[0], reading.allow_loopback)
    conditions = mapping(entry, "conditions")
    ready = condition(conditions, "ready", absent=True)
    serving = condition(conditions, "serving", absent=True)
    terminating = condition(conditions, "terminating", absent=False)
    target = mapping(entry, "targetRef")
    return Endpoint(
        address=address,
        port=common.port,
        pod=name_of(target, "name") if target.get("kind", "Pod") == "Pod" else None,
        zone=name_of(entry, "zone"),
        node=name_of(entry, "nodeName"),
        ready=ready,
        serving=serving,
        terminating=terminating,
        routable=ready and not terminating and (serving or not reading.require_serving),
        metrics_port=common.metrics_port,
        triggered=common.triggered,
    )


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
        before = self._slices
        slices: dict[str, _Held] = {}
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
            slices[name] = held
        self._slices = slices
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
    address and port the one that isn't terminating wins, then the routable one. What is left is
    decided by the entries themselves, so that the slices' order never matters.
    """
    best: dict[Key, Endpoint] = {}
    for part in slices:
        for endpoint in part.endpoints:
            other = best.get(endpoint.key)
            if other is None or _preference(endpoint) > _preference(other):
                best[endpoint.key] = endpoint
    return Pool(model, tuple(best[key] for key in sorted(best)))


def _preference(endpoint: Endpoint) -> tuple[bool, bool, bool, bool, str, str, str]:
    return (
        not endpoint.terminating,
        endpoint.routable,
        endpoint.serving,
        endpoint.ready,
        endpoint.pod or "",
        endpoint.zone or "",
        endpoint.node or "",
    )


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
    return repr(raw) if None in mark else mark  # spelled out, since 1 == True
