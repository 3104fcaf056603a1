"""The heads that nearly all inference requests have, read in one go.

Whatever is out of the ordinary is left to gunicorn's parser and our rules, which take four times as
long. What is read here they would read in just the same way; a test compares the two.
"""

import re
from functools import lru_cache
from typing import Any, Final

from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from proxy.rules import is_host

#: Single spaces, printable ASCII, a path without query, escapes or dots' meaning.
_HEAD = re.compile(
    rb"POST (/[A-Za-z0-9/_-]*) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z][A-Za-z0-9-]*: ?[!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
)
#: The fields of such a head.
_FIELDS = re.compile(r"([A-Za-z0-9-]+): ?([ -~]+)\r\n")
_LENGTH = re.compile(r"[0-9]{1,15}")
#: Fields that change how a request is read.
_SPECIAL: Final = frozenset({"EXPECT", "HTTP2-SETTINGS", "TRANSFER-ENCODING", "UPGRADE"})


def read_plain(head: bytes, config: Any, address: Any, number: int) -> tuple[Any, int] | None:
    """Gunicorn's request with such a head, and its body's length; None if it is not such a one.

    `number` counts the requests of the connection to the client's `address`.
    """
    found = _HEAD.fullmatch(head)
    if found is None or len(head) > config.limit_request_field_size:
        return None
    headers = []
    for name, value in _FIELDS.findall(found[2].decode("ascii")):
        headers.append((name.upper(), value))
    fields = dict(headers)
    length = fields.get("CONTENT-LENGTH", "0")
    if (
        not fields.keys().isdisjoint(_SPECIAL)
        or fields.get("CONNECTION", "close").lower() not in ("close", "keep-alive")
        or len(fields) < len(headers)  # one of them comes twice
        or len(headers) > config.limit_request_fields
        or "HOST" not in fields
        or not is_host(fields["HOST"])
        or _LENGTH.fullmatch(length) is None
    ):
        return None
    path = found[1].decode("ascii")
    request: Any = object.__new__(Request)
    vars(request).update(_ordinary(config))
    request.uri = request.path = path
    request.headers, request.trailers = headers, []
    request.peer_addr = request.remote_addr = address
    request.req_number = number
    return request, int(length)


@lru_cache(maxsize=4)
def _ordinary(config: Any) -> dict[str, Any]:
    """All that gunicorn's parser sets, for a request like these."""
    raw = b"POST / HTTP/1.1\r\nHost: example.com\r\n\r\n"
    return dict(vars(Request(config, IterUnreader([raw]), ("192.0.2.1", 1))))
