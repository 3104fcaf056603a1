"""The wire, as a transport adapter of `requests`.

`requests`' own adapter can't carry an inference gateway: it takes a `103` for the answer, accepts a
response with two framings, hides a truncated one, rewrites the target, and does not tell whether a
connection that failed was a fresh one. A transport adapter is its extension point for that.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import BaseAdapter

from cache.endpoints import Endpoint
from proxy.connection import Connection
from proxy.failures import ClientLeft, UpstreamFailure
from proxy.framing import Head
from proxy.headers import for_upstream
from proxy.pool import ConnectionPool
from proxy.request import InferenceRequest
from proxy.steps import Steps, carry_out
from proxy.stream import Stream


@dataclass(frozen=True, slots=True)
class Reply:
    """An endpoint's answer: its head, and its body as it comes."""

    head: Head
    stream: Stream


class _Outgoing(requests.PreparedRequest):
    """A request that is sent as it is: nothing of it is normalised, re-quoted or added to."""

    def __init__(self, endpoint: Endpoint, request: InferenceRequest, *, fresh: bool) -> None:
        super().__init__()
        self.method = request.method
        self.url = f"http://{endpoint.authority}{request.target}"
        self.payload = request.body
        self.caller = request.caller
        self.endpoint = endpoint
        self.fresh = fresh
        own = {
            "Host": endpoint.authority,
            **request.own_fields,
            "Content-Length": str(len(request.body)),
        }
        line = f"{request.method} {request.target} HTTP/1.1\r\n".encode("latin-1")
        self.head = line + for_upstream(request.fields, own, drop=request.dropped_fields) + b"\r\n"


class _Incoming(requests.Response):
    """A response that keeps its head as it came, repeated fields included."""

    def __init__(self, request: requests.PreparedRequest, reply: Reply) -> None:
        super().__init__()
        self.request = request
        self.status_code = reply.head.status
        self.reason = reply.head.reason
        self.raw = reply.stream  # as `requests` names it
        self.reply = reply


class EndpointAdapter(BaseAdapter):
    """Sends requests to endpoints, on pooled connections where one is good."""

    def __init__(
        self,
        pool: ConnectionPool,
        clock: Callable[[], float],
        *,
        idle_timeout: float,
        total_timeout: float = math.inf,
    ) -> None:
        super().__init__()
        self._pool = pool
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._total_timeout = total_timeout

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> "_Incoming":
        """Send and wait for the head; `timeout` is (connect, first byte) in seconds.

        Raises `UpstreamFailure`s.
        """
        if not isinstance(request, _Outgoing):
            raise TypeError("this adapter sends requests to endpoints only")
        return _Incoming(request, carry_out(self.exchange(request, timeout)))

    def exchange(self, request: "_Outgoing", timeout: tuple[float, float]) -> Steps[Reply]:
        """The same in steps, without the response's cookie jar: that takes 15 of 400 us."""
        connect_timeout, first_byte_timeout = timeout
        if request.caller.departed:
            raise ClientLeft("client_left", "nobody waits for the answer")
        connection = yield from self._pool.take(
            request.endpoint, connect_timeout, fresh=request.fresh
        )
        try:
            head, received = yield from self._converse(connection, request, first_byte_timeout)
            body = Stream(
                connection, self._pool, head, received, self._idle_timeout, self._total_timeout
            )
        except BaseException:
            self._pool.discard(connection)
            raise
        return Reply(head, body)

    def _converse(
        self, connection: Connection, request: "_Outgoing", first_byte_timeout: float
    ) -> Steps[tuple[Head, bytes]]:
        """Send the request and wait for the head; a client that leaves ends both."""
        request.caller.on_departure(connection.shut_down)
        try:
            deadline = self._clock() + first_byte_timeout
            yield from connection.send(request.head, request.payload, deadline, self._clock)
            return (yield from connection.receive_head(deadline, self._clock))
        except UpstreamFailure as failure:
            if request.caller.departed:
                raise ClientLeft("client_left", "the client left while it waited") from failure
            raise
        finally:
            request.caller.on_departure(None)


class Transport:
    """Exchanges with endpoints, through the adapter alone.

    A `Session` around it would add environment proxies, netrc, cookies and redirects, none of which
    an inference request may meet, and 15 of 100 µs.
    """

    def __init__(
        self, adapter: EndpointAdapter, *, connect_timeout: float, first_byte_timeout: float
    ) -> None:
        self._timeout = (connect_timeout, first_byte_timeout)
        self._adapter = adapter

    def exchange(
        self, endpoint: Endpoint, request: InferenceRequest, *, fresh: bool = False
    ) -> Steps[Reply]:
        """Send `request` and wait for the response's head; `fresh` avoids pooled connections.

        Raises `UpstreamFailure`s.
        """
        outgoing = _Outgoing(endpoint, request, fresh=fresh)
        return (yield from self._adapter.exchange(outgoing, self._timeout))
