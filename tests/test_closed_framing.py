"""Bodies that end with their connection: an event stream tells itself whether it is whole."""

import pytest

from relay.bodies import ClosedBody, Truncated
from tests.test_framing import check, outcome

DATA = b'data: {"choices":[]}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def event_stream() -> ClosedBody:
    return ClosedBody(event_stream=True)


@pytest.mark.parametrize("data", [b"", b"{}", b"data: no event stream\n\n"])
def test_other_bodies_end_where_the_connection_does(data: bytes) -> None:
    check(lambda: ClosedBody(event_stream=False), data, (data, "closed"))


@pytest.mark.parametrize(
    "data",
    [
        DATA + b"data: [DONE]\n\n",
        DATA + b"data:[DONE]\n\n",
        DATA + b"data: [DONE]\r\n\r\n",
        DATA + b"data: [DONE]\n",
        DATA + b"data: [DONE]",
        b"data: [DONE]\n\n",
        DATA + b"data: [DONE]\n\n: goodbye\n\n",
        DATA + b"data: " + b"x" * 5000 + b"\n\ndata: [DONE]\n\n",
        DATA + STOP,
        DATA + STOP.replace(b"\n", b"\r\n"),
        DATA + b"event:message_stop\ndata:{}\n\n",
        DATA + b"event: message_stop\n\n",
        DATA + b'event: response.completed\ndata: {"text":"' + b"x" * 300 + b'"}\n\n',
        DATA + b"event: response.incomplete\ndata: {}\n\n",
        DATA + b"event: response.failed\ndata: {}\n\n",
        DATA + b'event: error\ndata: {"type":"error"}\n\n',
    ],
)
def test_an_event_stream_with_its_last_event_is_whole(data: bytes) -> None:
    check(event_stream, data, (data, "closed"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        DATA,
        DATA[:-1],
        DATA + b"data: [DON",
        DATA + b"data: [DONE",
        DATA + b'data: {"content":"data: [DONE]"}\n\n',
        DATA + b"data: " + b"x" * 100 + b"data: [DONE]\n\n",
        DATA + b": data: [DONE]\n\n",
        DATA + b"xdata: [DONE]\n\n",
        DATA + b"event: message_stop",
        DATA + b"event: message_stop\n",
        DATA + b'event: message_stop\ndata: {"type":',
        DATA + b"event: message_stop\ndata: {}\n",
        DATA + b"event: message_stopped\ndata: {}\n\n",
        DATA + b"event: message_start\ndata: {}\n\n",
        DATA + b"event: response.completed\ndata: " + b"x" * 300,
        DATA + b"event: response.created\ndata: {}\n\n",
        DATA + b"event: response.output_text.done\ndata: {}\n\n",
        DATA + b"event: errors\ndata: {}\n\n",
    ],
)
def test_an_event_stream_without_it_is_truncated(data: bytes) -> None:
    check(event_stream, data, (data, "truncated"))


def test_a_connection_that_was_closed_is_not_used_again() -> None:
    body = ClosedBody(event_stream=False)
    assert outcome(body, b"x") == (b"x", "closed")
    assert body.complete
    assert not body.reusable


def test_a_truncated_body_is_not_complete() -> None:
    body = event_stream()
    body.feed(DATA)
    with pytest.raises(Truncated):
        body.end()
    assert not body.complete


def test_long_lines_are_not_kept() -> None:
    body = event_stream()
    for _ in range(100):
        assert body.feed(b"x" * 100_000)
    assert len(body._seen) <= 64
