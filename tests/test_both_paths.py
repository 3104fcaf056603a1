"""The relay and the plain path do the same with whatever an endpoint sends, however it is split."""

import fcntl
import socket
import struct
import termios
import threading
import time
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.endpoints import Endpoint
from proxy.body import AnswerBody, AnswerBroken
from proxy.caller import Caller
from proxy.connection import Connection
from proxy.drain import Drain
from proxy.forwarder import Answer
from proxy.framing import parse_head
from proxy.places import Place, Places
from proxy.pool import ConnectionPool
from proxy.record import RequestRecord
from proxy.relayed import last_events, order_of
from proxy.steps import carry_out
from proxy.stream import Stream
from proxy.transport import Reply
from relay.stream import Stream as RelayedStream
from routing.inflight import InFlight
from tests.harness import wait_for
from tests.wire import in_chunks, unchunked

CHUNKED = "Transfer-Encoding: chunked"
EVENTS = "Content-Type: text/event-stream"
ENOUGH = 1000.0


@dataclass(frozen=True)
class Seen:
    """What a client sees of a body."""

    content: bytes
    complete: bool


class Sender:
    """An endpoint that sends a body in pieces, each only when the former has been taken."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        self.connection = carry_out(Connection.open(Endpoint(host, port), 5.0))
        self._socket, _ = self._listener.accept()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, piece: bytes) -> None:
        self._socket.sendall(piece)

    def finish(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def taken(self) -> bool:
        unread = fcntl.ioctl(self.connection.socket, termios.FIONREAD, struct.pack("i", 0))
        return bool(struct.unpack("i", unread)[0] == 0)

    def close(self) -> None:
        for one in (self._listener, self._socket, self.connection.socket):
            one.close()


def answer_of(fields: list[str], connection: Connection, received: bytes) -> Answer:
    head = parse_head("\r\n".join(["HTTP/1.1 200 OK", *fields]).encode())
    lease = InFlight().count(Endpoint("127.0.0.1", 1))
    pool = ConnectionPool(time.monotonic, per_endpoint=0)
    return Answer(Reply(head, Stream(connection, pool, head, received, ENOUGH)), lease, 1)


def by_the_plain_path(fields: list[str], pieces: list[bytes], received: bytes = b"") -> Seen:
    """What `AnswerBody` yields, as a server would pass it on; `received` came with the head."""
    sender = Sender()
    answer = answer_of(fields, sender.connection, received)
    record = RequestRecord("id", "POST", "/", time.monotonic)
    drain = Drain(ENOUGH, lambda: None)
    body = AnswerBody(answer, record, drain, Place(Places(1)), None, Caller())
    contents: list[bytes] = []
    broken: list[bool] = []

    def read() -> None:
        try:
            contents.extend(body)
        except AnswerBroken:
            broken.append(True)

    if len(pieces) <= 1:  # nothing has to be waited for
        sender.send(b"".join(pieces))
        sender.finish()
        read()
    else:
        reader = threading.Thread(target=read)
        reader.start()
        for piece in pieces:
            sender.send(piece)
            wait_for(lambda: sender.taken() or not reader.is_alive(), "the piece is taken")
        sender.finish()
        reader.join()
    body.close()
    sender.close()
    return Seen(b"".join(contents), not broken)


def by_the_relay(fields: list[str], pieces: list[bytes], received: bytes = b"") -> Seen:
    """What a client gets of the relay's stream; `received` came with the head."""
    sender = Sender()
    answer = answer_of(fields, sender.connection, received)
    order = order_of(answer, {})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    sender.connection.socket.setblocking(False)
    near.setblocking(False)
    stream = RelayedStream(order, near, sender.connection.socket, last_events(), 0.0)
    stream.begin(b"", received, 0.0)
    for piece in pieces:
        sender.send(piece)
        wait_for(lambda: pulled(stream, sender), "the piece is taken")
    sender.finish()
    wait_for(lambda: pull(stream), "the stream is over")
    near.close()
    raw = b"".join(iter(lambda: client.recv(65_536), b""))
    client.close()
    sender.close()
    outcome = stream.outcome
    if order.framing == "length":
        seen = Seen(raw, len(raw) == order.length)
    else:
        seen = Seen(*unchunked(raw))
    assert seen.complete == (outcome == "complete")
    return seen


def pull(stream: RelayedStream) -> bool:
    if stream.outcome is None:
        stream.pull(0.0)
    return stream.outcome is not None


def pulled(stream: RelayedStream, sender: Sender) -> bool:
    return pull(stream) or sender.taken()


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut for cut in cuts if 0 < cut < len(body)})
    return [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True) if a < b]


EVENT_BODY = [b'data: {"a": 1}\n\n', b"data: x\n", b"\n", b"data: [DONE]\n\n"]
GOOD = in_chunks(*EVENT_BODY)
BODIES = [
    ([CHUNKED, EVENTS], GOOD),
    ([CHUNKED, EVENTS], GOOD[:-5]),
    ([CHUNKED, EVENTS], GOOD[:-7]),
    ([CHUNKED, EVENTS], GOOD + b"more"),
    ([CHUNKED, EVENTS], in_chunks(b"data: 1\n\n", end=False) + b"zz\r\n"),
    ([CHUNKED, EVENTS], b"8;ext=1\r\ndata: 1\n\r\n0\r\nTrailer: 1\r\n\r\n"),
    ([CHUNKED, EVENTS], b"3\r\nabcd\r\n0\r\n\r\n"),
    ([CHUNKED, EVENTS], b"3\nabc\n0\n\n"),
    ([CHUNKED, EVENTS], b"+3\r\nabc\r\n0\r\n\r\n"),
    ([CHUNKED, EVENTS], b"0x3\r\nabc\r\n0\r\n\r\n"),
    ([CHUNKED, "Content-Type: application/json"], in_chunks(b'{"a"', b": 1}")),
    ([CHUNKED, "Content-Type: application/json"], in_chunks(b'{"a"', b": 1}", end=False)),
    ([CHUNKED, EVENTS, "Content-Encoding: gzip"], in_chunks(b"\x1f\x8b", end=False)),
    ([EVENTS], b"".join(EVENT_BODY)),
    ([EVENTS], b"".join(EVENT_BODY[:2])),
    (["Content-Type: audio/wav"], b"RIFF" * 5),
    (["Content-Length: 10"], b"0123456789"),
    (["Content-Length: 10"], b"01234"),
    (["Content-Length: 10"], b"0123456789abc"),
    (["Content-Length: 10", EVENTS], b"data:"),
]


@pytest.mark.parametrize(("fields", "body"), BODIES)
def test_both_paths_show_the_same_of_a_body_that_comes_at_once(
    fields: list[str], body: bytes
) -> None:
    assert by_the_relay(fields, [body]) == by_the_plain_path(fields, [body])


@pytest.mark.parametrize(("fields", "body"), BODIES)
def test_both_paths_show_the_same_wherever_a_body_is_split(fields: list[str], body: bytes) -> None:
    whole = by_the_relay(fields, [body])
    for place in range(1, len(body)):
        pieces = split(body, [place])
        assert by_the_relay(fields, pieces) == whole, pieces
        assert by_the_plain_path(fields, pieces) == whole, pieces


@pytest.mark.parametrize(("fields", "body"), BODIES)
def test_both_paths_show_the_same_however_much_of_a_body_comes_with_its_head(
    fields: list[str], body: bytes
) -> None:
    whole = by_the_relay(fields, [body])
    for place in range(1, len(body) + 1):
        received, rest = body[:place], [body[place:]]
        assert by_the_relay(fields, rest, received) == whole, received
        assert by_the_plain_path(fields, rest, received) == whole, received


LINES = st.sampled_from([b"data: 1\n", b"data: [DONE]\n", b"event: error\n", b"\n", b"\r\n", b"da"])


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[str], bytes]:
    """Bodies of every framing, whole or not, some of them damaged."""
    kind = draw(st.sampled_from([EVENTS, "Content-Type: application/json"]))
    if draw(st.booleans()):
        body = in_chunks(*draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5)))
        if draw(st.booleans()):
            place, put = draw(st.integers(0, 200)), draw(st.binary(max_size=3))
            body = body[:place] + put + body[place + 1 :]
        return [CHUNKED, kind], body
    body = b"".join(draw(st.lists(LINES, max_size=8)))
    if draw(st.booleans()):
        return [kind], body
    length = max(0, len(body) + draw(st.sampled_from([0, 0, -1, -5, 1])))
    return [f"Content-Length: {length}", kind], body


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(answer=answers(), cuts=st.lists(st.integers(1, 200), max_size=6), with_head=st.booleans())
def test_both_paths_show_the_same_of_any_body(
    answer: tuple[list[str], bytes], cuts: list[int], with_head: bool
) -> None:
    fields, body = answer
    pieces = split(body, cuts)
    received = pieces.pop(0) if with_head and pieces else b""
    assert by_the_relay(fields, pieces, received) == by_the_plain_path(fields, pieces, received)
