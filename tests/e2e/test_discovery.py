"""Everything an API server may answer: each failure is counted, none is believed, none is fatal."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.model import Model
from tests.e2e.conftest import GatewayFactory
from tests.e2e.place import Place, place
from tests.harness import GatewayProcess, wait_for

POLL_SECONDS = 0.3
LIST_FAULTS = {
    "refuse": "unreachable",
    "401": "unauthorized",
    "403": "forbidden",
    "410": "expired",
    "429": "throttled",
    "500": "server_error",
    "503": "server_error",
    "garbage": "garbage",
    "truncated": "unreachable",
    "endless": "garbage",
    "hang": "timeout",
}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("town"), poll_seconds=str(POLL_SECONDS)) as running:
        yield running


@pytest.fixture
def model(town: Place, request: pytest.FixtureRequest) -> Iterator[Model]:
    """A model of this test's own; afterwards the API server is well again."""
    name = f"m{abs(hash(request.node.nodeid))}"
    deployed = town.deploy(name, pods=1)
    yield deployed
    town.cluster.api.heal()
    town.cluster.api.expired_watch = "event"
    deployed.delete()
    wait_for(lambda: town.gateway.get("/healthz").json()["last_poll_error"] is None, "all is well")


def polls(gateway: GatewayProcess, result: str) -> float:
    return gateway.metric("gateway_polls_total", result=result)


def watches(gateway: GatewayProcess, result: str) -> float:
    return gateway.metric("gateway_watches_total", result=result)


def states(gateway: GatewayProcess, model: Model) -> dict[str, str]:
    return gateway.endpoints(model.name)


def wait_for_new_pod(gateway: GatewayProcess, model: Model, patience: float = 20.0) -> None:
    """Discovery works: a pod that is added becomes known and served."""
    pod = model.add_pod()
    wait_for(lambda: states(gateway, model).get(pod.name) == "ready", "it is known", patience)


@pytest.mark.fault(1, 2, 3, 4, 6, 7)
@pytest.mark.parametrize(("fault", "result"), LIST_FAULTS.items(), ids=LIST_FAULTS)
def test_a_failed_list_is_counted_never_believed_and_got_over(
    town: Place, model: Model, fault: str, result: str
) -> None:
    gateway, pod = town.gateway, model.pods[0]
    before = polls(gateway, result)

    town.cluster.api.fault(fault, on="all" if fault == "refuse" else "list")
    wait_for(lambda: polls(gateway, result) >= before + 1, "the failed list is counted")

    assert states(gateway, model) == {pod.name: "ready"}
    assert gateway.chat(model.name).status_code == 200
    assert gateway.get("/healthz").status_code == 200
    assert gateway.get("/healthz").json()["last_poll_error"] == result
    town.cluster.api.heal()
    wait_for_new_pod(gateway, model)


@pytest.mark.fault(6)
def test_a_throttled_gateway_waits_the_second_it_is_asked_for(town: Place, model: Model) -> None:
    api = town.cluster.api
    before = polls(town.gateway, "throttled")
    api.fault("429", on="list", times=1)
    wait_for(lambda: polls(town.gateway, "throttled") > before, "it is throttled")
    refused_at = [seen.at for seen in api.requests if seen.verb == "list"][-1]

    def next_list() -> list[float]:
        return [seen.at for seen in api.requests if seen.verb == "list" and seen.at > refused_at]

    wait_for(next_list, "it lists again")
    assert next_list()[0] - refused_at >= 0.99  # Retry-After: 1


@pytest.mark.fault(5)
def test_a_list_that_expires_between_its_pages_begins_again(town: Place, model: Model) -> None:
    gateway = town.gateway
    names = [f"{model.name}-{number}" for number in range(501)]  # which takes many pages
    for number, name in enumerate(names):
        town.cluster.put_slice(
            {
                "metadata": {"name": name, "labels": {"model.aibrix.ai/name": model.name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [f"127.200.{number // 250}.{number % 250 + 1}"]}],
                "ports": [{"name": "http", "protocol": "TCP", "port": 8000}],
            }
        )

    def known() -> float:
        return gateway.metric("gateway_endpoints", model=model.name)

    wait_for(lambda: known() == 502, "all pages are one snapshot")
    good, expired = polls(gateway, "ok"), polls(gateway, "expired")

    town.cluster.api.fault("expire-mid-pages", times=1)
    wait_for(lambda: polls(gateway, "ok") >= good + 2, "lists go on")
    assert polls(gateway, "expired") == expired  # it was begun again, which is no failure

    town.cluster.api.fault("expire-mid-pages")
    wait_for(lambda: polls(gateway, "expired") > expired, "at last it is one")
    assert known() == 502
    town.cluster.api.heal()
    for name in names:
        town.cluster.delete_slice(name)
    wait_for(lambda: known() == 1, "what was deleted is gone")


@pytest.mark.fault(5)
@pytest.mark.parametrize("told", ["event", "http"])
def test_a_watch_from_a_forgotten_version_is_followed_by_a_list(
    town: Place, model: Model, told: str
) -> None:
    before = watches(town.gateway, "expired")
    town.cluster.api.expired_watch = told  # type: ignore[assignment]
    town.cluster.api.fault("410", on="watch")
    wait_for(lambda: watches(town.gateway, "expired") >= before + 2, "watches expire")
    wait_for_new_pod(town.gateway, model, patience=5 * POLL_SECONDS)


@pytest.mark.parametrize(
    ("fault", "result"),
    [
        ("401", "unauthorized"),
        ("429", "throttled"),
        ("500", "server_error"),
        ("garbage", "garbage"),
        ("truncated", "unreachable"),
        ("hang", "timeout"),
    ],
)
def test_without_a_working_watch_the_lists_still_tell_every_change(
    town: Place, model: Model, fault: str, result: str
) -> None:
    before = watches(town.gateway, result)
    town.cluster.api.fault(fault, on="watch")
    wait_for(lambda: watches(town.gateway, result) > before, "the failed watch is counted")
    # A watch that is never answered may take its time: whole seconds, and half of one.
    wait_for_new_pod(town.gateway, model, patience=5 * POLL_SECONDS + 1.5)
    assert town.gateway.get("/healthz").json()["last_poll_error"] is None


def test_a_server_that_breaks_every_watch_is_not_asked_without_a_pause(
    town: Place, model: Model
) -> None:
    api = town.cluster.api
    api.fault("truncated", on="watch")
    before = watches(town.gateway, "unreachable")
    wait_for(lambda: watches(town.gateway, "unreachable") > before, "a watch breaks")
    asked, started = len(api.requests), time.monotonic()
    wait_for(lambda: polls(town.gateway, "ok") and time.monotonic() > started + 2, "time passes")
    # A list and a watch each interval, and some leeway.
    assert len(api.requests) - asked <= 2 * (2 / POLL_SECONDS) + 6


@pytest.mark.fault(5)
def test_an_endpoint_deleted_while_the_watch_was_down_is_gone_after_it(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    model = cluster.model("llama", pods=2)
    gateway = start_gateway(poll_seconds="2").ready()
    wait_for(lambda: cluster.api.open_watches, "the watch is open")
    gone, stays = model.pods

    cluster.api.fault("500", on="all", times=1)  # the list that follows fails once
    cluster.api.fault("break-watch")
    gone.remove()

    wait_for(lambda: gateway.endpoints() == {stays.name: "ready"}, "the deletion is known", 5.0)


@pytest.mark.fault(4)
def test_without_the_right_to_watch_it_polls_and_says_so_once(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.api.forbid("watch")
    model = cluster.model("llama")
    gateway = start_gateway(poll_seconds="0.2").ready()

    wait_for(lambda: polls(gateway, "ok") >= 5, "polls go on")
    wait_for_new_pod(gateway, model, patience=1.0)

    warnings = [line for line in gateway.log_lines() if line["level"] == "warning"]
    assert ["can't be watched" in line["message"] for line in warnings] == [True]
    assert watches(gateway, "forbidden") == 1
    assert [seen.verb for seen in cluster.api.requests].count("watch") == 1


@pytest.mark.fault(2)
def test_a_frozen_watch_hides_a_change_for_hardly_longer_than_a_poll(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    model = cluster.model("llama")
    gateway = start_gateway(poll_seconds="1").ready()
    wait_for(lambda: cluster.api.open_watches, "the watch is open")
    cluster.api.fault("freeze-watch")
    wait_for_new_pod(gateway, model, patience=1.0 + 1.0)


@pytest.mark.fault(3, 8)
def test_a_rotated_token_is_read_again_as_soon_as_the_old_one_is_refused(
    cluster: Cluster, start_gateway: GatewayFactory, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    config = cluster.kubeconfig(tmp_path / "rotating", token_file=token_file)
    model = cluster.model("llama")
    gateway = start_gateway(watch="false", KUBECONFIG=str(config)).ready()
    assert model.pods[0].name in gateway.endpoints()

    cluster.api.tokens = {"the-next-one"}
    token_file.write_text("the-next-one")

    wait_for(lambda: polls(gateway, "unauthorized"), "the old token is refused")
    wait_for(lambda: gateway.get("/healthz").json()["last_poll_error"] is None, "it works again")
    refused = [seen for seen in cluster.api.requests if seen.token == "simulator-token"][-1]
    accepted = next(seen for seen in cluster.api.requests if seen.token == "the-next-one")
    assert accepted.at - refused.at < 0.9  # at once: the next poll is a second or two away
    assert polls(gateway, "unauthorized") == 1
    assert "the-next-one" not in gateway.logs()
