"""What `/metrics` adds to what was counted."""

import math
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from cache.endpoints import Endpoint, Key, Pool
from exposition import STATES, EngineCollector, GatewayCollector, endpoint_states, state_of
from load.values import NOTHING, EngineLoad, LoadSnapshot
from tests.fakes import Clock, endpoint, endpoints

READY, SECOND = endpoints(2)
NOT_READY, TERMINATING = endpoint(3, routable=False), endpoint(4, terminating=True)
EVERYTHING = (READY, SECOND, NOT_READY, TERMINATING)


@pytest.mark.parametrize(
    ("which", "aside", "state"),
    [
        (READY, [], "ready"),
        (READY, [READY.key], "set_aside"),
        (READY, [SECOND.key], "ready"),
        (NOT_READY, [], "not_ready"),
        (NOT_READY, [NOT_READY.key], "not_ready"),
        (TERMINATING, [], "terminating"),
        (TERMINATING, [TERMINATING.key], "terminating"),
    ],
)
def test_the_slice_s_word_goes_before_a_worker_s(
    which: Endpoint, aside: list[Key], state: str
) -> None:
    assert state_of(which, frozenset(aside)) == state


def test_each_endpoint_is_in_exactly_one_state() -> None:
    states = endpoint_states(Pool("llama", EVERYTHING), frozenset([READY.key, NOT_READY.key]))
    assert states == {"ready": 1, "set_aside": 1, "not_ready": 1, "terminating": 1}


def test_a_model_without_endpoints_shows_zeros() -> None:
    assert endpoint_states(Pool("llama"), frozenset()) == dict.fromkeys(STATES, 0)


class Exposed:
    """A collector over counted metrics of its own, and pools that a test changes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.counted = CollectorRegistry()
        self.listed_at = Gauge("gateway_listed_at", "x", registry=self.counted)
        Counter("gateway_requests", "x", ["model"], registry=self.counted).labels("llama").inc(3)
        self.pools = [Pool("llama", EVERYTHING)]
        self.set_aside: frozenset[Key] = frozenset()
        self.registry = CollectorRegistry()
        self.registry.register(
            GatewayCollector(self.counted, lambda: self.pools, lambda: self.set_aside, self.clock)
        )

    @property
    def value(self) -> Callable[..., float | None]:
        return lambda name, **labels: self.registry.get_sample_value(name, labels)


@pytest.fixture
def exposed() -> Exposed:
    return Exposed()


def test_what_was_counted_passes(exposed: Exposed) -> None:
    assert exposed.value("gateway_requests_total", model="llama") == 3


def test_the_endpoints_are_those_of_now(exposed: Exposed) -> None:
    assert exposed.value("gateway_endpoints", model="llama", state="ready") == 2
    exposed.set_aside = frozenset([READY.key])
    assert exposed.value("gateway_endpoints", model="llama", state="ready") == 1
    assert exposed.value("gateway_endpoints", model="llama", state="set_aside") == 1
    exposed.pools = [Pool("qwen", (READY,))]
    assert exposed.value("gateway_endpoints", model="llama", state="ready") is None


def test_the_age_is_that_of_the_last_list(exposed: Exposed) -> None:
    exposed.listed_at.set(exposed.clock.now)
    exposed.clock.now += 12.5
    assert exposed.value("gateway_snapshot_age_seconds") == 12.5
    assert exposed.value("gateway_listed_at") is None, "a monotonic time tells an operator nothing"


def test_before_the_first_list_the_age_is_endless(exposed: Exposed) -> None:
    assert exposed.value("gateway_snapshot_age_seconds") == math.inf


def test_of_several_workers_the_oldest_list_counts() -> None:
    clock = Clock()
    counted = CollectorRegistry()
    listed_at = Gauge("gateway_listed_at", "x", ["pid"], registry=counted)
    listed_at.labels("1").set(clock.now - 30)
    listed_at.labels("2").set(clock.now - 2)
    registry = CollectorRegistry()
    registry.register(GatewayCollector(counted, list, frozenset, clock))
    assert registry.get_sample_value("gateway_snapshot_age_seconds") == 30
    listed_at.labels("3").set(0)
    assert registry.get_sample_value("gateway_snapshot_age_seconds") == math.inf


def test_the_text_is_prometheus_s(exposed: Exposed) -> None:
    exposed.pools = [Pool('odd "name"\\\n', (READY,))]
    text = generate_latest(exposed.registry).decode()
    assert 'gateway_endpoints{model="odd \\"name\\"\\\\\\n",state="ready"} 1.0' in text
    assert "gateway_snapshot_age_seconds +Inf" in text


def engine_values(loads: LoadSnapshot, *pools: Pool) -> dict[str, float | None]:
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: pools, lambda: loads))
    figures = ("running", "waiting", "kv_cache_usage", "tokens_per_second")
    model = {"model": "llama"}
    return {name: registry.get_sample_value(f"gateway_engine_{name}", model) for name in figures}


def test_the_load_of_a_model_s_engines_adds_up_and_usage_is_their_mean() -> None:
    loads = LoadSnapshot(
        {
            READY.key: EngineLoad(3, 1, 0.5, 100),
            SECOND.key: EngineLoad(2, 0, 0.25, 50),
            ("10.9.9.9", 1): EngineLoad(9, 9, 1, 999),
        }
    )
    assert engine_values(loads, Pool("llama", EVERYTHING)) == {
        "running": 5,
        "waiting": 1,
        "kv_cache_usage": 0.375,
        "tokens_per_second": 150,
    }


def test_engines_that_report_nothing_are_not_shown_as_idle() -> None:
    values = engine_values(NOTHING, Pool("llama", EVERYTHING))
    assert set(values.values()) == {None}
