"""What is no inference path never reaches a pod, however it is spelled."""

from collections.abc import Iterator

import pytest

from tests.e2e.place import Place, place, seen_by
from tests.wire import CHAT, head_of, post


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("private")) as here:
        here.deploy("llama")
        yield here


PRIVATE = [
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v1/%6coad_lora_adapter",
    "/v1/chat/completions/../../load_lora_adapter",
    "/v1/chat/../load_lora_adapter",
    "/v1/chat/completions/%2e%2e/load_lora_adapter",
    "/v1/chat/completions/..%2fload_lora_adapter",
    "/v1/chat%2Fcompletions",
    "/v1/chat/%63ompletions",
    "/v1/chat/completions%3Fx=1",
    "/v1/chat/completions%00",
    "/v1/chat/completions#x",
    "/v1/chat/completions;x",
    "/v1/chat/completions/",
    "/v1/chat//completions",
    "//v1/chat/completions",
    "/./v1/chat/completions",
    "/V1/chat/completions",
    "/v1/chat/completions\\..\\x",
    "http://gateway.test/v1/load_lora_adapter",
    "http://gateway.test//v1/chat/completions",
    "http://gateway.test/v1/chat%2fcompletions",
    "http:/v1/chat/completions",
    "x:/v1/chat/completions",
    "/health",
    "/",
    "*",
]


@pytest.mark.fault(28)
@pytest.mark.parametrize("target", PRIVATE)
def test_no_other_spelling_and_no_other_path_reaches_a_pod(here: Place, target: str) -> None:
    pods = here.cluster.models["llama"].pods
    before = len(seen_by(*pods))
    answer = here.exchange(post(target=target))
    assert answer.status in (400, 404, 405)
    assert answer.value("x-gateway-error") in (
        "bad_request",
        "unknown_path",
        "method_not_allowed",  # "/" leads to the status page
    )
    assert len(seen_by(*pods)) == before


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    "header",
    ["Host: 127.0.0.1:9", "X-Forwarded-Host: other", "X-Original-URL: /v1/load_lora_adapter",
     "X-Rewrite-URL: /x", "X-HTTP-Method-Override: GET", "target-pod: other", "Script-Name: /v1",
     "Destination: http://other/"],
)  # fmt: skip
def test_no_field_moves_the_target(here: Place, header: str) -> None:
    answer = here.exchange(post(None, header))
    assert answer.status == 200
    last = seen_by(*here.cluster.models["llama"].pods)[-1]
    assert head_of(last.raw)[0] == f"POST {CHAT} HTTP/1.1"
