"""Requests that break the rules, and how each of them has to end."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.expect import INVALID, Expected, check_error, counted_once
from tests.e2e.place import Place, process_of
from tests.wire import CHAT, RawAnswer, chat_body, post

#: Each request carries it, and no answer may.
SECRET = "sk-never-repeated"
FIRST = f"POST {CHAT} HTTP/1.1"
HOST = "Host: gateway.test"
_CODES = {405: "method_not_allowed", 413: "body_too_large"}


def request(first: str, *lines: str, body: bytes = b"") -> bytes:
    """A request of these lines and one with a secret. It does not ask for the connection to end."""
    head = "\r\n".join([first, *lines, f"Cookie: {SECRET}", "", ""])
    return head.encode("latin-1") + body


def framed(first: str, *lines: str) -> bytes:
    """The same with a body and its right length, so that nothing else is wrong with it."""
    body = chat_body()
    return request(first, *lines, f"Content-Length: {len(body)}", body=body)


@contextmanager
def reaching_the_pod(here: Place, number: int) -> Iterator[list[bytes]]:
    """Check that so many requests reach the pod of `llama` in this block; then they are there."""
    seen = process_of(here.cluster.models["llama"].pods[0]).requests
    before = len(seen)
    raw: list[bytes] = []
    yield raw
    raw += [one.raw for one in seen[before:]]
    assert len(raw) == number, raw


def check_refused(here: Place, raw: bytes, *allowed: int) -> RawAnswer:
    """Send it: it is refused and counted once, no pod sees it, and the next one is served."""
    code = _CODES.get(allowed[0], "bad_request")
    with reaching_the_pod(here, 0), counted_once(here.gateway, code):
        answer = here.exchange(raw)  # which ends with the connection
        assert answer.status in allowed, answer.raw
    check_error(answer, Expected(answer.status, code, INVALID))
    assert answer.value("connection") == "close"
    assert SECRET.encode() not in answer.raw
    with reaching_the_pod(here, 1):
        assert here.exchange(post()).status == 200
    return answer
