"""Requests as spans: whose children they are, what stands in them, and what never does."""

import json
from collections.abc import Callable, Iterator

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from proxy.call import Call
from proxy.trace import traceparent_of
from tests.spans import BEGAN, OK, PATH, SECOND, Watched, call, context, endpoint, one_request, told
from tests.test_tracing import SPAN, TRACE, VALID


@pytest.fixture
def make_watched() -> Iterator[Callable[[], Watched]]:
    made: list[Watched] = []

    def make() -> Watched:
        made.append(Watched())
        return made[-1]

    yield make
    for watched in made:
        watched.tracing.stop()


@pytest.fixture
def here(make_watched: Callable[[], Watched]) -> Watched:
    return make_watched()


# --- Whose children ----------------------------------------------------------------------------


def test_a_request_with_a_valid_traceparent_is_its_child(here: Watched) -> None:
    here.tracing.begin(call(Traceparent=VALID, Tracestate="a=1")).ended(here.clock.now, None, OK)
    (span,) = here.spans()
    assert f"{context(span).trace_id:032x}" == TRACE
    assert span.parent is not None
    assert (f"{span.parent.span_id:016x}", span.parent.is_remote) == (SPAN, True)
    assert context(span).trace_state.to_header() == "a=1"
    assert span.kind is SpanKind.SERVER


@pytest.mark.parametrize("given", ["nonsense", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01"])
def test_a_request_without_a_valid_one_begins_a_trace_and_keeps_no_state(
    here: Watched, given: str
) -> None:
    trace = here.tracing.begin(call(Traceparent=given, Tracestate="a=1"))
    assert list(trace.attempt(endpoint(1))) == ["traceparent"]
    trace.ended(here.clock.now, None, OK)
    _, span = here.spans()
    assert span.parent is None
    assert f"{context(span).trace_id:032x}" == trace.trace_id != TRACE


def test_attempts_are_children_and_endpoints_are_sent_their_ids(here: Watched) -> None:
    sent = one_request(here, OK, Traceparent=VALID)
    first, second, server = here.spans()
    for span, fields in zip((first, second), sent, strict=True):
        assert span.kind is SpanKind.CLIENT
        assert span.parent == context(server)
        parent = traceparent_of(fields["traceparent"])
        assert parent is not None
        assert (parent.trace_id, parent.flags) == (TRACE, 1)
        assert parent.span_id == f"{context(span).span_id:016x}"


def test_times_are_those_of_the_request(here: Watched) -> None:
    one_request(here, OK)
    times = [(span.start_time, span.end_time) for span in here.spans()]
    half = SECOND // 2
    assert times == [
        (BEGAN, BEGAN + half),
        (BEGAN + half, BEGAN + 2 * SECOND),  # the answer that is passed on lasts to its end
        (BEGAN, BEGAN + 2 * SECOND),
    ]


def test_a_part_that_another_worker_goes_on_with_is_told_there_as_if_it_were_here(
    here: Watched, make_watched: Callable[[], Watched]
) -> None:
    there = make_watched()
    trace = here.tracing.begin(call(Traceparent=VALID))
    sent = traceparent_of(trace.attempt(endpoint(1))["traceparent"])
    trace.attempted(status=200)
    facts = json.loads(json.dumps(trace.facts()))
    there.tracing.resumed(facts).ended(here.clock.now + 7, None, {"attempts": 1, **OK})
    client, server = there.spans()
    assert f"{context(server).trace_id:032x}" == TRACE
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == SPAN
    assert sent is not None
    assert f"{context(client).span_id:016x}" == sent.span_id
    assert {span.end_time for span in (client, server)} == {BEGAN + 7 * SECOND}
    assert here.spans() == ()


def test_one_that_was_not_sampled_there_is_not_traced_here(here: Watched) -> None:
    assert here.tracing.resumed(None).facts() is None


# --- What stands in them -----------------------------------------------------------------------


def test_a_request_s_span_says_what_the_conventions_name_and_what_the_log_says(
    here: Watched,
) -> None:
    facts = {"strategy": "random", "pod": "pod-2", "endpoint": "x", "held_seconds": 0.5}
    one_request(here, {**OK, **facts, "alias": "gpt"})
    *_, span = here.spans()
    assert span.name == f"POST {PATH}"
    assert told(span) == {
        "http.request.method": "POST",
        "http.route": PATH,
        "url.path": PATH,
        "url.scheme": "http",
        "server.address": "gateway.test",
        "server.port": 8080,
        "http.response.status_code": 200,
        "http.response.body.size": 10,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "llama",
        "gateway.attempts": 2,
        "gateway.request_id": "id-1",
        "gateway.strategy": "random",
        "gateway.alias": "gpt",
        "gateway.held_seconds": 0.5,
        "k8s.pod.name": "pod-2",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.resource.attributes["service.name"] == "inference-gateway"


def test_an_attempt_s_span_says_where_it_went_and_what_became_of_it(here: Watched) -> None:
    one_request(here, OK)
    first, second, _ = here.spans()
    assert told(first) == {
        "http.request.method": "POST",
        "url.full": f"http://10.0.0.1:8000{PATH}",
        "server.address": "10.0.0.1",
        "server.port": 8000,
        "k8s.pod.name": "pod-1",
        "error.type": "refused",
    }
    assert first.status.status_code is StatusCode.ERROR
    assert told(second)["http.request.resend_count"] == 1
    assert told(second)["http.response.status_code"] == 200
    assert second.status.status_code is StatusCode.UNSET


def test_the_first_byte_and_further_attempts_are_events(here: Watched) -> None:
    one_request(here, OK)
    *_, span = here.spans()
    events = {event.name: (event.timestamp, dict(event.attributes or {})) for event in span.events}
    assert events == {
        "gateway.first_byte": (BEGAN + SECOND * 5 // 4, {"gateway.seconds": 1.25}),
        "gateway.attempt": (
            BEGAN + SECOND // 2,
            {"gateway.attempt": 2, "gateway.reason": "refused", "k8s.pod.name": "pod-2"},
        ),
    }


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ({"status": 200}, ""),
        ({"status": 404, "error": "model_not_found", "reason": "there is none"}, ""),
        ({"status": 429}, ""),
        ({"status": 500}, "500"),
        ({"status": 503, "error": "no_ready_endpoints", "reason": "none"}, "no_ready_endpoints"),
        ({"status": 200, "error": "upstream_died", "reason": "it broke off"}, "upstream_died"),
    ],
)
def test_what_is_no_client_s_mistake_is_an_error(
    here: Watched, facts: dict[str, object], error: str
) -> None:
    here.tracing.begin(call()).ended(here.clock.now, None, {**OK, **facts})
    (span,) = here.spans()
    assert told(span).get("error.type", "") == error
    assert told(span).get("gateway.error") == facts.get("error")
    assert (span.status.status_code is StatusCode.ERROR) == bool(error)
    assert span.status.description == (facts.get("reason") if error else None)


def test_an_answer_that_broke_off_is_its_attempt_s_error_too(here: Watched) -> None:
    one_request(here, {**OK, "error": "upstream_died", "reason": "it broke off"})
    _, second, server = here.spans()
    assert told(second)["error.type"] == told(server)["error.type"] == "upstream_died"
    assert second.status.status_code is server.status.status_code is StatusCode.ERROR


def test_a_client_that_left_while_it_waited_got_no_status(here: Watched) -> None:
    trace = here.tracing.begin(call())
    trace.attempt(endpoint(1))
    here.clock.now += 3
    trace.ended(here.clock.now, None, {**OK, "status": 499, "client_left": "waiting"})
    client, server = here.spans()
    assert "http.response.status_code" not in told(server)
    assert told(server)["gateway.client_left"] == "waiting"
    assert client.end_time == server.end_time == BEGAN + 3 * SECOND


def test_a_model_nobody_knows_is_not_repeated(here: Watched) -> None:
    here.tracing.begin(call()).ended(
        here.clock.now, None, {**OK, "status": 404, "model": "unknown"}
    )
    (span,) = here.spans()
    assert "gen_ai.request.model" not in told(span)


def test_neither_keys_nor_queries_are_told(here: Watched) -> None:
    one_request(here, OK, Cookie="s3cret", Tracestate="a=1")
    for span in here.spans():
        assert "s3cret" not in span.to_json()


@pytest.mark.parametrize(
    ("method", "path", "host", "expected"),
    [
        ("BREW", "/v1/messages", "h", ("HTTP /v1/messages", "_OTHER", "chat", "h")),
        ("POST", "/v1/completions", "", ("POST /v1/completions", "POST", "text_completion", None)),
        ("POST", "/v1/rerank", "[::1]:80", ("POST /v1/rerank", "POST", "rerank", "::1")),
        ("POST", "/v1/rerank", "[::1", ("POST /v1/rerank", "POST", "rerank", None)),
        ("POST", "/v1/rerank", "h:99999", ("POST /v1/rerank", "POST", "rerank", None)),
    ],
)
def test_whatever_the_head_says_names_are_few(
    here: Watched, method: str, path: str, host: str, expected: tuple[str | None, ...]
) -> None:
    asked = Call(method, path, path, {"Host": host}, "http", "", None, True)  # type: ignore[arg-type]
    here.tracing.begin(asked).ended(here.clock.now, None, {**OK, "status": 405})
    (span,) = here.spans()
    names = ("http.request.method", "gen_ai.operation.name", "server.address")
    assert (span.name, *(told(span).get(name) for name in names)) == expected
