"""What is written down of a request: once, at its end, and nothing that is private."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from metrics import (
    CLIENT_ABORTS,
    ERRORS,
    FIRST_BYTE_SECONDS,
    IN_FLIGHT,
    REQUEST_SECONDS,
    REQUESTS,
    STREAM_BYTES,
)
from proxy.forwarder import Answer
from proxy.framing import Head
from proxy.record import RequestRecord
from proxy.transport import Reply
from routing.inflight import InFlight
from routing.strategies import STRATEGIES
from routing.view import Query
from tests.fakes import Clock, endpoints
from tests.harness import PATIENCE
from tests.test_forwarder import FakeStream, First

MODEL = "recorded"
Change = Callable[..., float]


def value(metric: Any, *labels: str, part: str = "") -> float:
    """The present value of a metric of this process."""
    child = metric.labels(*labels) if labels else metric
    samples = [s.value for s in child.collect()[0].samples if s.name.endswith(part or "_total")]
    return float(samples[0])


def in_flight() -> float:
    return value(IN_FLIGHT, MODEL, part="gateway_in_flight")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def record(clock: Clock) -> RequestRecord:
    return RequestRecord("id-1", "POST", "/v1/chat/completions", clock)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    caplog.set_level(logging.DEBUG, "gateway.requests")
    return lambda: [line for line in caplog.records if line.name == "gateway.requests"]


Lines = Callable[[], list[logging.LogRecord]]


def facts(lines: Lines) -> dict[str, object]:
    (line,) = lines()
    found: dict[str, object] = vars(line)["facts"]
    return found


def answer() -> Answer:
    lease = InFlight().pick(STRATEGIES["random"](First()), endpoints(1), Query("llama"))
    return Answer(Reply(Head(1, 200, "", ()), FakeStream()), lease, 2)


def test_a_whole_answer_is_one_line(record: RequestRecord, clock: Clock, lines: Lines) -> None:
    record.names(MODEL, "random")
    record.begins()
    clock.now += 1.5
    record.answered(answer())
    clock.now += 0.25
    record.passed(10)
    clock.now += 2
    record.passed(20)
    record.finish(200)
    assert facts(lines) == {
        "request_id": "id-1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "strategy": "random",
        "endpoint": "10.0.0.1:8000",
        "pod": "pod-1",
        "attempts": 2,
        "model": MODEL,
        "status": 200,
        "bytes": 30,
        "seconds": 3.75,
        "first_byte_seconds": 1.75,
    }
    assert lines()[0].levelno == logging.INFO
    assert lines()[0].getMessage() == "POST /v1/chat/completions 200"


def test_metrics_are_counted_at_the_end(record: RequestRecord, clock: Clock) -> None:
    before = [
        value(REQUESTS, MODEL, "200"),
        value(REQUEST_SECONDS, MODEL, part="_sum"),
        value(FIRST_BYTE_SECONDS, MODEL, part="_sum"),
        value(STREAM_BYTES),
    ]
    record.names(MODEL, None)
    clock.now += 0.5
    record.passed(100)
    clock.now += 1
    record.finish(200)
    after = [
        value(REQUESTS, MODEL, "200"),
        value(REQUEST_SECONDS, MODEL, part="_sum"),
        value(FIRST_BYTE_SECONDS, MODEL, part="_sum"),
        value(STREAM_BYTES),
    ]
    assert [b - a for a, b in zip(before, after, strict=True)] == pytest.approx([1, 1.5, 0.5, 100])


def test_in_flight_counts_from_the_beginning_to_the_end(record: RequestRecord) -> None:
    before = in_flight()
    record.names(MODEL, None)
    assert in_flight() == before
    record.begins()
    assert in_flight() == before + 1
    record.finish(200)
    record.finish(200)
    assert in_flight() == before


def test_a_request_that_was_refused_before_was_never_in_flight(record: RequestRecord) -> None:
    before = in_flight()
    record.names(MODEL, None)
    record.failed("no_ready_endpoints", "none")
    record.finish(503)
    assert in_flight() == before


def test_only_the_first_end_counts(record: RequestRecord, lines: Lines) -> None:
    record.names(MODEL, None)
    before = value(REQUESTS, MODEL, "200"), value(REQUESTS, MODEL, "502")
    record.finish(200)
    record.finish(502)
    assert (value(REQUESTS, MODEL, "200"), value(REQUESTS, MODEL, "502")) == (
        before[0] + 1,
        before[1],
    )
    assert len(lines()) == 1


def test_ends_that_come_at_once_count_once(record: RequestRecord, lines: Lines) -> None:
    start = threading.Barrier(8)

    def finish() -> None:
        start.wait(PATIENCE)
        record.finish(200)

    threads = [threading.Thread(target=finish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(lines()) == 1


def test_a_request_that_names_no_known_model_is_counted_as_unknown(record: RequestRecord) -> None:
    before = value(REQUESTS, "unknown", "404")
    record.failed("model_not_found", "the model 'x' does not exist")
    record.finish(404)
    assert value(REQUESTS, "unknown", "404") == before + 1


def test_an_error_is_counted_by_its_code_and_told(record: RequestRecord, lines: Lines) -> None:
    before = value(ERRORS, "upstream_reset")
    record.failed("upstream_reset", "it died")
    record.finish(502)
    assert value(ERRORS, "upstream_reset") == before + 1
    assert facts(lines)["error"] == "upstream_reset"
    assert facts(lines)["reason"] == "it died"


@pytest.mark.parametrize("phase", ["sending", "receiving"])
def test_a_client_that_left_is_counted_by_phase(
    record: RequestRecord, lines: Lines, phase: str
) -> None:
    before = value(CLIENT_ABORTS, phase)
    record.aborted(phase)
    record.finish(200)
    assert value(CLIENT_ABORTS, phase) == before + 1
    assert facts(lines)["client_left"] == phase


@pytest.mark.parametrize(
    ("status", "error", "level"),
    [
        (200, None, logging.INFO),
        (200, "upstream_died", logging.WARNING),
        (404, "model_not_found", logging.INFO),
        (429, None, logging.INFO),
        (500, None, logging.WARNING),
        (503, "no_ready_endpoints", logging.WARNING),
    ],
)
def test_what_is_our_or_an_endpoint_s_trouble_is_a_warning(
    record: RequestRecord, lines: Lines, status: int, error: str | None, level: int
) -> None:
    if error:
        record.failed(error, "")
    record.finish(status)
    assert lines()[0].levelno == level


def test_without_a_byte_there_is_no_time_of_the_first(record: RequestRecord, lines: Lines) -> None:
    before = value(FIRST_BYTE_SECONDS, "unknown", part="_count")
    record.finish(204)
    assert facts(lines)["first_byte_seconds"] is None
    assert value(FIRST_BYTE_SECONDS, "unknown", part="_count") == before


def test_a_strategy_s_name_is_not_kept_at_any_length(record: RequestRecord, lines: Lines) -> None:
    record.names(MODEL, "s" * 8000)
    record.finish(400)
    assert len(str(facts(lines)["strategy"])) <= 100
