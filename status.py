"""What probes and clients are told: health and the models. `views/` shows people the rest."""

from collections import Counter
from typing import Any

from cache.endpoints import Pool
from parts import Gateway

Document = dict[str, Any]


def health(gateway: Gateway) -> tuple[Document, bool]:
    """Whether this worker should get traffic, and why."""
    reason = gateway.trouble()
    pools = gateway.pools()
    states = Counter(e.state for pool in pools for e in pool.endpoints)
    document = {
        "status": "ready" if reason is None else "not ready",
        "reason": reason,
        "snapshot_age_seconds": rounded(gateway.store.age()),
        "last_poll_error": gateway.poller.last_failure,
        "models": len(pools),
        "endpoints": {state: states[state] for state in ("ready", "not_ready", "terminating")},
    }
    return document, reason is None


def models(gateway: Gateway) -> Document:
    """OpenAI's list of models. Raises as `SnapshotStore.snapshot` does."""
    names = gateway.inference.naming.listed(gateway.store.snapshot().pools)
    return {"object": "list", "data": [_model(gateway, *named) for named in names.items()]}


def model(gateway: Gateway, name: str) -> Document:
    """The model that has, or has the alias, `name`. Raises as `Router.pool` does."""
    return _model(gateway, name, gateway.inference.naming.pool(name))


def _model(gateway: Gateway, name: str, pool: Pool) -> Document:
    document = {
        "id": name,
        "object": "model",
        "created": int(gateway.started),
        "owned_by": "gateway",
        "ready_endpoints": len(pool.routable),
    }
    stands_for = gateway.inference.naming.aliases.get(name)
    if stands_for is not None:
        document |= {"alias_of": stands_for, "root": stands_for}
    return document


def rounded(seconds: float | None) -> float | None:
    """In whole milliseconds, which is all that anybody wants to read."""
    return None if seconds is None else round(seconds, 3)
