"""Errors that depend on the gateway's own state: what it knows, its places, its keys, its bugs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.expect import API, OVERLOADED, Expected, check_error, counted_once
from tests.e2e.place import Place, environment_of, place, process_of, seen_by
from tests.harness import GatewayProcess, gateway_process, wait_for
from tests.wire import Wire, chat_body, exchange, post, values

KEY = "Authorization: Bearer sesame"
NO_KEY = Expected(401, "invalid_api_key", "authentication_error", says="Authorization: Bearer")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway with two places, which checks keys."""
    directory = tmp_path_factory.mktemp("small")
    keys = directory / "keys"
    keys.write_text("sesame\nother\n")
    with place(directory, threads="2", api_keys_file=str(keys)) as small:
        small.deploy("llama", engine=Engine(tokens=1000, token_seconds=0.02))
        yield small


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Authorization: Bearer wrong",),
        ("Authorization: Bearer",),
        ("Authorization: Basic sesame",),
        ("Authorization: sesame",),
        ("x-api-key: sesame",),
        ("Authorization: Bearer sesame, Bearer other",),
    ],
)
def test_without_a_valid_key_nothing_is_answered(small: Place, headers: tuple[str, ...]) -> None:
    seen_before = len(seen_by(*small.cluster.models["llama"].pods))
    with counted_once(small.gateway, "invalid_api_key"):
        answer = small.exchange(post(None, *headers))
    check_error(answer, NO_KEY)
    assert answer.value("www-authenticate") == "Bearer"
    assert len(seen_by(*small.cluster.models["llama"].pods)) == seen_before


@pytest.mark.fault(29)
def test_a_key_of_the_gateway_is_not_shown_to_endpoints(small: Place) -> None:
    pod = small.cluster.models["llama"].pods[0]
    assert small.exchange(post(chat_body(max_tokens=1), KEY, "x-passes: yes")).status == 200
    raw = seen_by(pod)[-1].raw
    assert values(raw, "x-passes") == ["yes"]
    assert b"sesame" not in raw


@pytest.mark.fault(29)
def test_the_models_are_for_holders_of_a_key_only(small: Place) -> None:
    for path in ("/v1/models", "/v1/models/llama"):
        check_error(small.exchange(post(b"", target=path, method="GET")), NO_KEY)
        assert small.exchange(post(b"", KEY, target=path, method="GET")).status == 200


def test_a_request_beyond_the_last_place_is_told_so_at_once(small: Place) -> None:
    model = small.cluster.models["llama"]
    with Wire(small.gateway.port) as one, Wire(small.gateway.port) as other:
        for client in (one, other):
            client.send(post(None, KEY, "x-sim-behaviour: stall-before-head"))
        wait_for(lambda: small.gateway.in_flight() == 2, "both wait for their pod")
        with counted_once(small.gateway, "gateway_overloaded"):
            refused = small.exchange(post(None, KEY))
        healthy = small.gateway.get("/healthz").status_code
    check_error(
        refused, Expected(503, "gateway_overloaded", OVERLOADED, says="2 requests"), retry_after=1
    )
    assert healthy == 200
    wait_for(lambda: process_of(model.pods[0]).active == 0, "the clients' leaving is noticed")
    small.wait_until_idle()
    assert small.exchange(post(chat_body(max_tokens=1), KEY)).status == 200


@pytest.mark.fault(1)
def test_what_is_not_known_yet_or_any_more_is_no_404(tmp_path: Path) -> None:
    with Cluster() as cluster:
        cluster.model("llama")
        cluster.api.fault("500")
        environment = environment_of(cluster, tmp_path, cache_ttl="1", poll_seconds="0.2")
        with gateway_process(tmp_path, **environment) as gateway:
            gateway.listening()
            check_unknown(gateway)
            cluster.api.heal()
            gateway.ready()
            assert exchange(gateway.port, post()).status == 200
            cluster.api.fault("500")
            check_stale(gateway)


def check_unknown(gateway: GatewayProcess) -> None:
    unknown = Expected(503, "endpoints_unknown", OVERLOADED, says="no list")
    for body in (chat_body(), chat_body("no-such")):
        with counted_once(gateway, "endpoints_unknown"):
            answer = exchange(gateway.port, post(body))
        check_error(answer, unknown, retry_after=1)
    models = exchange(gateway.port, post(b"", target="/v1/models", method="GET"))
    check_error(models, unknown, retry_after=1)


def check_stale(gateway: GatewayProcess) -> None:
    wait_for(lambda: gateway.get("/healthz").status_code == 503, "the last good list is too old")
    stale = Expected(503, "endpoints_stale", OVERLOADED, says="s old")
    for body in (chat_body(), chat_body("no-such")):
        with counted_once(gateway, "endpoints_stale"):
            answer = exchange(gateway.port, post(body))
        check_error(answer, stale, retry_after=1)


def test_a_bug_is_answered_counted_and_logged_and_spoils_nothing_else(tmp_path: Path) -> None:
    with Cluster() as cluster:
        cluster.model("llama", pods=2)
        environment = environment_of(cluster, tmp_path)
        gateway = GatewayProcess(tmp_path, environment, "tests.e2e.broken_app:make()").start()
        try:
            gateway.ready()
            with counted_once(gateway, "internal_error"):
                answer = exchange(gateway.port, post(None, "routing-strategy: power-of-two"))
            assert exchange(gateway.port, post()).status == 200
            assert gateway.in_flight() == 0
        finally:
            assert gateway.stop() == 0
    check_error(answer, Expected(500, "internal_error", API))
    assert b"a bug" not in answer.raw, "what failed is for the log, not for clients"
    told = [line for line in gateway.log_lines() if "ZeroDivisionError" in str(line)]
    assert len(told) == 1
    assert answer.value("x-request-id") in told[0]["message"]
