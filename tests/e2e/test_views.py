"""What people, clients and Prometheus are shown: models, status, metrics and logs."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from simulator.pod import Engine
from tests.e2e.place import Place, place, process_of
from tests.harness import wait_for
from tests.wire import Wire, exchange, post

SECRETS = ("sk-secret-key", "what-the-user-said", "in-the-query", "folded-secret")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("views")
    keys = directory / "keys"
    keys.write_text("sk-secret-key\nsk-another\n")
    with place(directory, api_keys_file=str(keys), scrape_seconds="0") as running:
        running.deploy("org/llama", pods=2, engine=Engine(tokens=2))
        loading = running.deploy("loading", pods=1, ready=False)
        loading.add_pod(ready=False)
        wait_for(lambda: len(running.gateway.endpoints("loading")) == 2, "all pods are known")
        yield running


KEY = {"Authorization": "Bearer sk-secret-key"}


def get(town: Place, path: str, **headers: str) -> Any:
    return town.gateway.get(path, headers={**KEY, **headers})


def test_models_are_listed_as_openai_does_with_their_ready_endpoints(town: Place) -> None:
    answer = get(town, "/v1/models")
    document = answer.json()
    assert answer.headers["Content-Type"] == "application/json"
    assert document["object"] == "list"
    by_name = {item["id"]: item for item in document["data"]}
    assert by_name["org/llama"]["ready_endpoints"] == 2
    assert by_name["loading"]["ready_endpoints"] == 0
    for item in document["data"]:
        assert item["object"] == "model"
        assert isinstance(item["created"], int)
        assert isinstance(item["owned_by"], str)
    assert get(town, "/v1/models/").json() == document


@pytest.mark.parametrize(
    "path", ["/v1/models/org/llama", "/v1/models/org/llama/", "/v1/models/org%2Fllama"]
)
def test_a_model_is_found_by_its_name(town: Place, path: str) -> None:
    answer = get(town, path)
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["ready_endpoints"]) == ("org/llama", 2)


def test_a_model_without_a_ready_endpoint_is_known_all_the_same(town: Place) -> None:
    assert get(town, "/v1/models/loading").json()["ready_endpoints"] == 0


@pytest.mark.parametrize("name", ["unknown", "org", "llama", "x" * 5000, "%00", "%F0%9F%A6%99"])
def test_an_unknown_model_is_not_found(town: Place, name: str) -> None:
    answer = get(town, f"/v1/models/{name}")
    assert answer.status_code == 404
    assert answer.headers["x-gateway-error"] == "model_not_found"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["param"] == "model"
    assert len(answer.content) < 1000


@pytest.mark.fault(29)
def test_models_are_shown_to_those_with_a_key_only(town: Place) -> None:
    for path in ("/v1/models", "/v1/models/org/llama"):
        answer = town.gateway.get(path)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/healthz", "/livez", "/metrics", "/status", "/status.json"):
        assert town.gateway.get(path).status_code == 200


def test_the_status_shows_every_endpoint_with_its_state(town: Place) -> None:
    document = town.gateway.status()
    assert document["ready"] is True
    assert document["reason"] is None
    assert document["last_poll_error"] is None
    assert re.fullmatch(r"\d+\.\d+\.\d+", document["version"])
    assert document["snapshot_age_seconds"] < 60
    by_name = {entry["model"]: entry for entry in document["models"]}
    assert by_name["loading"]["states"]["not_ready"] == 2
    pods = {pod.name: pod for pod in town.cluster.models["org-llama"].pods}
    endpoints = by_name["org/llama"]["endpoints"]
    assert {endpoint["pod"] for endpoint in endpoints} == set(pods)
    for endpoint in endpoints:
        assert endpoint["address"] == f"{pods[endpoint['pod']].address}:8000"
        assert endpoint["state"] == "ready"
        assert endpoint["in_flight"] == 0
        assert (endpoint["ready"], endpoint["serving"], endpoint["terminating"]) == (1, 1, 0)
        assert endpoint["zone"] in ("zone-a", "zone-b")


def test_requests_in_flight_are_shown_at_their_endpoint(town: Place) -> None:
    model = town.deploy("streaming", engine=Engine(tokens=10_000, token_seconds=0.05))
    stream = town.gateway.chat("streaming", stream=True, headers=KEY)
    wait_for(lambda: process_of(model.pods[0]).active, "it runs")
    assert town.gateway.in_flight() == 1
    stream.close()
    town.wait_until_idle()


def label_sets(text: str) -> set[str]:
    """The samples there are, without their values."""
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


@pytest.mark.fault(23)
def test_a_thousand_invented_names_do_not_grow_the_metrics(town: Place) -> None:
    gateway = town.gateway

    def ask(number: int) -> int:
        method = b"POST" if number % 3 else f"METHOD{number}".encode()
        model = f"invented-{number}" if number % 2 else "org/llama"
        request = post(
            json.dumps({"model": model}).encode(),
            f"routing-strategy: strategy-{number}" if model == "org/llama" else "X-A: b",
            f"Authorization: {KEY['Authorization']}",
            target=f"/v1/chat/completions?{number}",
        )
        return exchange(gateway.port, method + request.removeprefix(b"POST")).status

    assert {ask(number) for number in range(6)} == {400, 404, 405}
    exchange(gateway.port, post(b"", target="/made/up"))
    before = label_sets(gateway.get("/metrics").text)

    assert {ask(number) for number in range(6, 1006)} == {400, 404, 405}
    for number in range(50):
        exchange(gateway.port, post(b"", target=f"/made/up/{number}"))
        get(town, f"/v1/models/invented-{number}")

    text = gateway.get("/metrics").text
    assert label_sets(text) == before
    assert "invented" not in text
    assert gateway.metric("gateway_requests_total", model="unknown", status="404") >= 300


def test_the_metrics_that_are_promised_are_there_and_well_formed(town: Place) -> None:
    town.gateway.chat("org/llama", headers=KEY)
    answer = town.gateway.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    names = {line.partition("{")[0].split()[0] for line in label_sets(answer.text)}
    assert names >= {
        "gateway_requests_total",
        "gateway_request_seconds_bucket",
        "gateway_first_byte_seconds_bucket",
        "gateway_in_flight",
        "gateway_endpoints",
        "gateway_polls_total",
        "gateway_snapshot_age_seconds",
        "gateway_stream_bytes_total",
    }
    sample = re.compile(r'\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? (\S+)')
    for line in answer.text.splitlines():
        assert line.startswith("# ") or sample.fullmatch(line), line


@pytest.mark.fault(29)
def test_there_is_one_json_line_for_each_request_and_it_tells_no_secret(town: Place) -> None:
    gateway = town.gateway
    requests = {
        "id-good": post(
            b'{"model":"org/llama","messages":[{"role":"user","content":"what-the-user-said"}]}',
            "x-request-id: id-good",
            "Authorization: Bearer sk-secret-key",
            target="/v1/chat/completions?token=in-the-query",
        ),
        "id-bad": post(
            b'{"model": what-the-user-said',
            "x-request-id: id-bad",
            "Authorization: Bearer sk-secret-key",
            target="/v1/chat/completions?token=in-the-query",
        ),
        "id-path": post(b"", "x-request-id: id-path", target="/nowhere?token=in-the-query"),
        "id-key": post(b"", "x-request-id: id-key", "Authorization: Bearer folded-secret"),
    }
    for request in requests.values():
        exchange(gateway.port, request)

    def lines(an_id: str) -> list[dict[str, Any]]:
        return [line for line in gateway.log_lines() if line.get("request_id") == an_id]

    statuses = {"id-good": 200, "id-bad": 400, "id-path": 404, "id-key": 401}
    for an_id, status in statuses.items():
        wait_for(lambda an_id=an_id: lines(an_id), "it is logged")  # type: ignore[misc]
        (line,) = lines(an_id)
        assert line["status"] == status
        assert line["method"] == "POST"
        assert "?" not in line["path"]
        assert line["seconds"] >= 0
    assert lines("id-good")[0]["pod"].startswith("org-llama-")
    assert not [secret for secret in SECRETS if secret in gateway.logs()]


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /v1/models?token=in-the-query HTTP/9\r\n\r\n", 400),
        (b"GET  /v1/models?token=in-the-query\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nAuthorization : Bearer sk-secret-key\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: a\r\n Authorization: folded-secret\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nAuthorization sk-secret-key\r\n\r\n", 400),
        (b"GET /?in-the-query" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"X: sk-secret-key\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nExpect: sk-secret-key\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: sk-secret-key\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03sk-secret-key\r\n\r\n", 400),
    ],
)
def test_what_is_no_http_is_refused_without_being_repeated(
    town: Place, request_bytes: bytes, status: int
) -> None:
    before = town.gateway.metric("gateway_errors_total", code="bad_request")
    with Wire(town.gateway.port) as client:
        answer = client.send(request_bytes).read_to_the_end()
    assert answer.status == status
    assert not answer.reset
    assert answer.value("x-gateway-error") == "bad_request"
    assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"
    assert town.gateway.metric("gateway_errors_total", code="bad_request") == before + 1
    for text in (answer.raw.decode(), town.gateway.logs()):
        assert not [secret for secret in SECRETS if secret in text]


def test_every_log_line_is_json(town: Place) -> None:
    lines = town.gateway.log_lines()
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
