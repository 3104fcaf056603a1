"""Spans that stay here instead of being sent, of requests that nobody sent either."""

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from cache.endpoints import Endpoint
from proxy.call import Call
from tests.fakes import Clock
from tracing.spans import OpenTelemetry

SECOND = 1_000_000_000
#: The wall clock's time of everything that begins; requests take their time by the other clock.
BEGAN = 1_700_000_000 * SECOND
PATH = "/v1/chat/completions"
OK = {"status": 200, "model": "llama", "bytes": 10, "request_id": "id-1"}


class Watched:
    """A tracing whose spans stay here, and the clock it goes by."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._exporter = InMemorySpanExporter()
        self.tracing = OpenTelemetry(
            make_exporter=lambda: self._exporter, clock=self.clock, wall=lambda: BEGAN
        )
        self.tracing.start()

    def spans(self) -> tuple[ReadableSpan, ...]:
        """All of them, in the order they ended in; there are no more after this."""
        self.tracing.stop()
        return self._exporter.get_finished_spans()


def call(**fields: str) -> Call:
    given = {"Host": "gateway.test:8080", "Authorization": "Bearer s3cret", **fields}
    return Call("POST", PATH, f"{PATH}?token=s3cret", given, "http", "", None, True)  # type: ignore[arg-type]


def endpoint(number: int) -> Endpoint:
    return Endpoint(f"10.0.0.{number}", 8000, pod=f"pod-{number}")


def context(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def told(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})


def one_request(here: Watched, facts: Mapping[str, object], **fields: str) -> list[dict[str, str]]:
    """A request that takes two seconds, the second attempt the last; returns what was sent."""
    trace = here.tracing.begin(call(**fields))
    start = here.clock.now
    first = trace.attempt(endpoint(1))
    here.clock.now += 0.5
    trace.attempted(failure="refused")
    second = trace.attempt(endpoint(2))
    here.clock.now += 0.5
    trace.attempted(status=200)
    here.clock.now += 1
    trace.ended(here.clock.now, start + 1.25, {"attempts": 2, **facts})
    return [first, second]
