"""Careless proxies are caught, by each kind of carelessness; a careful one is not accused."""

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import pytest
from gunicorn.http.errors import ParseException

from proxy.arrival import Arrival
from proxy.errors import GatewayError
from tests.mutations import mutations
from tests.recorder import Recorder
from tests.smuggler import Verdict, attack_all, judge
from tests.strict_http import End, read_strictly
from tests.test_arrival import arrival, body_of, pieces
from tests.wire import Wire, in_chunks, post

#: A proxy's view of what a client sends: the bytes that it sends on, and whether it refuses a rest.
View = Callable[[bytes], tuple[bytes, bool]]
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class CarelessProxy:
    """Forwards what comes with one segment as its `view` says, and closes; a context manager."""

    def __init__(self, upstream: int, view: View) -> None:
        self._upstream = upstream
        self._view = view
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            with client, suppress(OSError):  # it may have left
                forwarded, refused = self._view(client.recv(1 << 20))
                client.sendall(self._exchange(forwarded) + _REFUSAL * refused)

    def _exchange(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._upstream)) as upstream:
            upstream.sendall(data)
            upstream.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: upstream.recv(65_536), b""))


def framed(target: bytes, body: bytes, method: bytes = b"POST") -> bytes:
    fields = b"Host: pod\r\nContent-Length: %d\r\n\r\n" % len(body)
    return method + b" " + target + b" HTTP/1.1\r\n" + fields + body


def carefully(data: bytes) -> tuple[bytes, bool]:
    reading = read_strictly(data)
    forwarded = [framed(r.origin.encode(), r.body, r.method.encode()) for r in reading.requests]
    return b"".join(forwarded), reading.end in (End.INVALID, End.INCOMPLETE)


def verbatim(data: bytes) -> tuple[bytes, bool]:
    return data, False


def _each(data: bytes, body_of: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> bytes:
    """All that looks like a request, its body as `body_of` takes it from what follows its head."""
    forwarded = b""
    while found := re.match(rb"\s*[A-Z]+\s+(/\S*)[^\n]*\n(.*?\n)??\r?\n", data, re.DOTALL):
        body, data = body_of(found[0], data[found.end() :])
        forwarded += framed(found[1], body)
    return forwarded


def _by_length(head: bytes, rest: bytes) -> tuple[bytes, bytes]:
    lengths = re.findall(rb"content.length\s*[:=]\s*\+?([0-9]+)", head, re.IGNORECASE)
    size = int(lengths[-1]) if lengths and len(lengths[-1]) < 9 else 0
    return rest[:size], rest[size:]


def _by_coding(head: bytes, rest: bytes) -> tuple[bytes, bytes]:
    if b"chunked" not in head.lower():
        return _by_length(head, rest)
    body, size = b"", -1
    with suppress(ValueError):  # a size that is none ends it
        while size and rest:
            line, _, rest = rest.partition(b"\n")
            size = abs(int(line.partition(b";")[0] or b"0", 16))
            body, rest = body + rest[:size], rest[size:].lstrip(b"\r\n")
    return body, rest


def by_length(data: bytes) -> tuple[bytes, bool]:
    """As if there were no codings."""
    return _each(data, _by_length), False


def by_coding(data: bytes) -> tuple[bytes, bool]:
    """As if whatever holds the word were chunked, and any line a line."""
    return _each(data, _by_coding), False


def without_bodies(data: bytes) -> tuple[bytes, bool]:
    return _each(data, lambda _, rest: (b"", rest)), False


def verdict_on(view: View) -> tuple[Verdict, Counter[str]]:
    """The verdict on a proxy, and how often it was caught, by the family."""
    with Recorder() as recorder, CarelessProxy(recorder.port, view) as proxy:
        attacks = attack_all(lambda: Wire(proxy.port), mutations()[::13])
        verdict = judge(recorder, attacks)
    return verdict, Counter(attack.mutation.family for attack in attacks if attack.faults)


@pytest.mark.parametrize(
    ("view", "families"),
    [
        (verbatim, {"CL.TE", "TE.CL", "TE.TE", "chunk sizes", "line ends"}),
        (by_length, {"CL.TE", "TE.CL", "TE.0", "TE.TE", "CL.0", "0.CL", "versions", "asides"}),
        (by_coding, {"CL.TE", "TE.CL", "TE.0", "TE.TE", "chunk sizes", "chunk extensions"}),
        (without_bodies, {"CL.0", "0.CL", "TE.0", "asides", "versions"}),
    ],
)
def test_a_careless_proxy_is_caught(view: View, families: set[str]) -> None:
    verdict, caught = verdict_on(view)
    assert verdict.faults
    assert caught.keys() >= families
    assert view is verbatim or verdict.extra > 10


def test_a_careful_proxy_is_not_accused() -> None:
    verdict, _ = verdict_on(carefully)
    assert verdict.faults == []
    assert len(verdict.forwarded) > 30


def test_the_mutations_are_distinct_and_each_hides_a_request_of_its_own() -> None:
    some = mutations()
    assert some == mutations()
    assert len({mutation.raw for mutation in some}) == len(some) >= 2500
    for mutation in some:
        assert b"POST /v1/completions?hidden=%04d HTTP/1.1\r\n" % mutation.number in mutation.raw


def taken(one: Arrival, parts: list[bytes]) -> list[tuple[str, bytes]]:
    """Targets and bodies of the requests that are taken from the parts, until one is refused."""
    found: list[tuple[str, bytes]] = []
    with suppress(ParseException, GatewayError):
        for part in parts:
            incoming = one.feed(part)
            while incoming is not None:
                found.append((incoming.request.uri, body_of(incoming)))
                if not incoming.whole:
                    return found
                incoming = one.feed(b"") if one.held else None
    return found


@pytest.mark.fault(26)
@pytest.mark.parametrize("size", [7, 61, 1_000_000])
def test_however_it_is_cut_no_request_is_taken_that_a_strict_reader_does_not_see(size: int) -> None:
    taken_in_all = 0
    for mutation in mutations():
        reading = read_strictly(mutation.raw)
        sent = [(request.target, request.body) for request in reading.requests]
        found = taken(arrival(), pieces(mutation.raw, size))
        if reading.end is End.CLOSED:  # to close the connection is left to the worker
            found = found[: len(sent)]
        assert found == sent[: len(found)], mutation
        taken_in_all += len(found)
    assert taken_in_all > 500


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("raw", "bodies", "end"),
    [
        (post(b"a", close=False), [b"a"], End.CLEAN),
        (post(b"a", close=False) + b"\r\n" + post(b"b", close=False), [b"a", b"b"], End.CLEAN),
        (post(b"a") + post(b"b"), [b"a"], End.CLOSED),
        (post(b"a", version="1.0", close=False), [b"a"], End.CLOSED),
        (post(in_chunks(b"a", b"b"), CHUNKED, close=False), [b"ab"], End.CLEAN),
        (post(b'1 ; a="b";c\r\nx\r\n0\r\nA: b\r\n\r\n', CHUNKED, close=False), [b"x"], End.CLEAN),
        (post(b"a")[:-1], [], End.INCOMPLETE),
        (post(in_chunks(b"a", end=False), CHUNKED), [], End.INCOMPLETE),
        (post(b"a", close=False) + b"x", [b"a"], End.INCOMPLETE),
        (post(b"a", close=False) + b"x\r\n\r\n", [b"a"], End.INVALID),
        (post(b"a", "Content-Length: 1", "Content-Length: 1"), [], End.INVALID),
        (post(b"a", "Content-Length: +1"), [], End.INVALID),
        (post(b"a", "Content-Length: 1", CHUNKED), [], End.INVALID),
        (post(in_chunks(), "Transfer-Encoding: gzip, chunked"), [], End.INVALID),
        (post(in_chunks(), CHUNKED, version="1.0"), [], End.INVALID),
        (post(b"1 \r\nx\r\n0\r\n\r\n", CHUNKED), [], End.INVALID),
        (post(b"1;\nx\r\n0\r\n\r\n", CHUNKED), [], End.INVALID),
        (post(b"1\r\nxy\r\n0\r\n\r\n", CHUNKED), [], End.INVALID),
        (post(b"0\r\nContent-Length: 1\r\n\r\n", CHUNKED), [], End.INVALID),
        (post(b"", "X : y"), [], End.INVALID),
        (post(b"", "X: a\r\n b"), [], End.INVALID),
        (post(b"", "Host: a", "Host: a"), [], End.INVALID),
        (post(b"", version="2.0"), [], End.INVALID),
    ],
)
def test_a_strict_reader_sees_what_is_beyond_doubt(
    raw: bytes, bodies: list[bytes], end: End
) -> None:
    reading = read_strictly(raw)
    assert ([request.body for request in reading.requests], reading.end) == (bodies, end)
