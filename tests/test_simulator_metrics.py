"""What model pods tell of their load, as the gateway understands it."""

import http.client

import pytest

from load.engines import Reading, read
from simulator.cluster import Cluster
from simulator.pod import ModelPod
from tests.kube_reader import get
from tests.podclient import MakePod, ask, begin, eventually


def told(pod: ModelPod) -> Reading:
    """What the gateway understands of the pod's metrics."""
    status, _, body = ask(pod, "/metrics", "GET")
    assert status == 200
    return read(body.decode())


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_requests_that_run_and_tokens_are_told_truly(make_pod: MakePod, dialect: str) -> None:
    pod = make_pod(token_seconds=0.01, metrics=dialect)
    ask(pod, model="chat", max_tokens=5)
    assert told(pod).tokens == 4 + 5, "of the prompt, and made"
    with begin(pod, max_tokens=100_000):
        assert told(pod).running == 1, "and the question itself does not count"
        eventually(lambda: (told(pod).tokens or 0) > 4 + 5 + 4 + 10)
    eventually(lambda: told(pod).running == 0)


def test_running_requests_can_be_pretended(pod: ModelPod) -> None:
    pod.report_load(running=7, waiting=2, cache_usage=0.25)
    found = told(pod)
    assert (found.running, found.waiting, found.kv_usage) == (7, 2, 0.25)
    pod.report_load()
    assert (told(pod).running, told(pod).waiting) == (0, 0)


def test_an_engine_may_have_no_metrics(make_pod: MakePod) -> None:
    assert ask(make_pod(metrics="none"), "/metrics", "GET")[0] == 404


def test_metrics_do_not_wait_for_the_engine(make_pod: MakePod) -> None:
    pod = make_pod(first_token_seconds=60.0)
    assert told(pod).running == 0  # the client would give up after seconds


def test_a_metrics_port_serves_metrics_and_nothing_else_does() -> None:
    with Cluster() as cluster:
        (pod,) = cluster.model("chat", port=8000, metrics_port=9000).pods
        (item,) = get(cluster.api).json["items"]
        assert item["metadata"]["labels"]["model.aibrix.ai/metric-port"] == "9000"
        assert [port["port"] for port in item["ports"]] == [8000]
        assert status(pod.address, 9000, "/metrics") == 200
        assert status(pod.address, 8000, "/metrics") == 404
        assert status(pod.address, 9000, "/v1/models") == 404
        assert status(pod.address, 8000, "/v1/models") == 200
        pod.crash()
        for port in (8000, 9000):
            with pytest.raises(ConnectionRefusedError):
                status(pod.address, port, "/metrics")


def status(address: str, port: int, path: str) -> int:
    connection = http.client.HTTPConnection(address, port, timeout=3)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
