"""Ten pods are replaced one by one under load, and no client notices."""

from collections import Counter

import pytest

from simulator.cluster import Cluster
from simulator.fleet import Pod
from simulator.model import Model
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.harness import GatewayProcess, wait_for
from tests.load import Load, Outcome

PODS = 10
#: Seconds after its slice entry said so within which a pod may still be sent a new request.
REACTION = 0.1


def deploy(cluster: Cluster, engine: Engine, gateway: GatewayProcess) -> Model:
    model = cluster.model("llama", pods=PODS, engine=engine)
    wait_for(lambda: Counter(gateway.endpoints().values())["ready"] == PODS, "all are known")
    return model


def update_under_load(
    cluster: Cluster, model: Model, gateway: GatewayProcess, *, dies: bool
) -> tuple[list[Outcome], list[Pod]]:
    """Replace every pod while 20 clients ask; return their outcomes and the pods that left."""
    leaving = model.pods
    with Load(gateway) as load:
        wait_for(lambda: len(load.outcomes) > 100, "the load has begun")
        cluster.rolling_update(model, order="random", gap=0.1, load_seconds=0.1, dies=dies)
        before_the_end = len(load.outcomes)
        wait_for(lambda: len(load.outcomes) > before_the_end + 100, "the load goes on")
    return load.outcomes, leaving


def late_starts(cluster: Cluster, pods: list[Pod]) -> list[float]:
    """How late, in seconds, requests began on pods whose entry had said `terminating`."""
    said = {change.pod: change.at for change in cluster.history if change.what == "terminating"}
    assert said.keys() >= {pod.name for pod in pods}
    return [
        request.at - said[pod.name]
        for pod in pods
        if pod.process is not None
        for request in pod.process.requests
        if request.at > said[pod.name]
    ]


@pytest.mark.parametrize("strategy", ["least-request", "round-robin"])
def test_graceful_pods_cost_no_client_anything(
    cluster: Cluster, start_gateway: GatewayFactory, strategy: str
) -> None:
    gateway = start_gateway(strategy=strategy).ready()
    model = deploy(cluster, Engine(tokens=10, token_seconds=0.01), gateway)

    outcomes, left = update_under_load(cluster, model, gateway, dies=False)

    assert [outcome for outcome in outcomes if not outcome.good] == []
    assert {outcome.stream for outcome in outcomes} == {True, False}
    assert max(late_starts(cluster, left), default=0.0) < REACTION
    assert {pod.name for pod in left} <= {outcome.pod for outcome in outcomes}
    assert not {pod.name for pod in left} & gateway.endpoints().keys()
    wait_for(lambda: gateway.in_flight() == 0, "nothing is in flight")


def test_pods_that_die_at_sigterm_break_only_streams_that_had_begun(
    cluster: Cluster, gateway: GatewayProcess
) -> None:
    model = deploy(cluster, Engine(tokens=10, token_seconds=0.01), gateway)

    outcomes, left = update_under_load(cluster, model, gateway, dies=True)

    bad = [outcome for outcome in outcomes if not outcome.good]
    assert bad, "ten busy pods died without breaking a stream: this test has lost its point"
    assert gateway.metric("gateway_retries_total") > 0
    assert [outcome for outcome in bad if not (outcome.stream and outcome.tokens)] == []
    assert {outcome.error_code for outcome in bad} <= {"upstream_died"}
    assert not any(outcome.complete for outcome in bad)
    assert {outcome.pod for outcome in bad} <= {pod.name for pod in left}
    assert max(late_starts(cluster, left), default=0.0) < REACTION
    wait_for(lambda: gateway.in_flight() == 0, "nothing is in flight")
