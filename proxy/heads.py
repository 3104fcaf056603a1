"""The bytes around an answer's content, as HTTP/1.1 has them."""

import time
from email.utils import formatdate
from functools import lru_cache
from typing import Final

from proxy.response import Response

#: What gunicorn says of itself.
_SERVER: Final = "gunicorn"


def head_of(answer: Response, *, closes: bool, chunked: bool) -> bytes:
    """Status line and fields, with those the server adds unless the endpoint sent its own.

    `closes` says that the connection ends after the answer, `chunked` that its body is.
    """
    names, lines = set(), []
    for name, value in answer.fields:
        names.add(name.lower())
        lines.append(f"{name}: {value}\r\n")
    server = "" if "server" in names else f"Server: {_SERVER}\r\n"
    date = "" if "date" in names else f"Date: {_date(int(time.time()))}\r\n"
    connection = "close" if closes else "keep-alive"
    coding = "Transfer-Encoding: chunked\r\n" if chunked else ""
    first = f"HTTP/1.1 {answer.status}\r\n{server}{date}Connection: {connection}\r\n{coding}"
    return f"{first}{''.join(lines)}\r\n".encode("latin-1")


def in_one_chunk(content: bytes) -> bytes:
    """A body in the chunked coding (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) if content else b"0\r\n\r\n"


@lru_cache(maxsize=2)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
