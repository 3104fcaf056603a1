"""Getting engines' pages of metrics, with deadlines of their own and on connections of their own.

The same strict reader as for answers: an engine that drips, lies or never ends costs a second.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

from cache.endpoints import Endpoint
from load.fetch import FetchError
from proxy.failures import (
    BodyIdle,
    BodyTooLong,
    ConnectionDied,
    ResponseTimeout,
    UpstreamFailure,
)
from proxy.pool import ConnectionPool
from proxy.request import InferenceRequest
from proxy.steps import carry_out
from proxy.transport import EndpointAdapter, Reply, Transport

#: Seconds for the connection, for the head, and for the body.
CONNECT_SECONDS, HEAD_SECONDS, BODY_SECONDS = 0.5, 0.5, 0.5
#: A page may be so large; real ones have some 100 KB.
MOST_BYTES = 4_194_304

_REQUEST = InferenceRequest(
    method="GET",
    target="/metrics",
    fields=(("Accept", "text/plain"),),
    own_fields={},
    dropped_fields=(),
    body=b"",
    replayable=True,
)


class MetricsPages:
    """Fetches `/metrics`. Thread-safe; keeps a connection to each engine."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._connections = ConnectionPool(clock, per_endpoint=1)
        adapter = EndpointAdapter(
            self._connections, clock, idle_timeout=BODY_SECONDS, total_timeout=BODY_SECONDS
        )
        self._transport = Transport(
            adapter, connect_timeout=CONNECT_SECONDS, first_byte_timeout=HEAD_SECONDS
        )

    def fetch(self, endpoint: Endpoint) -> str:
        """The text at the endpoint's metrics port. Raises `FetchError`."""
        try:
            return self._page(_asked_at(endpoint))
        except (ResponseTimeout, BodyIdle, BodyTooLong):
            raise FetchError("timeout") from None
        except UpstreamFailure as failure:
            kind = "timeout" if failure.kind == "timeout" else "unreachable"
            raise FetchError(kind) from None

    def keep(self, endpoints: Collection[Endpoint]) -> None:
        """Close connections to all others."""
        self._connections.prune({_asked_at(endpoint).key for endpoint in endpoints})

    def _page(self, endpoint: Endpoint) -> str:
        try:
            reply = carry_out(self._transport.exchange(endpoint, _REQUEST))
        except ConnectionDied as died:
            if not died.idle:
                raise
            reply = carry_out(self._transport.exchange(endpoint, _REQUEST, fresh=True))
        try:
            return _text(reply)
        finally:
            reply.stream.close()


def _asked_at(endpoint: Endpoint) -> Endpoint:
    if endpoint.metrics_port is None:
        return endpoint
    return replace(endpoint, port=endpoint.metrics_port)


def _text(reply: Reply) -> str:
    if reply.head.status != 200:
        raise FetchError("status")
    parts = []
    size = 0
    while part := reply.stream.read():
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise FetchError("too_large")
    return b"".join(parts).decode("utf-8", "replace")
