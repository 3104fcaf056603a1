"""The bare WSGI floor: the least that a WSGI application which forwards requests can do.

No routing, no limits, no retries, no log; one keep-alive connection to the upstream for each
thread (`FLOOR_CONNECT=each`: a new one for each request).
"""

import http.client
import os
import threading
from collections.abc import Iterable
from typing import Any

_PORT = int(os.environ.get("FLOOR_UPSTREAM", "0"))
_EACH = os.environ.get("FLOOR_CONNECT") == "each"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
_local = threading.local()


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Forward one request, and its answer as it comes."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if _EACH or not hasattr(_local, "upstream"):
        _local.upstream = http.client.HTTPConnection("127.0.0.1", _PORT)
    kind = {"Content-Type": environ.get("CONTENT_TYPE", "")}
    _local.upstream.request(environ["REQUEST_METHOD"], environ["PATH_INFO"], body, kind)
    answer = _local.upstream.getresponse()
    headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in _HOP_BY_HOP]
    start_response(f"{answer.status} {answer.reason}", headers)
    if answer.length is not None:
        return [answer.read()]
    return iter(lambda: answer.read1(65_536), b"")
