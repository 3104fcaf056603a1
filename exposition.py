"""`/metrics`: what all workers counted, and what the cluster looks like now."""

import math
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cache.endpoints import Endpoint, Pool

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
