"""The state of everything as one document, the same from whichever worker is asked.

Each worker discovers by itself, so two of them differ for moments. A page that asks one after the
other would show a pod ready, terminating, ready. So one worker, the *speaker*, makes the document
for all: the oldest that is well, by the time of its start and its process id, which every worker
finds out by asking all others for their facts (`peers.py`). Snapshot, events of slices and engines'
load are the speaker's own; requests in flight, endpoints set aside, last errors and counters are
those of all workers together. Another worker passes the speaker's document on. When the speaker
dies, drains or falls ill, the next oldest speaks. It has seen the same events, or begun with those
that workers before it saw (`events.Chronicle`).
"""

import json
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cache.endpoints import Endpoint, Key
from events import KEPT, Event
from exposition import endpoint_states, state_of
from load.values import EngineLoad
from parts import Gateway
from peers import Facts
from routing.lasterrors import Culprit, LastError, culprit
from status import rounded
from views.totals import Totals

VERSION = "0.1.0"

Document = dict[str, Any]


class Overview:
    """Makes the document, as the speaker or by asking it."""

    def __init__(self, gateway: Gateway, totals: Totals) -> None:
        self._gateway = gateway
        self._totals = totals

    def speak(self) -> bytes:
        """What this worker says for all."""
        return json.dumps(self._document(self._gateway.peers.ask())).encode()

    def read(self) -> bytes:
        """The document as JSON: the speaker's, or our own where it has none."""
        everyone = self._gateway.peers.ask()
        speaker = min(everyone, key=_seniority).worker
        if speaker != os.getpid():
            speech = self._gateway.peers.speech_of(speaker)
            if speech is not None:
                return speech
        return json.dumps(self._document(everyone)).encode()

    def _document(self, everyone: Sequence[Facts]) -> Document:
        gateway = self._gateway
        facts = everyone[0]  # our own
        cluster = _Cluster(gateway, everyone)
        return {
            "version": VERSION,
            "gateway": socket.gethostname(),
            "at": round(time.time(), 3),
            "ready": facts.trouble is None,
            "reason": facts.trouble,
            "snapshot_age_seconds": rounded(gateway.store.age()),
            "last_poll_error": gateway.poller.last_failure,
            "workers": sorted(facts.worker for facts in everyone),
            "speaker": facts.worker,
            "troubles": [
                {"worker": facts.worker, "reason": facts.trouble}
                for facts in everyone
                if facts.trouble is not None
            ],
            "models": cluster.models(),
            "events": _events(gateway.events.changes(), everyone),
            "totals": self._totals.read(),
        }


class _Cluster:
    """The speaker's endpoints, with what all workers know of them."""

    def __init__(self, gateway: Gateway, everyone: Sequence[Facts]) -> None:
        self._pools = gateway.pools()
        self._loads = gateway.loads.snapshot().engines
        self._now = time.monotonic()
        self._in_flight: Counter[Key] = Counter()
        for facts in everyone:
            self._in_flight.update(facts.in_flight)
        self._set_aside = frozenset(key for facts in everyone for key in facts.set_aside)
        self._errors = _latest(facts.errors for facts in everyone)

    def models(self) -> list[Document]:
        return [
            {
                "model": pool.model,
                "states": endpoint_states(pool, self._set_aside),
                "endpoints": [
                    self._endpoint(endpoint)
                    for endpoint in sorted(pool.endpoints, key=lambda one: one.name)
                ],
            }
            for pool in self._pools
        ]

    def _endpoint(self, endpoint: Endpoint) -> Document:
        error = self._errors.get(culprit(endpoint))
        return {
            "pod": endpoint.pod,
            "address": endpoint.authority,
            "zone": endpoint.zone,
            "node": endpoint.node,
            "state": state_of(endpoint, self._set_aside),
            "ready": endpoint.ready,
            "serving": endpoint.serving,
            "terminating": endpoint.terminating,
            "in_flight": self._in_flight[endpoint.key],
            "load": self._load(self._loads.get(endpoint.key)),
            "last_error": None if error is None else {"kind": error.kind, "at": error.at},
        }

    def _load(self, load: EngineLoad | None) -> Document | None:
        if load is None:
            return None
        return {
            "running": _finite(load.running),
            "waiting": _finite(load.waiting),
            "kv_cache_usage": _finite(load.kv_usage),
            "tokens_per_second": _finite(load.tokens_per_second),
            "age_seconds": rounded(self._now - load.at),
        }


def _finite(value: float) -> float | None:
    """As JSON can have it: an engine may report anything."""
    return round(value, 4) if math.isfinite(value) else None


def _seniority(facts: Facts) -> tuple[bool, float, int]:
    return facts.trouble is not None, facts.started, facts.worker


def _latest(everyone: Iterable[Mapping[Culprit, LastError]]) -> dict[Culprit, LastError]:
    """Each endpoint's last error of all that any worker saw."""
    latest: dict[Culprit, LastError] = {}
    for errors in everyone:
        for who, error in errors.items():
            if who not in latest or latest[who].at < error.at:
                latest[who] = error
    return latest


def _events(changes: Iterable[Event], everyone: Sequence[Facts]) -> list[Document]:
    """The last events, newest first. `worker` is whose they are where workers differ."""
    events = [{**asdict(event), "worker": None} for event in changes]
    for facts in everyone:
        events += [{**asdict(event), "worker": facts.worker} for event in facts.events]
    return sorted(events, key=lambda event: event["at"], reverse=True)[:KEPT]
