"""A request's part in a trace (W3C Trace Context): its ids, and what is told of it at its end.

All of it is plain values, so that it moves to another worker together with the request's stream.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

from cache.endpoints import Endpoint
from proxy.call import Call

#: The header fields of a trace, in lower case.
TRACE_FIELDS: Final = ("traceparent", "tracestate")
#: The flag that says that somebody writes this trace down.
SAMPLED: Final = 0x01
#: The flags whose meaning is known; the second says that the trace's id is random.
_KNOWN_FLAGS: Final = 0x03
_MOST_MEMBERS: Final = 32

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY_REST = r"[a-z0-9_*/-]"
_KEY = rf"(?:[a-z]{_KEY_REST}{{0,255}}|[a-z0-9]{_KEY_REST}{{0,240}}@[a-z]{_KEY_REST}{{0,13}})"
_MEMBER = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")


class TraceParent(NamedTuple):
    """A span as `traceparent` names it: ids in lower-case hex, and the flags that are known."""

    trace_id: str
    span_id: str
    flags: int

    def header(self) -> str:
        """The field's value, in the version of the format that is spoken here."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def traceparent_of(text: str | None) -> TraceParent | None:
    """The span that a `traceparent` names; None if it is not valid (Trace Context §3.2).

    Of a version to come only what the first one has is read.
    """
    found = _TRACEPARENT.fullmatch(text) if text else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceParent(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS)


def tracestate_of(text: str | None) -> str:
    """A `tracestate` that may be sent on; empty if it is not valid (Trace Context §3.3)."""
    members = [member for part in (text or "").split(",") if (member := part.strip(" \t"))]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in found if match}
    return ",".join(members) if len(keys) == len(members) <= _MOST_MEMBERS else ""


def new_id(bits: int) -> str:
    """A random id in hex, which is never all zeros: that would be none."""
    return f"{random.getrandbits(bits) or 1:0{bits // 4}x}"


@dataclass(slots=True)
class Attempt:
    """One attempt at an endpoint. Times are monotonic seconds.

    `status` is that of its answer, `failure` the kind of failure there was instead. `ended` is None
    while neither has come.
    """

    span_id: str
    began: float
    address: str
    port: int
    pod: str | None
    ended: float | None = None
    status: int | None = None
    failure: str = ""


@dataclass(slots=True)
class Story:
    """What is told of a request: its span's ids, and what was known of it before its end.

    `parent` is the span that asked for it, None where the trace begins here. `began` is monotonic,
    `wall` the same moment in nanoseconds since 1970.
    """

    span: TraceParent
    parent: TraceParent | None
    state: str
    name: str
    attributes: dict[str, str | int | float]
    began: float
    wall: int
    attempts: list[Attempt] = field(default_factory=list)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Story":
        """What `asdict` made plain values of, after a journey as JSON."""
        given = dict(facts)
        given["span"] = TraceParent(*facts["span"])
        given["parent"] = TraceParent(*facts["parent"]) if facts["parent"] else None
        given["attempts"] = [Attempt(**attempt) for attempt in facts["attempts"]]
        return cls(**given)

    def nanoseconds(self, at: float) -> int:
        """The monotonic time `at` in nanoseconds since 1970, whatever that clock is set to."""
        return self.wall + round((at - self.began) * 1e9)


#: Tells a story: when it ended, and when the answer's first byte came (both monotonic seconds), and
#: what the log line says of it.
Tell = Callable[[Story, float, float | None, Mapping[str, object]], None]


class Trace:
    """A request's part in a trace. This one takes none: what came passes on as it is.

    `trace_id` is in lower-case hex, empty where there is none.
    """

    def __init__(self, trace_id: str = "") -> None:
        self.trace_id = trace_id

    def attempt(self, endpoint: Endpoint) -> dict[str, str]:
        """An attempt begins; returns the header fields that it is sent with."""
        return {}

    def attempted(self, *, status: int | None = None, failure: str = "") -> None:
        """The attempt got an answer of `status`, or ended in a failure of that kind."""

    def ended(self, at: float, first_byte: float | None, facts: Mapping[str, object]) -> None:
        """The request is over, at monotonic time `at`; `facts` are what the log says of it."""

    def facts(self) -> dict[str, Any] | None:
        """What `Tracing.resumed` makes the same of in another worker."""
        return None


UNTRACED: Final = Trace()


class Recording(Trace):
    """A part that is told to `tell` at its end, unless its trace is not sampled."""

    def __init__(self, story: Story, tell: Tell, clock: Callable[[], float]) -> None:
        super().__init__(story.span.trace_id)
        self._story = story
        self._tell = tell
        self._clock = clock

    def attempt(self, endpoint: Endpoint) -> dict[str, str]:
        """An attempt begins; its own span is the endpoint's parent."""
        story = self._story
        span_id = new_id(64)
        story.attempts.append(
            Attempt(span_id, self._clock(), endpoint.address, endpoint.port, endpoint.pod)
        )
        fields = {"traceparent": story.span._replace(span_id=span_id).header()}
        if story.state:
            fields["tracestate"] = story.state
        return fields

    def attempted(self, *, status: int | None = None, failure: str = "") -> None:
        """The attempt got an answer of `status`, or ended in a failure of that kind."""
        last = self._story.attempts[-1]
        last.ended, last.status, last.failure = self._clock(), status, failure

    def ended(self, at: float, first_byte: float | None, facts: Mapping[str, object]) -> None:
        """The request is over."""
        if self._story.span.flags & SAMPLED:
            self._tell(self._story, at, first_byte, facts)

    def facts(self) -> dict[str, Any] | None:
        """The story so far."""
        return asdict(self._story) if self._story.span.flags & SAMPLED else None


class Tracing:
    """Begins a request's part in a trace. This one takes none in any.

    `fields` names the header fields, in lower case, that are replaced by our own.
    """

    fields: tuple[str, ...] = ()

    def begin(self, call: Call) -> Trace:
        """The part that a request has which has just arrived."""
        given = call.fields.get("Traceparent")
        if given is None:
            return UNTRACED
        parent = traceparent_of(given)
        return Trace(parent.trace_id) if parent else UNTRACED

    def resumed(self, facts: dict[str, Any] | None) -> Trace:
        """The part that another worker began; `facts` are what `Trace.facts` gave there."""
        return UNTRACED

    def start(self) -> None:
        """Start what runs in the background."""

    def stop(self) -> None:
        """Tell what is still to be told, as far as somebody listens, and stop."""


OFF: Final = Tracing()
