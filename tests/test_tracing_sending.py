"""Spans on their way out: what the log says of trouble, and whether there are any."""

import logging
import os
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from proxy.trace import OFF
from tests.harness import ROOT
from tests.spans import OK, Watched, call, endpoint, one_request
from tests.test_tracing import TRACE, VALID
from tracing.environment import from_environ, prepare, wanted
from tracing.sending import Exporter, Heard
from tracing.spans import OpenTelemetry


class Moody(SpanExporter):
    """Does what it is told to, call by call."""

    def __init__(self, *outcomes: SpanExportResult | Exception) -> None:
        self._outcomes = iter(outcomes)

    def export(self, spans: object) -> SpanExportResult:
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def shutdown(self) -> None:
        pass


def test_that_nothing_can_be_sent_is_told_once_and_that_it_works_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gateway.tracing")
    fails, works = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    moody = Moody(works, fails, OSError("away"), fails, works, works, OSError("gone"))
    exporter = Exporter(moody, Heard())
    for _ in range(7):
        exporter.export([])
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0].partition(";")[0] for line in lines] == [
        "spans can't be sent",
        "spans are sent again",
        "spans can't be sent",
    ]
    assert lines[2].endswith("OSError: gone")


def test_what_opentelemetry_says_again_and_again_is_in_the_log_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = Heard()
    heard.begin()
    try:
        logger = logging.getLogger("opentelemetry.sdk.trace")
        for number in range(3):
            logger.warning("number %d is lost", number)
        logging.getLogger("opentelemetry.exporter.otlp").warning("the collector is away")
        logging.getLogger("opentelemetry.exporter.otlp").error("given up")
    finally:
        heard.end()
    assert caplog.messages == ["OpenTelemetry: number 0 is lost"]
    assert heard.why == "the collector is away"


def test_settings_that_cannot_be_used_are_one_line_and_requests_are_answered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    tracing = OpenTelemetry(make_exporter=InMemorySpanExporter)
    tracing.start()
    trace = tracing.begin(call(Traceparent=VALID))
    assert TRACE in trace.attempt(endpoint(1))["traceparent"]
    trace.ended(1.0, None, OK)
    tracing.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "spans are not sent: max_queue_size must be a positive integer."
    ]


# --- Whether ------------------------------------------------------------------------------------

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("sampler", "traceparent", "sampled"),
    [
        ("", None, True),
        ("", VALID, True),
        ("", VALID[:-2] + "00", False),
        ("always_off", VALID, False),
        ("always_on", VALID[:-2] + "00", True),
        ("parentbased_always_off", None, False),
        ("parentbased_always_off", VALID, True),
    ],
)
def test_who_is_sampled_is_for_the_client_and_the_environment_to_say(
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    traceparent: str | None,
    sampled: bool,
) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    here = Watched()
    sent = one_request(here, OK, **({"Traceparent": traceparent} if traceparent else {}))
    assert sent[0]["traceparent"].endswith("-01" if sampled else "-00")
    assert len(here.spans()) == (3 if sampled else 0)


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({ENDPOINT: "http://c:4318", "OTEL_SDK_DISABLED": "True"}, False),
        ({ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_requests_are_traced_where_the_environment_says_so(
    environ: dict[str, str], on: bool
) -> None:
    assert wanted(environ) is on
    assert (from_environ(environ) is not OFF) is on


def test_a_protocol_that_is_not_spoken_is_told(caplog: pytest.LogCaptureFixture) -> None:
    prepare({ENDPOINT: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert caplog.messages == ["spans are sent by http/protobuf, not by grpc"]


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    script = "import sys, gateway; print([m for m in sys.modules if 'opentelemetry' in m])"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0)
