"""Every error the gateway makes: provoked for real, and told the same way."""

from collections.abc import Iterator

import pytest

from simulator.pod import Engine
from tests.e2e.expect import API, INVALID, OVERLOADED, Expected, check_error, counted_once
from tests.e2e.place import Place, place, process_of, seen_by
from tests.harness import wait_for
from tests.wire import Wire, behaving, chat_body, head_of, in_chunks, post

MAX_BODY = 1_000_000
AUDIO = "/v1/audio/transcriptions"
FORM = "Content-Type: multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Short limits, and models in every state."""
    with place(
        tmp_path_factory.mktemp("errors"),
        first_byte_timeout="1.5",
        max_body_bytes=str(MAX_BODY),
        retry_after="7",
    ) as here:
        here.deploy("llama", pods=2)
        here.deploy("loading", pods=2, ready=False)
        leaving = here.deploy("leaving", engine=Engine(refuses_when_terminating=False))
        leaving.pods[0].terminate(grace=600)
        here.wait_for_states("leaving", {leaving.pods[0].name: "terminating"})
        here.cluster.model("refusing", pods=2, processes=False)
        here.wait_for_states("refusing", {"refusing-0": "ready", "refusing-1": "ready"})
        yield here


RETRIABLE = {
    "pods that are loading": (
        post(chat_body("loading")),
        Expected(
            503,
            "no_ready_endpoints",
            OVERLOADED,
            says="model 'loading': 2 endpoints, 2 not ready",
        ),
    ),
    "a pod that is leaving": (
        post(chat_body("leaving"), "routing-strategy: random"),
        Expected(
            503, "no_ready_endpoints", OVERLOADED, says="model 'leaving': 1 endpoint, 1 terminating"
        ),
    ),
    "ports that are closed": (
        post(chat_body("refusing")),
        Expected(503, "upstream_unreachable", OVERLOADED, says="after 2 attempt(s)"),
    ),
}


@pytest.mark.fault(11)
@pytest.mark.parametrize("case", RETRIABLE)
def test_what_will_pass_is_told_to_be_retriable_and_when(here: Place, case: str) -> None:
    request, expected = RETRIABLE[case]
    with counted_once(here.gateway, expected.code):
        answer = here.exchange(request)
    check_error(answer, expected, retry_after=7)


def invalid(code: str, param: str | None = None, *, says: str = "", status: int = 400) -> Expected:
    return Expected(status, code, INVALID, param, says)


NOT_A_MODEL = invalid("missing_model", "model")
NOT_A_BODY = invalid("invalid_body")
MISTAKES = {
    "unknown model": (
        post(chat_body("no-such")),
        invalid("model_not_found", "model", says="'no-such'", status=404),
    ),
    "no model": (post(b"{}"), NOT_A_MODEL),
    "null as model": (post(b'{"model": null}'), NOT_A_MODEL),
    "empty model": (post(b'{"model": ""}'), NOT_A_MODEL),
    "number as model": (post(b'{"model": 7}'), NOT_A_MODEL),
    "object as model": (post(b'{"model": {"a": 1}}'), NOT_A_MODEL),
    "form without model": (post(b"--b--\r\n", FORM, target=AUDIO), NOT_A_MODEL),
    "no body": (post(b""), NOT_A_BODY),
    "list": (post(b"[]"), NOT_A_BODY),
    "string": (post(b'"llama"'), NOT_A_BODY),
    "half a document": (post(chat_body()[:-5]), NOT_A_BODY),
    "more than a document": (post(chat_body() + b"{}"), NOT_A_BODY),
    "NaN": (post(b'{"model": "llama", "temperature": NaN}'), NOT_A_BODY),
    "two models": (post(b'{"model": "llama", "model": "other"}'), NOT_A_BODY),
    "no UTF-8": (post(b'{"model": "llam\xe9"}'), NOT_A_BODY),
    "UTF-16": (post(chat_body().decode().encode("utf-16")), NOT_A_BODY),
    "deep nesting": (post(b'{"model": ' + b"[" * 100_000), NOT_A_BODY),
    "a form for chat": (post(b"--b--\r\n", FORM), NOT_A_BODY),
    "broken form": (post(b"no form at all", FORM, target=AUDIO), NOT_A_BODY),
    "form without boundary": (
        post(b"--b--\r\n", "Content-Type: multipart/form-data", target=AUDIO),
        NOT_A_BODY,
    ),
    "invalid chunk size": (post(b"zz\r\n{}\r\n", "Transfer-Encoding: chunked"), NOT_A_BODY),
    "invalid trailer": (
        post(in_chunks(chat_body(), end=False) + b"0\r\nbad\r\n\r\n", "Transfer-Encoding: chunked"),
        NOT_A_BODY,
    ),
    "unknown strategy": (
        post(None, "routing-strategy: fastest"),
        invalid(
            "unknown_strategy",
            "routing-strategy",
            says="'fastest'; known are: least-busy, least-kv-cache, ",
        ),
    ),
    "too large by length": (
        post(chat_body().ljust(MAX_BODY + 1)),
        invalid("body_too_large", says=str(MAX_BODY), status=413),
    ),
    "too large in chunks": (
        post(in_chunks(chat_body(), *[b" " * 1000] * 1000), "Transfer-Encoding: chunked"),
        invalid("body_too_large", says=str(MAX_BODY), status=413),
    ),
    "unknown path": (post(target="/v1/nothing"), invalid("unknown_path", status=404)),
    "wrong method": (
        post(b"", method="GET"),
        invalid("method_not_allowed", says="POST", status=405),
    ),
}


@pytest.mark.fault(20)
@pytest.mark.parametrize("case", MISTAKES)
def test_a_clients_mistake_is_named_and_not_to_be_repeated(here: Place, case: str) -> None:
    request, expected = MISTAKES[case]
    with counted_once(here.gateway, expected.code):
        answer = here.exchange(request)
    check_error(answer, expected)
    assert (answer.value("allow") == "POST") == (expected.status == 405)


@pytest.mark.fault(20)
def test_a_body_of_exactly_the_limit_is_taken(here: Place) -> None:
    body = chat_body().ljust(MAX_BODY)
    assert here.exchange(post(body)).status == 200
    in_pieces = post(in_chunks(body[:-1], body[-1:]), "Transfer-Encoding: chunked")
    assert here.exchange(in_pieces).status == 200


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    "how", ["garbage", "bare-lf", "obs-fold", "both-framings", "two-lengths", "many-headers",
            "huge-header"],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_not_http_is_a_502_and_not_repeated(
    here: Place, how: str, stream: bool
) -> None:
    pods = here.cluster.models["llama"].pods
    seen_before = len(seen_by(*pods))
    with counted_once(here.gateway, "upstream_protocol_error"):
        answer = here.exchange(behaving(how, stream=stream))
    check_error(answer, Expected(502, "upstream_protocol_error", API))
    assert len(seen_by(*pods)) == seen_before + 1


@pytest.mark.fault(12)
@pytest.mark.parametrize("how", ["reset-before-head", "close-before-head"])
def test_a_request_whose_endpoints_die_is_a_502(here: Place, how: str) -> None:
    pods = here.cluster.models["llama"].pods
    seen_before = len(seen_by(*pods))
    with counted_once(here.gateway, "upstream_reset"):
        answer = here.exchange(behaving(how))
    check_error(answer, Expected(502, "upstream_reset", API, says="may have run"))
    assert len(seen_by(*pods)) <= seen_before + 2, "one replay, which the budget may not have"


@pytest.mark.fault(14)
@pytest.mark.parametrize("how", ["stall-before-head=5", "slow-head=5"])
def test_an_endpoint_without_a_head_in_time_is_a_504(here: Place, how: str) -> None:
    processes = [process_of(pod) for pod in here.cluster.models["llama"].pods]
    left_before = sum(len(process.closed_early) for process in processes)
    with counted_once(here.gateway, "upstream_timeout"):
        answer = here.exchange(behaving(how))
    check_error(answer, Expected(504, "upstream_timeout", API, says="within the limit"))
    wait_for(
        lambda: sum(len(process.closed_early) for process in processes) > left_before,
        "the endpoint is told to stop",
    )


def test_the_errors_of_get_requests_have_the_same_form(here: Place) -> None:
    answer = here.exchange(post(b"", target="/v1/models/no-such", method="GET"))
    check_error(answer, invalid("model_not_found", "model", status=404))
    head = here.exchange(post(b"", target="/v1/nothing", method="HEAD"))
    assert (head.status, head.body) == (404, b"")
    assert head.value("x-gateway-error") == "unknown_path"


@pytest.mark.fault(16)
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_where_only_posts_are_forwarded_no_other_method_reaches_a_pod(
    here: Place, method: str
) -> None:
    pods = here.cluster.models["llama"].pods
    seen_before = len(seen_by(*pods))
    with counted_once(here.gateway, "method_not_allowed"):
        answer = here.exchange(post(method=method))
    assert (answer.status, answer.value("allow")) == (405, "POST")
    assert answer.value("x-gateway-error") == "method_not_allowed"
    assert (answer.body == b"") == (method == "HEAD"), "an answer to HEAD has no content"
    assert len(seen_by(*pods)) == seen_before


@pytest.mark.fault(25)
def test_a_message_that_is_no_http_is_refused_in_the_same_form(here: Place) -> None:
    answer = here.exchange(b"POST /v1/chat/completions HTTP/1.1\r\nno field\r\n\r\n")
    check_error(answer, invalid("bad_request"))
    assert answer.value("connection") == "close"


def test_an_error_keeps_the_clients_request_id_and_the_connection(here: Place) -> None:
    with Wire(here.gateway.port) as wire:
        wire.send(post(b"{}", "x-request-id: mine-1", close=False))
        first = wire.read_until(b"}}")
        wire.send(post(None, "x-request-id: mine-2"))
        second = wire.read_to_the_end()
    assert ("x-request-id", "mine-1") in head_of(first)[1]
    assert (second.status, second.value("x-request-id")) == (200, "mine-2")


def test_no_error_leaves_a_request_in_flight(here: Place) -> None:
    here.wait_until_idle()
    assert here.gateway.metric("gateway_in_flight") == 0
    processes = [process_of(pod) for pod in here.cluster.models["llama"].pods]
    assert [process.active for process in processes] == [0, 0]
