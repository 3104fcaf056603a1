"""The server's own answers: to what is no valid request, and to one whose answer failed."""

import logging
from http import HTTPStatus
from typing import Any, Final

from gunicorn.http import errors

from metrics import ERRORS
from proxy.errors import GatewayError
from proxy.headers import request_id

log = logging.getLogger("gateway.server")

_NOT_HTTP: Final[dict[type[Exception], tuple[int, str]]] = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
    errors.UnsupportedTransferCoding: (501, "Not Implemented"),
}


def refusal(request: Any, address: Any, error: BaseException) -> bytes:
    """Count and log an error, and return the answer that tells a client of it.

    Nothing that the client sent is repeated. `request` is None if there is no valid one.
    """
    status, reason = 500, "Internal Server Error"
    if isinstance(error, GatewayError):
        known = error
        status = known.kind.status
        reason = HTTPStatus(status).phrase
    elif request is None and isinstance(error, errors.ParseException):
        status, reason = _status_of(error)
        known = GatewayError("bad_request", f"this is no valid request: {type(error).__name__}")
    else:
        known = GatewayError("internal_error", "the gateway failed; its log says why")
        log.error("a bug in an answer", exc_info=error)
    if status < 500:
        log.warning("%s from %s", known.message, address[0] if address else "a local client")
    ERRORS.labels(known.code).inc()
    return _answer(status, reason, known)


def _status_of(error: errors.ParseException) -> tuple[int, str]:
    """Status and reason for what is no valid request, or one that asks for too much."""
    if isinstance(error, errors.InvalidHTTPVersion) and isinstance(error.version, tuple):
        return 505, "HTTP Version Not Supported"  # it is a version, but none of ours
    return _NOT_HTTP.get(type(error), (400, "Bad Request"))


def _answer(status: int, reason: str, error: GatewayError) -> bytes:
    body = error.body()
    fields = error.response_headers(request_id(None), retry_after=1)
    fields += [("Content-Length", str(len(body))), ("Connection", "close")]
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
