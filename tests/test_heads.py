"""The head of an answer is what gunicorn would write; nothing tells a client who wrote it."""

import re
import time
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.answering import create
from proxy.arrival import Arrival
from proxy.heads import head_of, in_one_chunk
from proxy.response import Response
from proxy.sending import Collected
from tests.test_arrival import ADDRESS, CONFIG
from tests.wire import Fields, post, unchunked, values

LENGTH = ("Content-Length", "2")
IMF_DATE = r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"


def ours(status: str, fields: Fields, *, closes: bool = False, chunked: bool = False) -> bytes:
    return head_of(Response(status, fields, (b"",)), closes=closes, chunked=chunked)


def gunicorns(status: str, fields: Fields, *, closes: bool) -> tuple[bytes, bool]:
    """What gunicorn writes for the same answer, and whether it would send chunks."""
    incoming = Arrival(CONFIG, ADDRESS, 1000, lambda *_: True).feed(post(close=closes))
    assert incoming is not None
    collected = Collected()
    response, _ = create(incoming.request, collected, ADDRESS, ADDRESS, CONFIG)
    response.start_response(status, fields)
    response.send_headers()
    return collected.take(), response.chunked


def lines_of(head: bytes) -> list[str]:
    """The lines; of dates, those that tell the time only say so."""
    text = head.decode("latin-1")
    assert text.endswith("\r\n\r\n")
    return re.sub(f"Date: {IMF_DATE}", "Date: now", text)[:-4].split("\r\n")


ANSWERS: dict[str, tuple[str, Fields]] = {
    "of a known length": ("200 OK", [("Content-Type", "application/json"), LENGTH]),
    "of an unknown length": ("200 OK", [("Content-Type", "text/event-stream")]),
    "without fields": ("200 OK", []),
    "without a body": ("204 No Content", [("X-Custom", "1")]),
    "not modified": ("304 Not Modified", [("ETag", '"a"'), LENGTH]),
    "an error": ("503 Service Unavailable", [LENGTH, ("Retry-After", "1")]),
    "without a reason": ("200 ", [LENGTH]),
    "with a date of its own": ("200 OK", [("Date", "then"), LENGTH]),
    "with a server of its own": ("200 OK", [LENGTH, ("Server", "engine")]),
    "with both in other cases": ("200 OK", [("DATE", "then"), ("server", "engine"), LENGTH]),
    "with a field twice": ("200 OK", [("Set-Cookie", "a=1"), LENGTH, ("Set-Cookie", "b=2,c")]),
    "with the same line twice": ("200 OK", [("Vary", "a"), ("Vary", "a"), LENGTH]),
    "beyond ASCII": ("200 D\xe9j\xe0", [("X-Latin", "\xfc\xff\x80"), LENGTH]),
    "with an empty value": ("200 OK", [("X-Empty", ""), LENGTH]),
    "with a tab in a value": ("200 OK", [("X-Tab", "a\tb"), LENGTH]),
}


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("kind", ANSWERS)
def test_a_head_has_the_lines_that_gunicorn_writes(kind: str, closes: bool) -> None:
    status, fields = ANSWERS[kind]
    theirs, chunked = gunicorns(status, fields, closes=closes)
    head = lines_of(ours(status, fields, closes=closes, chunked=chunked))
    assert head[0] == lines_of(theirs)[0]
    assert sorted(head) == sorted(lines_of(theirs))


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_endpoints_fields_keep_their_order_at_the_end(kind: str) -> None:
    status, fields = ANSWERS[kind]
    lines = lines_of(ours(status, fields))
    assert lines[len(lines) - len(fields) :] == [f"{name}: {value}" for name, value in fields]


def test_the_servers_date_is_the_time_in_seconds() -> None:
    before = int(time.time())
    (date,) = values(ours("200 OK", [LENGTH]), "date")
    assert re.fullmatch(IMF_DATE, date)
    assert before <= parsedate_to_datetime(date).timestamp() <= time.time()


@given(st.binary(max_size=300))
def test_one_chunk_holds_the_whole_content(content: bytes) -> None:
    assert unchunked(in_one_chunk(content)) == (content, True)


def test_no_content_is_the_final_chunk_alone() -> None:
    assert in_one_chunk(b"") == b"0\r\n\r\n"
