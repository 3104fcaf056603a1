"""Requests and their attempts as OpenTelemetry's spans."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from proxy.call import Call
from proxy.trace import (
    SAMPLED,
    TRACE_FIELDS,
    Recording,
    Story,
    Trace,
    TraceParent,
    Tracing,
    new_id,
    traceparent_of,
    tracestate_of,
)
from tracing import conventions
from tracing.sending import Exporter, Heard, end

log = logging.getLogger("gateway.tracing")

#: The service's name where OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES give none.
_SERVICE: Final = "inference-gateway"


class OpenTelemetry(Tracing):
    """Tells of the requests that are sampled, from a thread of its own.

    Spans are made when their request is over: until then ids and times are plain values, which a
    stream takes along when another worker goes on with it.
    """

    fields = TRACE_FIELDS

    def __init__(
        self,
        *,
        make_exporter: Callable[[], SpanExporter] = OTLPSpanExporter,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        """`clock` is monotonic, `wall` gives nanoseconds since 1970."""
        self._make_exporter = make_exporter
        self._clock = clock
        self._wall = wall
        nobody = Resource.get_empty()
        self._sampler = TracerProvider(resource=nobody, shutdown_on_exit=False).sampler
        self._ids = _ChosenIds()
        # It sees sampled requests only: that was decided when they came.
        self._provider = TracerProvider(
            ALWAYS_ON, _resource(), shutdown_on_exit=False, id_generator=self._ids
        )
        self._tracer = self._provider.get_tracer("gateway")
        self._processor: BatchSpanProcessor | None = None
        self._heard = Heard()

    def start(self) -> None:
        """Begin to send. Settings that can't be used are told of, and nothing is sent."""
        try:
            self._processor = BatchSpanProcessor(Exporter(self._make_exporter(), self._heard))
        except Exception as error:  # noqa: BLE001 - requests are answered without
            log.warning("spans are not sent: %s", error)
            return
        self._heard.begin()  # only now: what it says of its settings is for the log
        self._provider.add_span_processor(self._processor)

    def stop(self) -> None:
        """Send what is left, within two seconds."""
        if self._processor is not None:
            end(self._processor)
            self._heard.end()

    def begin(self, call: Call) -> Trace:
        """The part of a request that has just arrived. Its caller has a say in the sampling."""
        parent = traceparent_of(call.fields.get("Traceparent"))
        state = tracestate_of(call.fields.get("Tracestate")) if parent else ""
        trace_id = parent.trace_id if parent else new_id(128)
        name, attributes = conventions.name_of(call), conventions.of_call(call)
        flags = parent.flags & ~SAMPLED if parent else 0
        asked = self._sampler.should_sample(
            _within(parent, state), int(trace_id, 16), name, SpanKind.SERVER, attributes
        )
        if asked.decision is Decision.RECORD_AND_SAMPLE:
            flags |= SAMPLED
        span = TraceParent(trace_id, new_id(64), flags)
        return self._recording(
            Story(span, parent, state, name, attributes, self._clock(), self._wall())
        )

    def resumed(self, facts: dict[str, Any] | None) -> Trace:
        """The part that another worker began; `facts` are what `Trace.facts` gave there."""
        return super().resumed(facts) if facts is None else self._recording(Story.of(facts))

    def _recording(self, story: Story) -> Recording:
        return Recording(story, self._tell, self._clock)

    def _tell(
        self, story: Story, ended: float, first_byte: float | None, facts: Mapping[str, object]
    ) -> None:
        try:
            self._write(story, ended, first_byte, facts)
        except Exception:
            log.exception("a bug: a request's spans could not be made")

    def _write(
        self, story: Story, ended: float, first_byte: float | None, facts: Mapping[str, object]
    ) -> None:
        span = self._begun(story, story.span, SpanKind.SERVER, _within(story.parent, story.state))
        span.set_attributes({**story.attributes, **conventions.of_end(story, facts)})
        if first_byte is not None:
            seconds = {"gateway.seconds": round(first_byte - story.began, 6)}
            span.add_event("gateway.first_byte", seconds, story.nanoseconds(first_byte))
        for number, attempt in enumerate(story.attempts, 1):
            if number > 1:
                told = conventions.of_further(story, number)
                span.add_event("gateway.attempt", told, story.nanoseconds(attempt.began))
            self._write_attempt(story, number, set_span_in_context(span), ended, facts)
        if conventions.error_of(facts):
            span.set_status(StatusCode.ERROR, str(facts.get("reason", "")) or None)
        span.end(story.nanoseconds(ended))

    def _write_attempt(
        self, story: Story, number: int, within: Context, ended: float, facts: Mapping[str, object]
    ) -> None:
        attempt = story.attempts[number - 1]
        passed_on = number == facts.get("attempts")
        own = story.span._replace(span_id=attempt.span_id)
        span = self._begun(story, own, SpanKind.CLIENT, within, attempt.began)
        span.set_attributes(conventions.of_attempt(story, number))
        error = conventions.failure_of(attempt)
        if passed_on and not error:  # the answer broke off
            error = conventions.error_of(facts)
        if error:
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR)
        over = ended if passed_on or attempt.ended is None else attempt.ended
        span.end(story.nanoseconds(over))

    def _begun(
        self,
        story: Story,
        own: TraceParent,
        kind: SpanKind,
        within: Context,
        began: float | None = None,
    ) -> Span:
        self._ids.chosen = own
        at = story.nanoseconds(story.began if began is None else began)
        return self._tracer.start_span(story.name, within, kind, start_time=at)


class _ChosenIds(threading.local, IdGenerator):
    """The ids that were chosen when the request, or the attempt, began."""

    chosen: TraceParent

    def generate_span_id(self) -> int:
        """The id of the span that this thread makes now."""
        return int(self.chosen.span_id, 16)

    def generate_trace_id(self) -> int:
        """The id of its trace."""
        return int(self.chosen.trace_id, 16)


def _within(parent: TraceParent | None, state: str) -> Context:
    """The context of a span whose parent is a client's."""
    if parent is None:
        return Context()
    remote = SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(parent.flags),
        trace_state=TraceState.from_header([state]),
    )
    return set_span_in_context(NonRecordingSpan(remote), Context())


def _resource() -> Resource:
    """What the environment says of this service; a name where it gives none."""
    found = Resource.create()
    unnamed = str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return found.merge(Resource({SERVICE_NAME: _SERVICE})) if unnamed else found
