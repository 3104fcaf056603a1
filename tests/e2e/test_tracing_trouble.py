"""Traces where nobody takes them, or nothing makes them: requests are answered as if it were so."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.pod import Engine
from tests.collector import collecting
from tests.e2e.crowd import p99, timed
from tests.e2e.place import Place, place, seen_by
from tests.e2e.test_tracing import SPAN, log_line, new_trace, traceparent
from tests.harness import free_port, wait_for
from tests.wire import RawAnswer, chat_body, post, values

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
BRIEF = Engine(tokens=1, token_seconds=0.0)
REQUESTS = 100
#: Seconds that none of them takes; a request that waited for the collector would take ten.
LONG = 2.0
#: Seconds that a gateway's end takes at most on a busy machine; the collector would get thirty.
END = 9.0


def warnings(here: Place) -> list[str]:
    """What the log says of tracing, as far as whole lines are there."""
    lines = [line for line in here.gateway.logs().splitlines() if line.endswith("}")]
    told = [json.loads(line) for line in lines if '"gateway.tracing"' in line]
    return [line["message"] for line in told]


def check_that_nobody_waits(here: Place, said: str) -> None:
    """Requests, and the gateway's end; `said` is a line that the log must have."""
    model = here.deploy("unheard", engine=BRIEF)
    request = post(chat_body(model.name))
    times = [timed(lambda: here.exchange(request)) for _ in range(REQUESTS)]
    assert p99(times) < LONG
    assert here.gateway.metric("gateway_requests_total", status="200") == REQUESTS
    began = time.monotonic()
    assert here.gateway.stop() == 0
    assert time.monotonic() - began < END
    told = [line.partition(":")[0] for line in warnings(here)]
    assert said in told
    assert sorted(told) == sorted(set(told)), "nothing is said twice"


def test_a_collector_that_hangs_holds_up_neither_requests_nor_the_end(tmp_path: Path) -> None:
    few = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32"}
    with collecting() as collector:
        collector.answers.clear()
        environment = {ENDPOINT: collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50", **few}
        with place(tmp_path, environment=environment) as here:
            here.gateway.chat("nobody")
            wait_for(collector.asked.is_set, "spans are being sent")
            check_that_nobody_waits(here, "the last spans could not be sent within 2 s")


def test_a_collector_that_is_away_holds_up_neither_requests_nor_the_end(tmp_path: Path) -> None:
    nowhere = {ENDPOINT: f"http://127.0.0.1:{free_port()}", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with place(tmp_path, environment=nowhere | {"OTEL_BSP_SCHEDULE_DELAY": "50"}) as here:
        here.gateway.chat("nobody")
        wait_for(lambda: warnings(here), "it is told that nothing can be sent")
        check_that_nobody_waits(here, "spans can't be sent")


def test_what_is_not_sent_yet_is_sent_at_the_end(tmp_path: Path) -> None:
    with collecting() as collector:
        patient = {ENDPOINT: collector.url, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        with place(tmp_path, environment=patient) as here:
            model = here.deploy("late", engine=BRIEF)
            trace_id = new_trace()
            assert here.exchange(post(chat_body(model.name), traceparent(trace_id))).status == 200
            assert collector.spans() == []
        server, (attempt,) = collector.of(trace_id)
        assert attempt.parent_id == server.span_id
        assert server.service == "inference-gateway"


# --- Without OpenTelemetry ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that is to send spans, and finds an empty package in OpenTelemetry's place."""
    directory = tmp_path_factory.mktemp("plain")
    package = directory / "packages" / "opentelemetry"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    environment = {ENDPOINT: "http://127.0.0.1:9", "PYTHONPATH": str(package.parent)}
    with place(directory, environment=environment, workers="2") as here:
        yield here


def test_what_is_not_installed_is_one_line_at_the_start(plain: Place) -> None:
    (line,) = warnings(plain)
    assert line.startswith("requests are not traced: OpenTelemetry can't be imported (No module")
    assert "requirements-tracing.txt" in line


@pytest.mark.parametrize(
    ("given", "valid"),
    [
        ([f"00-4bf92f3577b34da6a3ce929d0e0e4736-{SPAN}-01"], True),
        ([f"00-4bf92f3577b34da6a3ce929d0e0e4736-{SPAN}-00"], True),
        ([f"cc-4bf92f3577b34da6a3ce929d0e0e4736-{SPAN}-01-later"], True),
        ([f"00-{'0' * 32}-{SPAN}-01"], False),
        (["no such thing"], False),
        (['"}\t{"'], False),
        ([], False),
    ],
)
def test_what_the_gateway_takes_no_part_in_passes_unchanged(
    plain: Place, given: list[str], valid: bool
) -> None:
    model = plain.deploy(f"passes-{new_trace()[:8]}", engine=BRIEF)
    lines = [f"traceparent: {value}" for value in given]
    request = post(chat_body(model.name), *lines, "tracestate: a=1,, b", "x-a: 1")

    def answers() -> list[RawAnswer]:
        return [answer for answer in [plain.exchange(request)] if answer.status == 200]

    (answer,) = wait_for(answers, "whichever worker is asked knows the pod")
    (seen,) = seen_by(*model.pods)
    assert values(seen.raw, "traceparent") == given
    assert values(seen.raw, "tracestate") == ["a=1,, b"]
    line = log_line(plain, str(answer.value("x-request-id")))
    assert line.get("trace_id") == (given[0].split("-")[1] if valid else None)
