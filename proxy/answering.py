"""A complete request becomes an answer: the WSGI application is asked, and what it says is sent."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from gunicorn.http import wsgi

from proxy.arrival import Incoming
from proxy.body import AnswerBody, AnswerBroken
from proxy.clients import Client
from proxy.sending import Collected, End, Outlet, send

log = logging.getLogger("gateway.server")


class AnswerHead(wsgi.Response):
    """gunicorn's response, without a second `Date` or `Server` where the endpoint sent its own."""

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Take the application's fields; gunicorn leaves `Date` and `Server` out."""
        given = list(headers)
        super().process_headers(given)
        kept = {name.lower(): (name, value) for name, value in given}
        left_out = [kept[name] for name in ("date", "server") if name in kept]
        self.headers = [*self.headers, *left_out]

    def default_headers(self) -> list[str]:
        """The status line and the fields the server adds."""
        given = {name.lower() for name, _ in self.headers}
        lines = super().default_headers()
        return [lines[0], *(x for x in lines[1:] if x.partition(":")[0].lower() not in given)]


class Server(Protocol):
    """What answering needs of the worker."""

    cfg: Any
    wsgi: Any

    def must_close(self, request: Any) -> bool:
        """Whether the connection can carry no request after this one."""

    def failed(self, request: Any, address: Any, error: BaseException) -> bytes:
        """The answer to a request for which the application had none."""


class Answering:
    """Answers requests on whatever thread it is called.

    A client that takes nothing for `send_timeout` seconds has left. `defer` calls back on the
    loop's thread.
    """

    def __init__(self, server: Server, send_timeout: float, defer: Callable[..., None]) -> None:
        self._server = server
        self._send_timeout = send_timeout
        self._defer = defer

    def answer(self, client: Client, incoming: Incoming) -> None:
        """Answer, and tell the loop. Raises nothing."""
        self._defer(client.answered, *self._outcome(client, incoming))

    def answer_here(self, client: Client, incoming: Incoming) -> None:
        """The same on the loop's thread, for what never blocks."""
        client.answered(*self._outcome(client, incoming))

    def _outcome(self, client: Client, incoming: Incoming) -> tuple[End, bytes]:
        request = incoming.request
        try:
            return self._answer(client, incoming)
        except OSError as error:
            log.debug("the client left: %s", error)
            return End.CLOSE, b""
        except Exception as error:  # noqa: BLE001 - counted, logged and answered
            return End.CLOSE, self._server.failed(request, client.address, error)

    def _answer(self, client: Client, incoming: Incoming) -> tuple[End, bytes]:
        request, collected = incoming.request, Collected()
        response, environ = create(
            request, collected, client.address, client.server, self._server.cfg
        )
        environ["gateway.caller"] = client.caller
        content = self._server.wsgi(environ, response.start_response)
        away = False
        try:
            if not incoming.whole or self._server.must_close(request):
                response.force_close()
            if not isinstance(content, AnswerBody):
                for part in content:
                    response.write(part)
                response.close()
                return end_of(response), send(client.socket, collected.take())
            whole = content.whole()
            if whole is not None:
                response.write(whole)
                response.close()
                rest = send(client.socket, collected.take())
                content.sent()
                return end_of(response), rest
            response.send_headers()
            head = collected.take()
            away = self._hand_over(client, response, content, head)
            return (End.AWAY, b"") if away else (self._stay(client, response, content, head), b"")
        finally:
            if not away:
                close(content)

    def _hand_over(
        self, client: Client, response: AnswerHead, content: AnswerBody, head: bytes
    ) -> bool:
        """Let the relay go on with the answer."""
        if not response.chunked and response.response_length is None:
            return False  # how it ends would have to be shown by a reset, which only we do
        return content.hand_over(
            head,
            client.socket,
            closes=response.should_close(),
            over=partial(self._defer, client.over),
        )

    def _stay(self, client: Client, response: AnswerHead, content: AnswerBody, head: bytes) -> End:
        """Pass the answer on to its end."""
        outlet = Outlet(client.socket, self._send_timeout)
        outlet.sendall(head)
        response.sock = outlet  # type: ignore[assignment] # all it does is sendall
        return pass_on(response, content)


def create(request: Any, sock: Any, address: Any, server: Any, config: Any) -> tuple[Any, Any]:
    """The response of gunicorn, which writes to `sock`, and the environment of the application."""
    response, environ = wsgi.create(
        request, sock, address, server, config, response_class=AnswerHead
    )
    environ["wsgi.multithread"] = True
    cookies = [value for name, value in request.headers if name == "COOKIE"]
    if len(cookies) > 1:  # gunicorn joins them with a comma, which may be part of one
        environ["HTTP_COOKIE"] = "; ".join(cookies)
    return response, environ


def pass_on(response: AnswerHead, content: Iterable[bytes]) -> End:
    """Send the content part by part; raises `OSError` if the client left."""
    try:
        for part in content:
            response.write(part)
        response.close()
    except OSError:
        raise  # the client left
    except Exception as error:
        if isinstance(error, AnswerBroken):
            response.send_headers()  # of an answer that broke off before its first byte
            if not (error.told or response.chunked or response.response_length):
                return End.RESET  # nothing else shows this client that something is missing
        elif response.headers_sent:
            log.exception("a bug in an answer's body")
        else:
            raise
        return End.CLOSE  # as it is: visibly short of its end
    return end_of(response)


def end_of(response: AnswerHead) -> End:
    """What becomes of the connection after a complete answer."""
    return End.CLOSE if response.should_close() else End.KEEP


def close(content: Any) -> None:
    """Tell the application that its answer is over."""
    if hasattr(content, "close"):
        content.close()
