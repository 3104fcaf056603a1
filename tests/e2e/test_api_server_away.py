"""The API server goes away: what is known goes on serving, up to a point, and says its age."""

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from cache.poller import MAX_BACKOFF_INTERVALS
from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.harness import GatewayProcess, wait_for

POLL_SECONDS = 0.2
FAST = {"poll_seconds": str(POLL_SECONDS)}


def failed_polls(gateway: GatewayProcess) -> float:
    every = gateway.metric("gateway_polls_total")
    return every - gateway.metric("gateway_polls_total", result="ok")


def ask_until(gateway: GatewayProcess, condition: Callable[[], object]) -> list[int]:
    """Ask without a pause until `condition` holds; the statuses."""
    statuses: list[int] = []

    def asked_enough() -> object:
        statuses.append(gateway.chat().status_code)
        return condition()

    wait_for(asked_enough, "asked enough")
    return statuses


@pytest.mark.fault(1, 2)
@pytest.mark.parametrize(
    ("fault", "result"), [("refuse", "unreachable"), ("hang", "timeout"), ("500", "server_error")]
)
def test_an_api_server_away_for_ten_polls_costs_no_request(
    cluster: Cluster, start_gateway: GatewayFactory, fault: str, result: str
) -> None:
    cluster.model("llama", pods=2, engine=Engine(tokens=1))
    gateway = start_gateway(**FAST).ready()

    cluster.api.fault(fault)
    began = time.monotonic()
    statuses = ask_until(
        gateway,
        lambda: (
            time.monotonic() - began > 11 * POLL_SECONDS
            and gateway.metric("gateway_polls_total", result=result)
        ),
    )

    assert set(statuses) == {200}
    health = gateway.get("/healthz")
    assert health.status_code == 200
    assert health.json()["last_poll_error"] == result
    away = 10 * POLL_SECONDS
    assert health.json()["snapshot_age_seconds"] > away
    assert gateway.status()["snapshot_age_seconds"] > away
    assert gateway.metric("gateway_snapshot_age_seconds") > away


@pytest.mark.fault(1)
def test_a_pod_that_dies_while_the_api_server_is_away_costs_no_client_an_error(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    model = cluster.model("llama", pods=3, engine=Engine(tokens=1))
    gateway = start_gateway(**FAST).ready()
    cluster.api.fault("refuse")
    wait_for(lambda: failed_polls(gateway) >= 1, "the API server is missed")

    before = ask_until(gateway, lambda: failed_polls(gateway) >= 2)
    dying = model.pods[0]
    dying.crash(notice=None)
    after = [gateway.chat().status_code for _ in range(40)]

    assert set(before + after) == {200}
    assert gateway.endpoints()[dying.name] in ("ready", "set_aside")


@pytest.mark.fault(1)
def test_what_changed_meanwhile_is_known_soon_after_the_api_server_is_back(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    model = cluster.model("llama", pods=2)
    gateway = start_gateway(**FAST).ready()
    cluster.api.fault("refuse")
    wait_for(lambda: failed_polls(gateway) >= 3, "the API server is missed")
    gone, stays = model.pods
    gone.remove()
    new = model.add_pod()
    assert set(gateway.endpoints()) == {gone.name, stays.name}

    cluster.api.heal()

    expected = {stays.name: "ready", new.name: "ready"}
    wait_for(lambda: gateway.endpoints() == expected, "the change is known")
    assert gateway.get("/healthz").json()["last_poll_error"] is None
    assert "discovery works again" in gateway.logs()


@pytest.mark.fault(1)
def test_an_outage_is_said_once_and_not_at_every_poll(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama")
    gateway = start_gateway(**FAST).ready()
    cluster.api.fault("refuse")
    wait_for(lambda: failed_polls(gateway) >= 4, "several polls fail")
    said = [line for line in gateway.log_lines() if line["logger"] == "gateway.discovery"]
    assert len([line for line in said if line["level"] == "warning"]) == 1


@pytest.mark.fault(1)
def test_a_list_older_than_the_ttl_is_not_trusted_until_there_is_a_new_one(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", engine=Engine(tokens=1))
    gateway = start_gateway(**FAST, cache_ttl="1").ready()
    cluster.api.fault("refuse")

    statuses = ask_until(gateway, lambda: gateway.get("/healthz").status_code == 503)
    answer = gateway.chat()
    unknown = gateway.chat("never-heard-of")
    health = gateway.get("/healthz").json()

    # The first requests were served from the last good list, and none was refused otherwise.
    assert set(statuses[:-1]) == {200}
    assert answer.status_code == unknown.status_code == 503
    assert answer.headers["x-gateway-error"] == "endpoints_stale"
    assert unknown.headers["x-gateway-error"] == "endpoints_stale"
    assert answer.headers["Retry-After"] == "1"
    assert "the last good list" in health["reason"]
    assert gateway.get("/v1/models").headers["x-gateway-error"] == "endpoints_stale"
    assert gateway.get("/livez").status_code == 200
    assert gateway.status()["models"] == []

    cluster.api.heal()
    gateway.ready()
    assert gateway.chat().status_code == 200


@pytest.mark.fault(1)
def test_events_of_a_watch_do_not_make_an_old_list_younger(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    model = cluster.model("llama", pods=1)
    gateway = start_gateway(poll_seconds="60").ready()
    wait_for(lambda: cluster.api.open_watches, "the watch is open")
    wait_for(lambda: gateway.status()["snapshot_age_seconds"] > 0.5, "the list is of some age")

    new = model.add_pod()

    wait_for(lambda: new.name in gateway.endpoints(), "the event has come")
    assert gateway.status()["snapshot_age_seconds"] > 0.5


@pytest.mark.fault(6)
def test_an_api_server_that_asks_for_a_minute_is_asked_again_after_a_few_intervals(
    cluster: Cluster,
    start_gateway: GatewayFactory,
    record_property: Callable[[str, object], None],
) -> None:
    model = cluster.model("llama", engine=Engine(tokens=1))
    gateway = start_gateway(**FAST).ready()
    cluster.api.retry_after = 60
    cluster.api.fault("429", on="list", times=1)
    cluster.api.fault("503", on="list", times=1)
    statuses = ask_until(gateway, lambda: failed_polls(gateway) == 2)
    good = gateway.metric("gateway_polls_total", result="ok")
    statuses += ask_until(
        gateway, lambda: gateway.metric("gateway_polls_total", result="ok") > good
    )

    assert set(statuses) == {200}
    assert gateway.counted("gateway_polls_total", "result").keys() >= {"throttled", "server_error"}
    lists = [seen.at for seen in cluster.api.requests if seen.verb == "list"]
    waits = [later - at for at, later in pairwise(lists)]
    longest = MAX_BACKOFF_INTERVALS * POLL_SECONDS
    assert sum(wait > 0.99 * longest for wait in waits) >= 2, "it honours what it is asked for"
    assert max(waits) < longest + 10, "but no further than that"
    new = model.add_pod()
    wait_for(lambda: new.name in gateway.endpoints(), "changes are seen again")
    record_property("row 6: asked to wait 60 s, waited", f"{max(waits):.2f} s")


@pytest.mark.parametrize("watch", ["true", "false"])
def test_an_empty_list_is_believed_at_once(
    cluster: Cluster, start_gateway: GatewayFactory, watch: str
) -> None:
    model = cluster.model("llama", engine=Engine(tokens=1))
    gateway = start_gateway(**FAST, watch=watch).ready()
    assert gateway.chat().status_code == 200
    pod = model.pods[0]

    model.delete()

    wait_for(lambda: gateway.chat().status_code != 200, "the list is believed", 2.0)
    answer = gateway.chat()
    assert (answer.status_code, answer.headers["x-gateway-error"]) == (404, "model_not_found")
    assert gateway.get("/healthz").status_code == 200
    assert gateway.get("/healthz").json()["models"] == 0
    assert pod.process is not None
    assert pod.process.state == "ready"
