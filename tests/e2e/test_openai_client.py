"""The official Python client, as people use it."""

import threading
from collections.abc import Iterator

import pytest
from openai import APIError, AuthenticationError, BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.harness import GatewayProcess, wait_for

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="any") as running:
        yield running


@pytest.fixture
def pods(cluster: Cluster, gateway: GatewayProcess) -> list[str]:
    """The names of two pods that are ready and known to be."""
    names = sorted(pod.name for pod in cluster.model("llama", pods=2).pods)
    wait_for(lambda: gateway.endpoints() == dict.fromkeys(names, "ready"), "the pods are known")
    return names


def test_it_chats(client: OpenAI, pods: list[str]) -> None:
    answer = client.chat.completions.create(model="llama", messages=HELLO, max_tokens=5)
    assert answer.choices[0].message.content == "tok " * 5
    assert answer.system_fingerprint in pods


def test_it_streams(client: OpenAI, pods: list[str]) -> None:
    stream = client.chat.completions.create(
        model="llama",
        messages=HELLO,
        max_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "tok " * 20
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 20


def test_it_lists_models_and_embeds(client: OpenAI, pods: list[str]) -> None:
    assert [model.id for model in client.models.list()] == ["llama"]
    assert client.models.retrieve("llama").to_dict()["ready_endpoints"] == 2
    assert len(client.embeddings.create(model="llama", input="Hello").data) == 1


def test_it_rides_out_a_gap_of_one_and_a_half_seconds(
    cluster: Cluster, client: OpenAI, gateway: GatewayProcess
) -> None:
    pod = cluster.model("llama", pods=1, ready=False).pods[0]
    wait_for(lambda: gateway.endpoints() == {pod.name: "not_ready"}, "the pod is known")
    back = threading.Timer(1.5, pod.become_ready)
    back.start()

    answer = client.chat.completions.create(model="llama", messages=HELLO)

    back.join()
    assert answer.system_fingerprint == pod.name
    assert gateway.metric("gateway_errors_total", code="no_ready_endpoints") == 2


def test_it_raises_our_code_when_a_pod_dies_in_mid_stream(
    cluster: Cluster, client: OpenAI, gateway: GatewayProcess
) -> None:
    pod = cluster.model("llama", engine=Engine(tokens=1000, token_seconds=0.02)).pods[0]
    wait_for(lambda: gateway.endpoints() == {pod.name: "ready"}, "the pod is known")
    stream = client.chat.completions.create(model="llama", messages=HELLO, stream=True)
    next(iter(stream))
    pod.crash()

    with pytest.raises(APIError) as raised:
        list(stream)

    assert raised.value.code == "upstream_died"
    assert gateway.metric("gateway_errors_total", code="upstream_died") == 1
    assert gateway.metric("gateway_upstream_failures_total", kind="died") == 1


def test_it_names_a_mistake_at_once(client: OpenAI, pods: list[str]) -> None:
    with pytest.raises(NotFoundError) as unknown:
        client.chat.completions.create(model="nothing", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    assert unknown.value.param == "model"
    with pytest.raises(BadRequestError) as strategy:
        client.chat.completions.create(
            model="llama",
            messages=HELLO,
            extra_headers={"routing-strategy": "best"},
        )
    assert strategy.value.code == "unknown_strategy"
    assert (
        "least-request, power-of-two, prefix-cache, random, round-robin" in strategy.value.message
    )


@pytest.mark.fault(29)
def test_a_wrong_key_is_an_authentication_error(
    cluster: Cluster, start_gateway: GatewayFactory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("right\n")
    cluster.model("llama")
    gateway = start_gateway(api_keys_file=str(keys)).ready()
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key="wrong") as client,
        pytest.raises(AuthenticationError) as refused,
    ):
        client.models.list()
    assert refused.value.code == "invalid_api_key"
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="right") as client:
        assert [model.id for model in client.models.list()] == ["llama"]
