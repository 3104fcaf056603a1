"""Under TLS, which the loop can't read, each connection has a thread; the answers are the same."""

import http.client
import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.place import Place, environment_of
from tests.harness import GatewayProcess, gateway_process, wait_for
from tests.wire import CHAT, chat_body

CERTIFICATE = Path(__file__).parent.parent / "data" / "tls" / "test-only.pem"


class SecureClient:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=20, context=context
        )

    def get(self, path: str) -> http.client.HTTPResponse:
        self._connection.request("GET", path)
        return self._connection.getresponse()

    def chat(self, model: str, **fields: object) -> http.client.HTTPResponse:
        self._connection.request(
            "POST", CHAT, chat_body(model, **fields), {"Content-Type": "application/json"}
        )
        return self._connection.getresponse()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    tls = ("--certfile", str(CERTIFICATE), "--keyfile", str(CERTIFICATE))
    with (
        Cluster() as cluster,
        gateway_process(tmp_path, *tls, **environment_of(cluster, tmp_path)) as gateway,
    ):
        cluster.model("llama", pods=1)
        gateway.listening()
        wait_for(lambda: knows(gateway, "llama"), "the pod is known")
        yield Place(cluster, gateway)


def knows(gateway: GatewayProcess, model: str) -> bool:
    client = SecureClient(gateway.port)
    try:
        models = json.load(client.get("/status.json"))["models"]
    finally:
        client.close()
    return any(
        endpoint["state"] == "ready"
        for entry in models
        if entry["model"] == model
        for endpoint in entry["endpoints"]
    )


@pytest.fixture
def client(here: Place) -> Iterator[SecureClient]:
    client = SecureClient(here.gateway.port)
    yield client
    client.close()


def test_answers_probes_and_errors_share_a_connection(client: SecureClient) -> None:
    for _ in range(3):
        answer = client.chat("llama")
        assert answer.status == 200
        assert json.load(answer)["choices"]
        assert answer.headers["target-pod"]
    assert json.load(client.get("/healthz"))
    refused = client.chat("nobody")
    assert (refused.status, refused.headers["x-gateway-error"]) == (404, "model_not_found")
    refused.read()
    stream = client.chat("llama", stream=True)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.read().endswith(b"data: [DONE]\n\n")
    assert client.get("/livez").status == 200


def test_a_stream_whose_pod_dies_ends_visibly(here: Place) -> None:
    here.cluster.model("fragile", pods=1, engine=Engine(tokens=100, token_seconds=0.05))
    wait_for(lambda: knows(here.gateway, "fragile"), "the pod is known")
    client = SecureClient(here.gateway.port)
    stream = client.chat("fragile", stream=True)
    assert stream.readline().startswith(b"data: ")
    here.cluster.models["fragile"].pods[0].crash()
    with pytest.raises(http.client.IncompleteRead) as broken:
        stream.read()
    assert b'"code": "upstream_died"' in broken.value.partial
    client.close()


def test_a_stream_runs_on_while_the_gateway_stops(here: Place) -> None:
    here.cluster.model("slow", pods=1, engine=Engine(tokens=30, token_seconds=0.05))
    wait_for(lambda: knows(here.gateway, "slow"), "the pod is known")
    client = SecureClient(here.gateway.port)
    stream = client.chat("slow", stream=True)
    assert stream.readline().startswith(b"data: ")
    here.gateway.process.send_signal(signal.SIGTERM)
    assert stream.read().endswith(b"data: [DONE]\n\n")
    client.close()
    assert here.gateway.stop() == 0
