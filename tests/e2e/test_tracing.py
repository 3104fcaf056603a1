"""Traces as a collector gets them: every request's span, its attempts, and what endpoints see."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from simulator.fleet import Pod
from simulator.pod import Engine
from tests.collector import Collector, Span, collecting
from tests.e2e.crowd import relay_of
from tests.e2e.place import Place, place, seen_by
from tests.harness import wait_for
from tests.wire import Wire, chat_body, post, values

SPAN = "00f067aa0ba902b7"
#: Seconds that the clocks of a test and of a gateway's worker may seem to differ.
SLACK = 0.1


@dataclass(frozen=True)
class Traced:
    """A place whose gateway sends its spans to `collector`."""

    place: Place
    collector: Collector

    def log_line(self, trace_id: str) -> dict[str, Any]:
        """What the log says of the request of that trace."""
        return log_line(self.place, trace_id)


def log_line(here: Place, needle: str) -> dict[str, Any]:
    """The line of the log that has `needle` in it, once all of it is there."""

    def found() -> list[str]:
        lines = here.gateway.logs().splitlines()
        return [line for line in lines if needle in line and line.endswith("}")]

    (line,) = wait_for(found, f"{needle} is in the log")
    told: dict[str, Any] = json.loads(line)
    return told


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with collecting() as collector:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_SERVICE_NAME": "gateway-under-test",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        directory = tmp_path_factory.mktemp("tracing")
        with place(directory, strategy="round-robin", environment=environment) as running:
            relay_of(running.gateway)
            yield Traced(running, collector)


def new_trace() -> str:
    return uuid4().hex


def traceparent(trace_id: str, flags: str = "01") -> str:
    return f"traceparent: 00-{trace_id}-{SPAN}-{flags}"


def parents_seen_by(*pods: Pod) -> list[str]:
    return [parent for seen in seen_by(*pods) for parent in values(seen.raw, "traceparent")]


def check_family(server: Span, attempts: list[Span], pods: list[Pod]) -> None:
    """The client's span is the request's parent, that is its attempts', and they the endpoints'."""
    assert server.parent_id == SPAN
    assert {attempt.parent_id for attempt in attempts} <= {server.span_id}
    sent = {f"00-{server.trace_id}-{attempt.span_id}-01" for attempt in attempts}
    assert set(parents_seen_by(*pods)) <= sent


def test_a_streamed_request_is_a_span_from_its_arrival_to_its_last_byte(here: Traced) -> None:
    model = here.place.deploy("streams", engine=Engine(tokens=5, token_seconds=0.2))
    trace_id, before = new_trace(), time.time()
    body = chat_body(model.name, stream=True)
    answer = here.place.exchange(post(body, traceparent(trace_id), "tracestate: a=1,b=2"))
    after = time.time()
    assert answer.complete
    server, (attempt,) = here.collector.of(trace_id)
    check_family(server, [attempt], model.pods)
    assert values(seen_by(*model.pods)[0].raw, "tracestate") == ["a=1,b=2"]
    assert (server.state, server.service) == ("a=1,b=2", "gateway-under-test")
    assert before - SLACK <= server.start <= attempt.start < attempt.end == server.end
    assert server.end <= after + SLACK
    assert server.start < server.events["gateway.first_byte"] < server.end - 0.2
    told = {"gateway.attempts": 1, "k8s.pod.name": model.pods[0].name}
    assert told.items() <= server.attributes.items()
    assert (server.attributes["http.response.status_code"], server.failed) == (200, False)
    assert here.log_line(trace_id)["bytes"] == server.attributes["http.response.body.size"]


def test_a_request_without_a_traceparent_begins_a_trace_that_the_log_names(here: Traced) -> None:
    model = here.place.deploy("begins", engine=Engine(tokens=1, token_seconds=0.0))
    assert here.place.exchange(post(chat_body(model.name))).status == 200
    (parent,) = parents_seen_by(*model.pods)
    server, (attempt,) = here.collector.of(parent.split("-")[1])
    assert (server.parent_id, attempt.span_id) == ("", parent.split("-")[2])
    assert here.log_line(server.trace_id)["model"] == model.name


def test_a_client_that_samples_nothing_is_believed(here: Traced) -> None:
    model = here.place.deploy("unsampled", engine=Engine(tokens=1, token_seconds=0.0))
    quiet, loud = new_trace(), new_trace()
    here.place.exchange(post(chat_body(model.name), traceparent(quiet, "00")))
    here.place.exchange(post(chat_body(model.name), traceparent(loud)))
    here.collector.of(loud)  # which ended later
    assert quiet not in {span.trace_id for span in here.collector.spans()}
    first = parents_seen_by(*model.pods)[0]
    assert first.startswith(f"00-{quiet}-")
    assert first.endswith("-00")


def test_a_refusal_is_a_span_without_attempts(here: Traced) -> None:
    here.place.deploy("empty", ready=False)
    trace_id = new_trace()
    assert here.place.exchange(post(chat_body("empty"), traceparent(trace_id))).status == 503
    server, attempts = here.collector.of(trace_id)
    assert attempts == []
    assert server.failed
    told = {
        "error.type": "no_ready_endpoints",
        "gateway.error": "no_ready_endpoints",
        "http.response.status_code": 503,
        "gen_ai.request.model": "empty",
    }
    assert told.items() <= server.attributes.items()


def test_a_retry_over_a_dead_pod_is_two_attempts(here: Traced) -> None:
    model = here.place.deploy("dies", pods=2, engine=Engine(tokens=1, token_seconds=0.0))
    dead, alive = model.pods
    dead.crash(notice=None)
    trace_id = ""
    for _ in range(2):  # by turns
        trace_id = new_trace()
        answer = here.place.exchange(post(chat_body(model.name), traceparent(trace_id)))
        assert answer.status == 200
        server, attempts = here.collector.of(trace_id)
        if len(attempts) == 2:
            break
    first, second = attempts
    check_family(server, attempts, [])
    assert parents_seen_by(alive)[-1] == f"00-{trace_id}-{second.span_id}-01"
    assert (first.attributes["k8s.pod.name"], first.failed) == (dead.name, True)
    assert (second.attributes["k8s.pod.name"], second.failed) == (alive.name, False)
    assert second.attributes["http.request.resend_count"] == 1
    assert first.end <= second.start == server.events["gateway.attempt"]
    assert (server.attributes["gateway.attempts"], server.failed) == (2, False)


@pytest.mark.parametrize("phase", ["waiting", "receiving"])
def test_a_client_that_leaves_ends_the_span(here: Traced, phase: str) -> None:
    how = "stall-before-head" if phase == "waiting" else "stall-after-tokens=1"
    model = here.place.deploy(f"left-{phase}")
    trace_id = new_trace()
    body = chat_body(model.name, stream=True)
    request = post(body, f"x-sim-behaviour: {how}", traceparent(trace_id))
    with Wire(here.place.gateway.port) as client:
        client.send(request)
        wait_for(lambda: seen_by(*model.pods), "the pod has the request")
        if phase == "receiving":
            client.read_until(b"data: ")
        left = time.time()
    server, (attempt,) = here.collector.of(trace_id)
    check_family(server, [attempt], model.pods)
    assert server.attributes["gateway.client_left"] == phase
    assert left - SLACK <= server.end == attempt.end
    assert not server.failed
    assert ("http.response.status_code" in server.attributes) == (phase == "receiving")
    assert ("gateway.first_byte" in server.events) == (phase == "receiving")


def test_an_answer_that_breaks_off_is_an_error(here: Traced) -> None:
    model = here.place.deploy("breaks", engine=Engine(tokens=50, token_seconds=0.05))
    trace_id = new_trace()
    with Wire(here.place.gateway.port) as client:
        client.send(post(chat_body(model.name, stream=True), traceparent(trace_id)))
        client.read_until(b"data: ")
        model.pods[0].crash(notice=None)
        with suppress(ConnectionError):
            client.read_to_the_end()
    server, (attempt,) = here.collector.of(trace_id)
    assert server.failed
    assert attempt.failed
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["error.type"] == attempt.attributes["error.type"] == "upstream_died"


def test_no_key_no_query_and_nothing_of_a_body_is_sent(here: Traced) -> None:
    model = here.place.deploy("private", engine=Engine(tokens=1, token_seconds=0.0))
    trace_id, secret = new_trace(), f"secret-{uuid4().hex}"
    body = chat_body(model.name, user=secret)
    target = f"/v1/chat/completions?key={secret}"
    request = post(body, traceparent(trace_id), f"Authorization: Bearer {secret}", target=target)
    assert here.place.exchange(request).status == 200
    here.collector.of(trace_id)
    assert not any(secret.encode() in sent for sent in here.collector.bodies)
