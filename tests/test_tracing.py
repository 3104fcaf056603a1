"""A request's part in a trace: what of a client's is believed, and what goes on to endpoints."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache.endpoints import Endpoint
from proxy.call import Call
from proxy.trace import (
    OFF,
    UNTRACED,
    Recording,
    Story,
    TraceParent,
    new_id,
    traceparent_of,
    tracestate_of,
)
from tests.fakes import Clock

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"
ENDPOINT = Endpoint("10.0.0.1", 8000, pod="pod-1")


def call(**fields: str) -> Call:
    return Call("POST", "/v1/completions", "/v1/completions", fields, "http", "", None, True)  # type: ignore[arg-type]


def test_a_valid_traceparent_is_read() -> None:
    assert traceparent_of(VALID) == TraceParent(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-011",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f" {VALID}",
        f"{VALID}\n",
        f"{VALID},{VALID}",
        f"00-{TRACE[:-1]}\u0664-{SPAN}-01",
    ],
)
def test_what_the_specification_does_not_allow_is_no_traceparent(text: str) -> None:
    assert traceparent_of(text) is None


@pytest.mark.parametrize("rest", ["", "-", "-what-will-be"])
def test_of_a_version_to_come_what_is_known_is_read(rest: str) -> None:
    assert traceparent_of(f"01-{TRACE}-{SPAN}-01{rest}") == TraceParent(TRACE, SPAN, 1)
    assert traceparent_of(f"01-{TRACE}-{SPAN}-01.{rest}") is None


def test_flags_nobody_knows_yet_are_not_sent_on() -> None:
    found = traceparent_of(f"00-{TRACE}-{SPAN}-ff")
    assert found is not None
    assert found.header() == f"00-{TRACE}-{SPAN}-03"


_HEX = st.text("0123456789abcdef", min_size=1, max_size=33)
_NEARLY = st.lists(_HEX | st.sampled_from(["00", "01", TRACE, SPAN, "ff"]), max_size=6).map(
    "-".join
)


@given(st.text() | _NEARLY | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.?"))
@example(f"00-{TRACE}-{SPAN}-00")
def test_garbage_never_passes_as_a_traceparent(text: str) -> None:
    found = traceparent_of(text)
    if found is None:
        return
    version, trace_id, span_id, flags, *rest = text.split("-")
    assert (found.trace_id, found.span_id) == (trace_id, span_id)
    assert re.fullmatch("[0-9a-f]{2}", version)
    assert version != "ff"
    assert version != "00" or not rest
    assert (len(trace_id), len(span_id), len(flags)) == (32, 16, 2)
    assert int(trace_id, 16)
    assert int(span_id, 16)
    assert set(found.header()) <= set("0123456789abcdef-")
    assert traceparent_of(found.header()) == found


@pytest.mark.parametrize(
    ("text", "sent_on"),
    [
        ("", ""),
        ("congo=t61rcWkgMzE", "congo=t61rcWkgMzE"),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("a=1 ,\tb=2,,c=3", "a=1,b=2,c=3"),
        ("fw529a3039@dt=FfAAAA", "fw529a3039@dt=FfAAAA"),
        ("a=with space", "a=with space"),
        ("a", ""),
        ("a=", ""),
        ("=a", ""),
        ("A=1", ""),
        ("1=1", ""),
        ("a=1=2", ""),
        ("a=1,a=2", ""),
        ("a=\u00fc", ""),
        ("a=1\r\nX-Evil: 1", ""),
        (f"{'a' * 257}=1", ""),
        (f"a={'1' * 257}", ""),
        (",".join(f"k{number}=v" for number in range(33)), ""),
    ],
)
def test_a_tracestate_is_sent_on_if_it_is_valid(text: str, sent_on: str) -> None:
    assert tracestate_of(text) == sent_on


@given(st.text() | st.text("ab=, @*/_-1\t"))
def test_garbage_never_passes_as_a_tracestate(text: str) -> None:
    found = tracestate_of(text)
    assert found.isascii()
    assert found.isprintable()
    assert tracestate_of(found) == found
    members = [member.partition("=") for member in found.split(",") if member]
    assert len({key for key, _, _ in members}) == len(members) <= 32
    assert all(key and value and "=" not in value for key, _, value in members)


@given(st.sampled_from([64, 128]))
def test_new_ids_are_valid(bits: int) -> None:
    an_id = new_id(bits)
    assert re.fullmatch(f"[0-9a-f]{{{bits // 4}}}", an_id)
    assert int(an_id, 16)


# --- Without OpenTelemetry ----------------------------------------------------------------------


def test_without_tracing_only_the_trace_s_id_is_known() -> None:
    trace = OFF.begin(call(Traceparent=VALID))
    assert trace.trace_id == TRACE
    assert trace.attempt(ENDPOINT) == {}
    trace.attempted(status=200)
    trace.ended(1.0, None, {})
    assert trace.facts() is None
    assert OFF.fields == ()


@pytest.mark.parametrize("fields", [{}, {"Traceparent": "nonsense"}, {"Traceparent": ""}])
def test_without_a_valid_traceparent_there_is_no_id(fields: dict[str, str]) -> None:
    assert OFF.begin(call(**fields)).trace_id == ""


def test_what_another_worker_traced_is_not_traced_where_that_is_off() -> None:
    assert OFF.resumed({"span": "whatever"}) is UNTRACED


# --- A part that is told ------------------------------------------------------------------------


Told = list[tuple[Story, float, float | None, Any]]


def recording(clock: Clock, told: Told, *, flags: int = 1, state: str = "") -> Recording:
    story = Story(
        TraceParent(TRACE, SPAN, flags), None, state, "POST /x", {"a": 1}, clock.now, 5_000_000_000
    )
    return Recording(story, lambda *all_of_it: told.append(all_of_it), clock)


def test_each_attempt_is_sent_with_a_span_of_its_own() -> None:
    told: Told = []
    part = recording(Clock(), told, state="a=1")
    first, second = part.attempt(ENDPOINT), part.attempt(ENDPOINT)
    parents = [traceparent_of(fields["traceparent"]) for fields in (first, second)]
    assert [parent and parent.trace_id for parent in parents] == [TRACE, TRACE]
    assert len({SPAN, *(parent.span_id for parent in parents if parent)}) == 3
    assert first["tracestate"] == second["tracestate"] == "a=1"
    part.ended(2.0, 1.0, {})
    ((story, ended, first_byte, _),) = told
    assert [parent and parent.span_id for parent in parents] == [a.span_id for a in story.attempts]
    assert (ended, first_byte) == (2.0, 1.0)


def test_a_trace_that_is_not_sampled_is_told_nobody_and_says_so_to_endpoints() -> None:
    told: Told = []
    part = recording(Clock(), told, flags=0)
    fields = part.attempt(ENDPOINT)
    part.attempted(status=200)
    part.ended(1.0, None, {})
    assert told == []
    assert part.facts() is None
    assert list(fields) == ["traceparent"]
    assert fields["traceparent"].endswith("-00")
    assert fields["traceparent"].startswith(f"00-{TRACE}-")


def test_what_became_of_an_attempt_and_when_is_kept() -> None:
    told: Told = []
    clock = Clock()
    part = recording(clock, told)
    start = clock.now
    part.attempt(ENDPOINT)
    clock.now += 1
    part.attempted(failure="refused")
    part.attempt(ENDPOINT)
    clock.now += 2
    part.attempted(status=503)
    part.attempt(ENDPOINT)
    part.ended(clock.now, None, {})
    attempts = told[0][0].attempts
    assert [(a.failure, a.status) for a in attempts] == [("refused", None), ("", 503), ("", None)]
    assert [(a.began - start, a.ended and a.ended - start) for a in attempts] == [
        (0, 1),
        (1, 3),
        (3, None),
    ]


def test_a_story_is_the_same_after_a_journey() -> None:
    told: Told = []
    clock = Clock()
    part = recording(clock, told, state="a=1")
    part.attempt(ENDPOINT)
    part.attempted(status=200)
    arrived = Story.of(json.loads(json.dumps(part.facts())))
    part.ended(1.0, None, {})
    assert arrived == told[0][0]
    assert arrived.span.header() == VALID


def test_times_are_the_wall_s_as_far_from_the_beginning_as_the_monotonic_ones() -> None:
    story = Story(TraceParent(TRACE, SPAN, 1), None, "", "", {}, 100.0, 5_000_000_000)
    assert story.nanoseconds(100.0) == 5_000_000_000
    assert story.nanoseconds(101.25) == 6_250_000_000
