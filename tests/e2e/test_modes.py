"""Settings that change what is discovered and which endpoints may be used."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.harness import GatewayProcess, wait_for


def code_of(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.headers.get("x-gateway-error")


def post_raw(gateway: GatewayProcess, body: bytes, content_type: str) -> Any:
    return gateway.post_bytes("/v1/chat/completions", body, {"Content-Type": content_type})


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"messages": []}', "application/json"),
        (b'{"model": "whatever", "messages": []}', "application/json"),
        (b"not JSON at all", "text/plain"),
        (b"", "application/octet-stream"),
        (b"\xff\x00\xfe", "application/json"),
    ],
)
def test_in_single_service_mode_every_request_goes_to_the_service(
    cluster: Cluster, start_gateway: GatewayFactory, body: bytes, content_type: str
) -> None:
    model = cluster.model("llama", service="engine", label=False)
    cluster.model("mistral")
    gateway = start_gateway(service="engine").ready()

    post_raw(gateway, body, content_type)

    process = model.pods[0].process
    assert process is not None
    (seen,) = process.requests
    assert seen.raw.endswith(b"\r\n\r\n" + body)


def test_in_single_service_mode_the_service_is_the_only_model(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama", service="engine", label=False)
    cluster.model("mistral")
    gateway = start_gateway(service="engine").ready()

    assert gateway.chat("whatever").status_code == 200

    assert [item["id"] for item in gateway.get("/v1/models").json()["data"]] == ["engine"]
    assert gateway.get("/v1/models/engine").json()["ready_endpoints"] == 1
    assert gateway.get("/v1/models/mistral").status_code == 404
    assert gateway.metric("gateway_requests_total", model="engine", status="200") == 1
    assert gateway.metric("gateway_endpoints", model="engine", state="ready") == 1


def test_a_service_that_does_not_exist_is_unavailable_and_not_unknown(
    start_gateway: GatewayFactory,
) -> None:
    gateway = start_gateway(service="engine").ready()
    assert code_of(gateway.chat()) == (503, "no_ready_endpoints")
    assert gateway.get("/v1/models/engine").json()["ready_endpoints"] == 0


def test_only_slices_that_the_selector_matches_are_known(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama")
    cluster.model("mistral")
    gateway = start_gateway(selector="model.aibrix.ai/name in (llama,qwen)").ready()
    assert gateway.chat("llama").status_code == 200
    assert code_of(gateway.chat("mistral")) == (404, "model_not_found")


def test_slices_that_no_longer_match_the_selector_are_forgotten(
    cluster: Cluster, gateway: GatewayProcess
) -> None:
    model = cluster.model("llama")
    wait_for(lambda: gateway.chat("llama").status_code == 200, "the model is known")
    model.relabel("qwen")
    wait_for(lambda: gateway.chat("qwen").status_code == 200, "the new name is known")
    assert code_of(gateway.chat("llama")) == (404, "model_not_found")
    model.relabel(None)
    wait_for(lambda: gateway.chat("qwen").status_code == 404, "it is no model any more")


def test_a_port_is_chosen_by_its_name(cluster: Cluster, start_gateway: GatewayFactory) -> None:
    # The label names the port 8000 as well, on which the pods listen, so that one must lose.
    cluster.model("llama", port_name="inference", extra_ports={"metrics": 9})
    right = start_gateway(port_name="inference").ready()
    wrong = start_gateway(port_name="metrics", retries="0").ready()
    assert right.chat().status_code == 200
    assert code_of(wrong.chat()) == (503, "upstream_unreachable")


def test_a_pod_that_never_passed_its_probe_is_used_only_if_serving_is_not_required(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    # With publishNotReadyAddresses only `serving` tells that the pod is not ready.
    model = cluster.model("llama", publish_not_ready=True)
    model.pods[0].fail_probe()
    careful = start_gateway().ready()
    trusting = start_gateway(require_serving="false").ready()
    assert code_of(careful.chat()) == (503, "no_ready_endpoints")
    assert trusting.chat().status_code == 200


def test_terminating_pods_serve_when_nothing_else_is_left_and_that_is_wanted(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    engine = Engine(refuses_when_terminating=False)
    model = cluster.model("llama", engine=engine)
    strict = start_gateway().ready()
    lenient = start_gateway(terminating_fallback="true").ready()
    leaving = model.pods[0]
    leaving.terminate()
    terminating = {leaving.name: "terminating"}
    wait_for(lambda: strict.endpoints() == terminating, "one sees it")
    wait_for(lambda: lenient.endpoints() == terminating, "so does the other")

    assert code_of(strict.chat()) == (503, "no_ready_endpoints")
    assert lenient.chat().headers["target-pod"] == leaving.name

    ready = model.add_pod()
    wait_for(lambda: lenient.endpoints().get(ready.name) == "ready", "there is a better one")
    assert {lenient.chat().headers["target-pod"] for _ in range(5)} == {ready.name}


def test_a_terminating_pod_that_fails_its_probe_is_no_fallback(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    model = cluster.model("llama", engine=Engine(refuses_when_terminating=False))
    gateway = start_gateway(terminating_fallback="true").ready()
    pod = model.pods[0]
    pod.terminate()
    pod.fail_probe()
    wait_for(lambda: code_of(gateway.chat()) == (503, "no_ready_endpoints"), "it is not used")


def slice_list(cluster: Cluster, *pods: int) -> dict[str, Any]:
    """What `kubectl get endpointslices -o json` prints of some pods of the model `llama`."""
    chosen = [cluster.models["llama"].pods[number] for number in pods]
    item = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "llama-a", "labels": {"model.aibrix.ai/name": "llama"}},
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [pod.address],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": pod.name},
            }
            for pod in chosen
        ],
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
    }
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [item]}


@pytest.mark.parametrize("form", [json.dumps, yaml.safe_dump])
def test_a_file_is_read_again_when_it_changes_and_a_broken_one_is_not_believed(
    cluster: Cluster, start_gateway: GatewayFactory, tmp_path: Path, form: Any
) -> None:
    cluster.model("llama", pods=2)
    first, second = (pod.name for pod in cluster.models["llama"].pods)
    source = tmp_path / "slices"
    source.write_text(form(slice_list(cluster, 0)))
    gateway = start_gateway(
        source=f"file:{source}", poll_seconds="0.2", allow_loopback="false", KUBECONFIG=""
    ).ready()
    assert gateway.chat().headers["target-pod"] == first

    source.write_text(form(slice_list(cluster, 1)))
    wait_for(lambda: gateway.endpoints() == {second: "ready"}, "the change is read")
    assert gateway.chat().headers["target-pod"] == second

    source.write_text(form(slice_list(cluster, 0))[:-40] + "\n}{")
    failed = gateway.metric("gateway_polls_total", result="file")
    wait_for(
        lambda: gateway.metric("gateway_polls_total", result="file") > failed, "the file is broken"
    )
    assert gateway.endpoints() == {second: "ready"}
    assert gateway.chat().status_code == 200

    source.unlink()
    source.write_text(form({**slice_list(cluster), "items": []}))
    wait_for(lambda: gateway.chat().status_code == 404, "an empty list is believed")
    assert cluster.api.requests == []


def test_a_file_that_is_not_there_yet_is_waited_for(
    cluster: Cluster, start_gateway: GatewayFactory, tmp_path: Path
) -> None:
    cluster.model("llama")
    source = tmp_path / "later.json"
    gateway = start_gateway(source=f"file:{source}", KUBECONFIG="")
    assert code_of(gateway.chat()) == (503, "endpoints_unknown")
    source.write_text(json.dumps(slice_list(cluster, 0)))
    gateway.ready()
    assert gateway.chat().status_code == 200
