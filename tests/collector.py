"""A collector of spans on loopback, as far as the gateway speaks OTLP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.harness import wait_for

_KINDS = {2: "server", 3: "client"}
_ERROR = 2


@dataclass(frozen=True)
class Span:
    """A span as it came: ids in hex, times in seconds since 1970, `service` from its resource."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    start: float
    end: float
    attributes: dict[str, Any]
    events: dict[str, float]
    failed: bool
    service: str


class Collector:
    """Takes spans. While `answers` is not set, it takes a request and says nothing."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.asked.set()
                collector.answers.wait()
                collector.bodies.append(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> list[Span]:
        """All that have come."""
        return [span for body in list(self.bodies) for span in _spans(body)]

    def of(self, trace_id: str) -> tuple[Span, list[Span]]:
        """The request's span of a trace, once it is there, and its attempts in their order."""

        def there() -> list[Span]:
            found = [span for span in self.spans() if span.trace_id == trace_id]
            return found if any(span.kind == "server" for span in found) else []

        found = wait_for(there, f"the trace {trace_id} is collected")
        (server,) = [span for span in found if span.kind == "server"]
        attempts = [span for span in found if span.kind == "client"]
        return server, sorted(attempts, key=lambda span: span.start)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that runs."""
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield collector
    finally:
        collector.answers.set()
        collector.server.shutdown()
        thread.join()
        collector.server.server_close()


def _spans(body: bytes) -> Iterator[Span]:
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    for group in request.resource_spans:
        service = _values(group.resource.attributes)["service.name"]
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    _KINDS[span.kind],
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.trace_state,
                    span.start_time_unix_nano / 1e9,
                    span.end_time_unix_nano / 1e9,
                    _values(span.attributes),
                    {event.name: event.time_unix_nano / 1e9 for event in span.events},
                    span.status.code == _ERROR,
                    service,
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}
