"""An inference request from its arrival to the answer that goes back: the order of the steps."""

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus

from werkzeug.exceptions import (
    ClientDisconnected,
    HTTPException,
    MethodNotAllowed,
    NotFound,
)

from cache.store import EndpointsStale, EndpointsUnknown
from proxy.body import AnswerBody
from proxy.call import Call
from proxy.drain import Drain
from proxy.errors import GatewayError
from proxy.failures import NO_DESCRIPTOR, ClientLeft
from proxy.forwarder import Answer, Forwarder
from proxy.headers import for_client, request_id
from proxy.hold import Hold
from proxy.keys import ApiKeys, UpstreamKey
from proxy.naming import Named, Naming
from proxy.places import Place, Places
from proxy.record import RequestRecord
from proxy.relayed import StreamRelay
from proxy.request import LITTLE_BYTES, InferenceRequest
from proxy.response import Response
from proxy.steps import BLOCKING, Steps
from proxy.trace import OFF, Trace, Tracing
from proxy.upload import read_body
from routing.router import Candidates, ModelUnknown, NoReadyEndpoints, Router
from routing.strategies import UnknownStrategy
from routing.view import Query

log = logging.getLogger("gateway.proxy")

STRATEGY_HEADER = "routing-strategy"
#: Names the conversation a request belongs to, for `session-affinity`.
SESSION_HEADER = "x-session-id"
#: The two as `Call.fields` has them.
_STRATEGY_FIELD = STRATEGY_HEADER.title()
_SESSION_FIELD = SESSION_HEADER.title()
#: The status under which logs and metrics have a request whose client left, as nginx has it.
_CLIENT_LEFT = 499
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

    At most `capacity` have a place at once, and `max_streams` the relay; one more is told so at
    once instead of waiting unseen. `retry_after` is in seconds, `max_body_bytes` bounds a request's
    body, `keys` are checked where they are configured, and `upstream_key` is sent to endpoints
    instead of what the client sent. `tracing` begins each request's part in a trace.
    """

    def __init__(
        self,
        router: Router,
        forwarder: Forwarder,
        drain: Drain,
        *,
        naming: Naming,
        hold: Hold,
        paths: Iterable[str],
        capacity: int,
        max_body_bytes: int,
        retry_after: int,
        max_streams: int,
        relay: StreamRelay | None = None,
        keys: ApiKeys | None = None,
        upstream_key: UpstreamKey | None = None,
        tracing: Tracing = OFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._forwarder = forwarder
        self._drain = drain
        self.naming = naming
        self._hold = hold
        self.paths = frozenset(paths)
        self._places = Places(capacity)
        self._capacity = capacity
        self._max_body_bytes = max_body_bytes
        self._retry_after = retry_after
        self._max_streams = max_streams
        self._relay = relay
        self._keys = keys
        self._upstream_key = upstream_key
        self._tracing = tracing
        authorization = ("authorization",) if keys or upstream_key else ()
        self._dropped_fields = (*authorization, *tracing.fields)
        self._clock = clock

    def bound(self, streams: int) -> None:
        """Let no more `streams` run than the server can bear; before the first request."""
        self._max_streams = min(self._max_streams, streams)

    def handle(self, call: Call) -> Steps[Response]:
        """Return the endpoint's answer, or the gateway's error. Raises nothing."""
        record = self._record(call, self._tracing.begin(call))
        place = Place(self._places)
        try:
            return (yield from self._answer(call, record, place))
        except Exception as error:  # noqa: BLE001 - each becomes an answer, a bug a counted one
            place.close()
            return self._refused(error, call, record)

    def refuse(self, error: Exception, call: Call) -> Response:
        """The answer to a request that failed before it was one for an endpoint."""
        return self._refused(error, call, self._record(call, OFF.begin(call)))

    def _record(self, call: Call, trace: Trace) -> RequestRecord:
        an_id = request_id(call.fields.get("X-Request-Id"))
        return RequestRecord(an_id, call.method, call.path, self._clock, trace)

    def _refused(self, error: Exception, call: Call, record: RequestRecord) -> Response:
        if isinstance(error, ClientLeft):
            record.aborted("waiting")
            record.finish(_CLIENT_LEFT)
            return Response(f"{_CLIENT_LEFT} Client Left", [], (b"",))  # which nobody will read
        if isinstance(error, ClientDisconnected):
            record.aborted("sending")
        failure = failure_of(error, call.method, call.path)
        if self._drain.over and failure.kind.status > 500:  # the connections were ended by us
            failure = GatewayError("gateway_draining", "the gateway's time to finish is over")
        if failure.code == "internal_error":
            log.error("a bug: request %s", record.request_id, exc_info=error)
        record.failed(failure.code, failure.message)
        record.finish(failure.kind.status)
        fields = failure.response_headers(record.request_id, self._retry_after)
        body = failure.body()
        fields.append(("Content-Length", str(len(body))))
        status = HTTPStatus(failure.kind.status)
        return Response(f"{status.value} {status.phrase}", fields, (body,))

    def wants_body(self, method: str, path: str, authorization: str | None) -> bool:
        """Whether such a request is refused for nothing that stands in its head."""
        try:
            admitted = self._keys is None or self._keys.admits(authorization)
        except OSError:  # `authorize` meets it too, and answers
            return False
        return admitted and method == "POST" and path in self.paths

    def authorize(self, authorization: str | None) -> None:
        """Raise `GatewayError` unless a request with that `Authorization` may be answered."""
        if self._keys and not self._keys.admits(authorization):
            raise GatewayError(
                "invalid_api_key",
                "a valid API key is required as 'Authorization: Bearer KEY'",
                (("WWW-Authenticate", "Bearer"),),
            )

    def _answer(self, call: Call, record: RequestRecord, place: Place) -> Steps[Response]:
        if call.method != "POST":
            raise MethodNotAllowed(["POST"])
        target = call.target
        self.authorize(call.fields.get("Authorization"))
        yield from self._admit(call, place)
        strategy = call.fields.get(_STRATEGY_FIELD, "").strip() or None
        content = read_body(call, self._max_body_bytes)
        if len(content) > LITTLE_BYTES or call.path.startswith("/v1/audio/"):
            yield BLOCKING  # looking through it takes time, through a form even more
        named = self.naming.of(call, content)
        del content  # of which `named` may have a changed copy
        if named.alias is not None:
            record.is_alias(named.alias)
        choose = partial(self._choose, call, named, strategy, record)
        candidates = yield from self._hold.until_ready(
            named.model or "", choose, call.caller, record
        )
        own_fields = _own_fields(call, record.request_id)
        if self._upstream_key:
            own_fields["Authorization"] = self._upstream_key.authorization()
        record.begins()
        answer = yield from self._forwarder.forward(
            InferenceRequest(
                method=call.method,
                target=target,
                fields=tuple(call.fields.items()),
                own_fields=own_fields,
                dropped_fields=(*self._dropped_fields, *named.stale_fields),
                body=named.body,
                replayable=not call.path.startswith("/v1/responses"),
                caller=call.caller,
            ),
            candidates,
            record.trace,
        )
        record.answered(answer)
        return self._pass_on(answer, call, strategy, record, place)

    def _choose(
        self, call: Call, named: Named, strategy: str | None, record: RequestRecord
    ) -> Candidates:
        """Begin to choose an endpoint; raises as `Router.candidates` does."""
        pool = self.naming.known(named)
        record.names(pool.model, strategy)
        query = Query(pool.model, call.fields.get(_SESSION_FIELD, ""), named.body)
        return self._router.candidates(query, strategy, pool)

    def _pass_on(
        self,
        answer: Answer,
        call: Call,
        strategy: str | None,
        record: RequestRecord,
        place: Place,
    ) -> Response:
        """The endpoint's answer, with the fields that the gateway adds."""
        head = answer.reply.head
        fields = for_client(head.fields, bodyless=head.status == 204)
        fields.append(("x-request-id", record.request_id))
        fields.append(("target-pod", answer.lease.endpoint.name))
        if strategy:
            fields.append((STRATEGY_HEADER, strategy))
        relay = self._relay
        if relay is not None and relay.link.count >= self._max_streams:
            relay = None  # as many began at once: a thread costs more, but has descriptors
        body = AnswerBody(answer, record, self._drain, place, relay, call.caller)
        return Response(f"{head.status} {head.reason}", fields, body)

    def _admit(self, call: Call, place: Place) -> Steps[None]:
        if self._drain.over:
            raise GatewayError("gateway_draining", "the gateway is stopping")
        if call.surplus:
            raise GatewayError("gateway_overloaded", "the gateway has all the clients it can have")
        if not (place.take() or (yield from place.wait())):
            raise GatewayError(
                "gateway_overloaded",
                f"the gateway is answering {self._capacity} requests, which is all it can",
            )
        if self._relay is not None and self._relay.link.count >= self._max_streams:
            raise GatewayError(
                "gateway_overloaded", f"{self._max_streams} streams run, which is all there may be"
            )


def failure_of(error: Exception, method: str, path: str) -> GatewayError:
    """The name of what went wrong; what has none is a bug of ours."""
    if isinstance(error, GatewayError):
        return error
    if type(error) in _CODES:
        return GatewayError(_CODES[type(error)], str(error))
    if isinstance(error, ClientDisconnected):
        return GatewayError("invalid_body", "the body broke off")
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        message = f"{path} takes {allowed} only, not {method}"
        return GatewayError("method_not_allowed", message, (("Allow", allowed),))
    if isinstance(error, NotFound):
        return GatewayError("unknown_path", f"there is nothing at {path}")
    if isinstance(error, HTTPException):
        return GatewayError("bad_request", error.description or error.name)
    if isinstance(error, OSError) and error.errno in NO_DESCRIPTOR:
        return GatewayError("gateway_overloaded", "the gateway has no file descriptor left")
    return GatewayError("internal_error", "the gateway failed; its log says why")


def _own_fields(call: Call, an_id: str) -> dict[str, str]:
    return {
        "X-Request-Id": an_id,
        "X-Forwarded-For": call.remote or "unknown",
        "X-Forwarded-Proto": call.scheme,
        "X-Forwarded-Host": call.fields.get("Host", ""),
    }
