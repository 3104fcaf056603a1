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
    names = {name.lower() for name, _ in answer.fields}
    lines = [f"HTTP/1.1 {answer.status}\r\n"]
    if "server" not in names:
        lines.append(f"Server: {_SERVER}\r\n")
    if "date" not in names:
        lines.append(f"Date: {_date(int(time.time()))}\r\n")
    lines.append("Connection: close\r\n" if closes else "Connection: keep-alive\r\n")
    if chunked:
        lines.append("Transfer-Encoding: chunked\r\n")
    lines.extend([f"{name}: {value}\r\n" for name, value in answer.fields])
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


def in_one_chunk(content: bytes) -> bytes:
    """A body in the chunked coding (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) if content else b"0\r\n\r\n"


@lru_cache(maxsize=2)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
