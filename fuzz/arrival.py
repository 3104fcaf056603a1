"""Requests as they arrive: the same however they are cut, and nothing more reaches an endpoint."""

import re
from dataclasses import dataclass
from typing import Any, Final

from gunicorn.config import Config
from gunicorn.http.errors import ParseException

from fuzz.promises import cut, expect, pieces
from proxy.arrival import Arrival, Incoming
from proxy.call import joined
from proxy.errors import GatewayError
from proxy.headers import HOP_BY_HOP, for_upstream

#: More than an input has, so that no limit is met.
_MOST_BODY: Final = 1 << 24
_ADDRESS: Final = ("192.0.2.1", 50_000)
_LINE: Final = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([^\r\n\0]*)")
_NEVER_SENT: Final = HOP_BY_HOP | {"expect", "forwarded", "x-real-ip"}
_OWN: Final = {
    "Host": "10.0.0.1:8000",
    "X-Request-Id": "an-id",
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "gateway.test",
    "Content-Length": "0",
}

_POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_SEEDS = (
    _POST + b"Content-Length: 2\r\n\r\n{}",
    _POST + b"Content-Length: 2\r\n\r\n{}" + _POST + b"Content-Length: 3\r\n\r\n[1]",
    _POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{}",
    _CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
    _CHUNKED + b"01 ; x=y\r\n{\r\n1\r\n}\r\n0\r\nX-Sum: 1\r\n\r\n" + _POST + b"\r\n",
    _POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    _POST + b"Connection: close, x-hop\r\nX-Hop: 1\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    _POST + b"X-Latin: \xfc\xff\x80\r\nCookie: a=b\r\nCookie: c=d\r\nX_Under: 1\r\n\r\n",
    b"GET http://a/v1/models?x=%0d%0a HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
    b"\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\nX: a\r\n b\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)

#: What means something in a request.
WORDS: Final = (
    *(b"POST / HTTP/1.1\r\n", b"GET ", b" HTTP/1.0\r\n", b"Host: a\r\n", b"Content-Length: "),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: ", b"close"),
    *(
        b"X-Forwarded-For: ",
        b"Upgrade: ",
        b", ",
        b"\r\n\r\n",
        b"\r\n",
        b"0\r\n\r\n",
        b"2\r\n{}\r\n",
    ),
    *(b"http://a", b"?", b"#", b"%0d%0a", b';a="b"', b"X-Hop", b"Trailer: "),
)


def _config() -> Any:
    """The server's, as far as it says how requests are read."""
    made = Config()
    made.set("http_parser", "python")
    made.set("forwarded_allow_ips", "")
    return made


_CONFIG = _config()


@dataclass(frozen=True)
class Seen:
    """A request as the gateway understood it; `body` is None if it was refused."""

    method: str
    uri: str
    fields: tuple[tuple[str, str], ...]
    body: bytes | None


@dataclass(frozen=True)
class Reading:
    """What was made of a connection's bytes: the requests, and how it goes on after them."""

    requests: list[Seen]
    end: str  # "waits", "closes" or "refused"


def seeds() -> list[bytes]:
    """Where a search begins; the first byte says how the rest is cut."""
    return [bytes([size]) + seed for seed in _SEEDS for size in (2, 16)]


def check(data: bytes) -> None:
    """Check what a client sends on one connection; raises `Broken`."""
    size, wire = cut(data)
    at_once = reading([wire])
    for parts in (pieces(wire, size), pieces(wire, 1)):
        in_parts = reading(parts)
        pairs = zip(at_once.requests, in_parts.requests, strict=False)
        for one, other in pairs:
            expect(one == other, "cuts change no request", parts, one, other)
        # Bytes behind a chunked body end the connection if they are there with it.
        if at_once.end != "closes":
            expect(at_once == in_parts, "cuts change nothing", parts, at_once, in_parts)
        else:
            expect(len(in_parts.requests) >= len(at_once.requests), "none is lost", parts)
    for seen in at_once.requests:
        check_passed_on(seen)


def reading(parts: list[bytes]) -> Reading:
    """Feed a connection's bytes, as the server does, until it would close."""
    arrival = Arrival(_CONFIG, _ADDRESS, _MOST_BODY, lambda *_: True)
    requests: list[Seen] = []
    for part in parts:
        given = part
        while True:
            try:
                incoming = arrival.feed(given)
            except (ParseException, GatewayError):
                return Reading(requests, "refused")
            if incoming is None:
                break
            seen = _seen(incoming)
            requests.append(seen)
            if seen.body is None or not incoming.whole or incoming.request.should_close():
                return Reading(requests, "closes")
            if not arrival.held:
                break
            given = b""  # the next one may be there already
    return Reading(requests, "waits")


def _seen(incoming: Incoming) -> Seen:
    request = incoming.request
    try:
        body: bytes | None = request.body.read()
    except Exception:  # noqa: BLE001 - whatever is raised is the reason for a refusal
        body = None
    return Seen(request.method, request.uri, tuple(request.headers), body)


def check_passed_on(seen: Seen) -> None:
    """Check what an endpoint would get of a request's line and fields; raises `Broken`."""
    for text in (seen.method, seen.uri):
        expect(not re.search(r"[\s\0]", text), "a request line has three parts", text)
    given = joined(seen.fields).items()
    wire = for_upstream(given, _OWN)
    expect(not wire or wire.endswith(b"\r\n"), "each line has an end", wire)
    found = [_LINE.fullmatch(line) for line in wire.decode("latin-1").split("\r\n")[:-1]]
    fields = [(match[1], match[2]) for match in found if match is not None]
    expect(len(fields) == len(found), "each line is one field, without CR, LF and NUL", wire)
    options = {
        option.strip(" \t").lower()
        for name, value in seen.fields
        if name.lower() == "connection"
        for option in value.split(",")
    }
    for name, value in fields:
        if name not in _OWN:
            lowered = name.lower()
            expect((name, value) in given, "no field is made up", name, value)
            expect(lowered not in _NEVER_SENT | options, "what is of one hop stays", name)
            expect(not lowered.startswith("x-forwarded-"), "nobody speaks for us", name)
        else:
            expect(_OWN[name] == value, "our fields are ours", name, value)
    names = [name.lower() for name, _ in fields]
    for name in _OWN:
        expect(names.count(name.lower()) == 1, "our fields are there once", name)
    others = [(name, value) for name, value in fields if name not in _OWN]
    expect(for_upstream(others, _OWN) == wire, "a second look changes nothing", wire)
