"""`/metrics`: what all workers counted, and what the cluster looks like now."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cache.endpoints import Endpoint, Pool
from load.values import EngineLoad, LoadSnapshot

STATES = ("ready", "not_ready", "terminating", "set_aside")


def endpoint_states(pool: Pool, set_aside: frozenset[tuple[str, int]]) -> Mapping[str, int]:
    """How many endpoints of `pool` are in each state; each is in exactly one."""
    states = dict.fromkeys(STATES, 0)
    for endpoint in pool.endpoints:
        states[state_of(endpoint, set_aside)] += 1
    return states


def state_of(endpoint: Endpoint, set_aside: frozenset[tuple[str, int]]) -> str:
    """The state of one endpoint: its slice entry's, unless a worker has set it aside."""
    if endpoint.state == "ready" and endpoint.key in set_aside:
        return "set_aside"
    return endpoint.state


class GatewayCollector(Collector):
    """Adds to what was counted what is known only when asked.

    A gauge by model would keep the models that are gone; asking the snapshot forgets them.
    """

    def __init__(
        self,
        counted: CollectorRegistry,
        pools: Callable[[], Iterable[Pool]],
        set_aside: Callable[[], frozenset[tuple[str, int]]],
        clock: Callable[[], float],
    ) -> None:
        self._counted = counted
        self._pools = pools
        self._set_aside = set_aside
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """All metrics, those of a worker's own merged over the workers."""
        for metric in self._counted.collect():
            if metric.name == "gateway_listed_at":
                yield self._age(metric)
            else:
                yield metric
        yield self._endpoints()

    def _age(self, listed_at: Metric) -> Metric:
        age = GaugeMetricFamily(
            "gateway_snapshot_age_seconds",
            "Seconds since the last good list, of the worker whose is the oldest.",
        )
        times = [sample.value for sample in listed_at.samples]
        never = not times or min(times) == 0
        age.add_metric([], math.inf if never else self._clock() - min(times))
        return age

    def _endpoints(self) -> Metric:
        endpoints = GaugeMetricFamily(
            "gateway_endpoints", "Endpoints by model and state.", labels=["model", "state"]
        )
        set_aside = self._set_aside()
        for pool in self._pools():
            for state, count in endpoint_states(pool, set_aside).items():
                endpoints.add_metric([pool.model, state], count)
        return endpoints


class EngineCollector(Collector):
    """What the engines of each model reported lately to the worker that is asked.

    A model none of whose engines reports has no series: zero would look like idle engines.
    """

    def __init__(
        self, pools: Callable[[], Iterable[Pool]], loads: Callable[[], LoadSnapshot]
    ) -> None:
        self._pools = pools
        self._loads = loads

    def collect(self) -> Iterable[Metric]:
        """A gauge for each figure, by model."""
        gauges = [
            GaugeMetricFamily(f"gateway_engine_{name}", text, labels=["model"])
            for name, text, _ in _ENGINE_FIGURES
        ]
        engines = self._loads().engines
        for pool in self._pools():
            found = [engines[e.key] for e in pool.routable if e.key in engines]
            if found:
                for gauge, (_, _, figure) in zip(gauges, _ENGINE_FIGURES, strict=True):
                    gauge.add_metric([pool.model], figure(found))
        return gauges


_ENGINE_FIGURES: Sequence[tuple[str, str, Callable[[Sequence[EngineLoad]], float]]] = (
    (
        "running",
        "Requests that run in a model's engines, as they report it.",
        lambda found: sum(engine.running for engine in found),
    ),
    (
        "waiting",
        "Requests that wait in a model's engines, as they report it.",
        lambda found: sum(engine.waiting for engine in found),
    ),
    (
        "kv_cache_usage",
        "The part of their KV caches that a model's engines use, on average, 0 to 1.",
        lambda found: sum(engine.kv_usage for engine in found) / len(found),
    ),
    (
        "tokens_per_second",
        "Tokens that a model's engines read and make in a second.",
        lambda found: sum(engine.tokens_per_second for engine in found),
    ),
)
