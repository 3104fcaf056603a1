"""An inference request from its arrival to the answer that goes back: the order of the steps."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Response
from werkzeug.exceptions import (
    ClientDisconnected,
    HTTPException,
    MethodNotAllowed,
    NotFound,
)
from werkzeug.wrappers import Request

from cache.store import EndpointsStale, EndpointsUnknown
from proxy.body import AnswerBody
from proxy.caller import Caller
from proxy.drain import Drain
from proxy.errors import GatewayError
from proxy.failures import ClientLeft
from proxy.forwarder import Answer, Forwarder
from proxy.headers import for_client, request_id
from proxy.keys import ApiKeys
from proxy.record import RequestRecord
from proxy.relayed import StreamRelay
from proxy.request import InferenceRequest, model_of
from proxy.upload import read_body
from routing.router import ModelUnknown, NoReadyEndpoints, Router, UnknownStrategy

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

log = logging.getLogger("gateway.proxy")

STRATEGY_HEADER = "routing-strategy"
#: The status under which logs and metrics have a request whose client left, as nginx has it.
_CLIENT_LEFT = 499
#: Seconds a request waits for a place. So short that refusals need few threads.
_PLACE_SECONDS = 0.005
#: What an engine serves to clients. Its other paths (adapters, weights, profiling) stay private.
INFERENCE_PATHS = tuple(
    f"/v1/{name}"
    for name in (
        "chat/completions",
        "completions",
        "embeddings",
        "responses",
        "messages",
        "rerank",
        "score",
        "classify",
        "images/generations",
        "audio/transcriptions",
        "audio/translations",
        "audio/speech",
    )
)
_CODES: dict[type[Exception], str] = {
    NoReadyEndpoints: "no_ready_endpoints",
    ModelUnknown: "model_not_found",
    UnknownStrategy: "unknown_strategy",
    EndpointsUnknown: "endpoints_unknown",
    EndpointsStale: "endpoints_stale",
}


class InferenceHandler:
    """Answers inference requests, which are POSTs to `paths`.

    At most `capacity` have a thread at once, and `max_streams` the relay; one more is told so at
    once instead of waiting unseen. `retry_after` is in seconds, `max_body_bytes` bounds a request's
    body, `keys` are checked where they are configured.
    """

    def __init__(
        self,
        router: Router,
        forwarder: Forwarder,
        drain: Drain,
        *,
        paths: Iterable[str],
        capacity: int,
        max_body_bytes: int,
        retry_after: int,
        max_streams: int,
        relay: StreamRelay | None = None,
        keys: ApiKeys | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._forwarder = forwarder
        self._drain = drain
        self.paths = frozenset(paths)
        self._places = threading.BoundedSemaphore(capacity)
        self._capacity = capacity
        self._max_body_bytes = max_body_bytes
        self._retry_after = retry_after
        self._max_streams = max_streams
        self._relay = relay
        self._keys = keys
        self._clock = clock

    def handle(self, request: Request) -> "Response | PassedOn":
        """Return the endpoint's answer, or the gateway's error. Raises nothing."""
        record = self._record(request)
        place = ExitStack()
        try:
            return self._answer(request, record, place)
        except Exception as error:  # noqa: BLE001 - each becomes an answer, a bug a counted one
            place.close()
            return self._refused(error, request, record)

    def refuse(self, error: Exception, request: Request) -> Response:
        """The answer to a request that failed before it was one for an endpoint."""
        return self._refused(error, request, self._record(request))

    def _record(self, request: Request) -> RequestRecord:
        return RequestRecord(
            request_id(request.headers.get("x-request-id")),
            request.method,
            request.path,
            self._clock,
        )

    def _refused(self, error: Exception, request: Request, record: RequestRecord) -> Response:
        if isinstance(error, ClientLeft):
            record.aborted("waiting")
            record.finish(_CLIENT_LEFT)
            return Response(status=f"{_CLIENT_LEFT} Client Left")  # which nobody will read
        if isinstance(error, ClientDisconnected):
            record.aborted("sending")
        failure = failure_of(error, request)
        if self._drain.over and failure.kind.status > 500:  # the connections were ended by us
            failure = GatewayError("gateway_draining", "the gateway's time to finish is over")
        if failure.code == "internal_error":
            log.error("a bug: request %s", record.request_id, exc_info=error)
        record.failed(failure.code, failure.message)
        record.finish(failure.kind.status)
        headers = failure.response_headers(record.request_id, self._retry_after)
        status = HTTPStatus(failure.kind.status)
        return Response(failure.body(), f"{status.value} {status.phrase}", headers)

    def wants_body(self, method: str, path: str, authorization: str | None) -> bool:
        """Whether such a request is refused for nothing that stands in its head."""
        admitted = self._keys is None or self._keys.admits(authorization)
        return admitted and method == "POST" and path in self.paths

    def authorize(self, request: Request) -> None:
        """Raise `GatewayError` unless the request may be answered."""
        if self._keys and not self._keys.admits(request.headers.get("authorization")):
            raise GatewayError(
                "invalid_api_key",
                "a valid API key is required as 'Authorization: Bearer KEY'",
                (("WWW-Authenticate", "Bearer"),),
            )

    def _answer(self, request: Request, record: RequestRecord, place: ExitStack) -> "PassedOn":
        if request.method != "POST":
            raise MethodNotAllowed(["POST"])
        target = _target(request)
        self.authorize(request)
        self._admit(place)
        strategy = request.headers.get(STRATEGY_HEADER, "").strip() or None
        content = read_body(request.environ, self._max_body_bytes)
        model = self._router.known(self._model(request, content))
        record.names(model, strategy)
        candidates = self._router.candidates(model, strategy)
        record.begins()
        caller: Caller = request.environ.get("gateway.caller") or Caller()
        answer = self._forwarder.forward(
            InferenceRequest(
                method=request.method,
                target=target,
                fields=tuple(request.headers.items()),
                own_fields=_own_fields(request, record.request_id),
                dropped_fields=("authorization",) if self._keys else (),
                body=content,
                replayable=not request.path.startswith("/v1/responses"),
                caller=caller,
            ),
            candidates,
        )
        record.answered(answer)
        fields = for_client(answer.reply.head.fields)
        fields.append(("x-request-id", record.request_id))
        fields.append(("target-pod", answer.lease.endpoint.name))
        if strategy:
            fields.append((STRATEGY_HEADER, strategy))
        body = AnswerBody(answer, record, self._drain, place, self._relay, caller)
        return PassedOn(answer, fields, body)

    def _admit(self, place: ExitStack) -> None:
        if self._drain.over:
            raise GatewayError("gateway_draining", "the gateway is stopping")
        # A place comes back a moment after its client has the last byte.
        if not self._places.acquire(timeout=_PLACE_SECONDS):
            raise GatewayError(
                "gateway_overloaded",
                f"the gateway is answering {self._capacity} requests, which is all it can",
            )
        place.callback(self._places.release)
        if self._relay is not None and self._relay.link.count >= self._max_streams:
            raise GatewayError(
                "gateway_overloaded", f"{self._max_streams} streams run, which is all there may be"
            )

    def _model(self, request: Request, body: bytes) -> str | None:
        if not self._router.needs_model:
            return None
        return model_of(
            body,
            request.headers.get("content-type", ""),
            may_be_form=request.path.startswith("/v1/audio/"),
        )


def failure_of(error: Exception, request: Request) -> GatewayError:
    """The name of what went wrong; what has none is a bug of ours."""
    if isinstance(error, GatewayError):
        return error
    if type(error) in _CODES:
        return GatewayError(_CODES[type(error)], str(error))
    if isinstance(error, ClientDisconnected):
        return GatewayError("invalid_body", "the body broke off")
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        message = f"{request.path} takes {allowed} only, not {request.method}"
        return GatewayError("method_not_allowed", message, (("Allow", allowed),))
    if isinstance(error, NotFound):
        return GatewayError("unknown_path", f"there is nothing at {request.path}")
    if isinstance(error, HTTPException):
        return GatewayError("bad_request", error.description or error.name)
    return GatewayError("internal_error", "the gateway failed; its log says why")


class PassedOn:
    """An endpoint's answer, as a WSGI application that takes nothing from it and adds nothing.

    Werkzeug's own response would rewrite `Location` and give an answer without a Content-Type one.
    """

    def __init__(self, answer: Answer, fields: list[tuple[str, str]], body: AnswerBody) -> None:
        head = answer.reply.head
        self._status = f"{head.status} {head.reason}"
        self._fields = fields
        self._body = body

    def __call__(self, environ: object, start_response: "StartResponse") -> AnswerBody:
        """Start the response and return its body, which the server must close."""
        start_response(self._status, self._fields)
        return self._body


def _target(request: Request) -> str:
    """Path and query as received; raises `GatewayError` if the path is not literally a known one.

    Matching happened on the decoded path. One that is spelled differently (`%2f`) is not passed on,
    because the endpoint could take it for another.
    """
    uri = str(request.environ.get("RAW_URI") or request.full_path)
    if not uri.startswith("/"):  # absolute form, RFC 9112 §3.2.2
        parts = urlsplit(uri)
        uri = parts.path + (f"?{parts.query}" if parts.query else "")
    if uri.partition("?")[0] != request.path:
        raise GatewayError("unknown_path", f"there is nothing at {request.path}")
    return uri


def _own_fields(request: Request, an_id: str) -> dict[str, str]:
    return {
        "X-Request-Id": an_id,
        "X-Forwarded-For": request.remote_addr or "unknown",
        "X-Forwarded-Proto": request.scheme,
        "X-Forwarded-Host": request.headers.get("host", ""),
    }
