"""What people and probes are told: health, the models, and the state of everything."""

from collections import Counter
from typing import Any

from cache.endpoints import Endpoint, Pool, Snapshot
from cache.store import EndpointsStale, EndpointsUnknown
from exposition import endpoint_states, state_of
from parts import Gateway

VERSION = "0.1.0"

Document = dict[str, Any]


def health(gateway: Gateway) -> tuple[Document, bool]:
    """Whether this worker should get traffic, and why."""
    reason: str | None = None
    snapshot: Snapshot | None = None
    try:
        snapshot = gateway.store.snapshot()
    except (EndpointsUnknown, EndpointsStale) as error:
        reason = str(error)
    if gateway.drain.begun:
        reason = "draining"
    else:
        reason = gateway.poller.trouble() or reason
    states = Counter(e.state for pool in _pools(snapshot) for e in pool.endpoints)
    document = {
        "status": "ready" if reason is None else "not ready",
        "reason": reason,
        "snapshot_age_seconds": _rounded(gateway.store.age()),
        "last_poll_error": gateway.poller.last_failure,
        "models": len(_pools(snapshot)),
        "endpoints": {state: states[state] for state in ("ready", "not_ready", "terminating")},
    }
    return document, reason is None


def models(gateway: Gateway) -> Document:
    """OpenAI's list of models. Raises as `SnapshotStore.snapshot` does."""
    pools = gateway.store.snapshot().pools.values()
    return {"object": "list", "data": [_model(pool, gateway.started) for pool in pools]}


def model(gateway: Gateway, name: str) -> Document:
    """One model. Raises as `Router.eligible` does, but not for want of a ready endpoint."""
    return _model(gateway.router.pool(name), gateway.started)


def overview(gateway: Gateway) -> Document:
    """Everything: every model with its endpoints, counted over all workers."""
    everyone = gateway.peers.ask()
    in_flight: Counter[tuple[str, int]] = Counter()
    for facts in everyone:
        in_flight.update(facts.in_flight)
    set_aside = frozenset(key for facts in everyone for key in facts.set_aside)
    document, ready = health(gateway)
    return {
        "version": VERSION,
        "ready": ready,
        "reason": document["reason"],
        "snapshot_age_seconds": document["snapshot_age_seconds"],
        "last_poll_error": document["last_poll_error"],
        "workers": sorted(facts.worker for facts in everyone),
        "models": [
            {
                "model": pool.model,
                "states": endpoint_states(pool, set_aside),
                "endpoints": [_endpoint(e, set_aside, in_flight[e.key]) for e in pool.endpoints],
            }
            for pool in gateway.pools()
        ],
    }


def _endpoint(endpoint: Endpoint, set_aside: frozenset[tuple[str, int]], count: int) -> Document:
    return {
        "pod": endpoint.pod,
        "address": endpoint.authority,
        "zone": endpoint.zone,
        "node": endpoint.node,
        "state": state_of(endpoint, set_aside),
        "ready": endpoint.ready,
        "serving": endpoint.serving,
        "terminating": endpoint.terminating,
        "in_flight": count,
    }


def _model(pool: Pool, created: float) -> Document:
    return {
        "id": pool.model,
        "object": "model",
        "created": int(created),
        "owned_by": "gateway",
        "ready_endpoints": len(pool.routable),
    }


def _pools(snapshot: Snapshot | None) -> list[Pool]:
    return [] if snapshot is None else list(snapshot.pools.values())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
