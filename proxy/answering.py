"""A complete request becomes an answer: the WSGI application is asked, and what it says is sent."""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

from gunicorn.http import wsgi

from proxy.arrival import Incoming
from proxy.body import AnswerBody, AnswerBroken
from proxy.call import Call, joined
from proxy.clients import Client
from proxy.failures import NO_DESCRIPTOR
from proxy.heads import head_of, in_one_chunk
from proxy.inference import InferenceHandler, failure_of
from proxy.response import Response
from proxy.sending import Collected, End, Outlet, send
from proxy.steps import BLOCKING, Steps, carry_out
from proxy.tasks import Loop, Task

log = logging.getLogger("gateway.server")

#: What is answered on the loop by the application, because it never blocks and must never wait.
PROBES: Final = frozenset({"/healthz", "/livez"})


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


class Server(Loop, Protocol):
    """What answering needs of the worker."""

    cfg: Any
    wsgi: Any

    def must_close(self, request: Any) -> bool:
        """Whether the connection can carry no request after this one."""

    def failed(self, request: Any, address: Any, error: BaseException) -> bytes:
        """The answer to a request for which the application had none."""


class Answering:
    """Answers requests: on the loop as far as nothing has to be waited for, else on a thread.

    Those for `inference` go to it past WSGI, which would cost more than all else of a short one. A
    client that takes nothing for `send_timeout` seconds has left. `defer` calls back on the loop's
    thread; all else but `settle` is used there only.
    """

    def __init__(
        self,
        server: Server,
        inference: InferenceHandler,
        send_timeout: float,
        defer: Callable[..., None],
    ) -> None:
        self._server = server
        self._inference = inference
        self._send_timeout = send_timeout
        self._defer = defer
        self._quiet: deque[Client] = deque()  # clients whose answer the loop was not told of

    def begin(self, client: Client, incoming: Incoming) -> None:
        """Begin to answer a request."""
        Task(self._server, client, self._outcome(client, incoming), self._finish).go_on()

    def _finish(self, client: Client, steps: Steps[tuple[End, bytes]]) -> None:
        """Carry out the rest, on any thread, and tell the loop. Raises nothing.

        A loop that has nothing to do about it is not woken.
        """
        end, rest = carry_out(steps)
        if end is not End.KEEP or rest:
            self._defer(client.answered, end, rest)
            return
        self._quiet.append(client)
        # The loop, which looks at what is quiet after it has noted what the client does, sees
        # that now, or we see the note.
        if client.restless:
            self._defer(self.settle)

    def settle(self) -> None:
        """Let clients that have their answer go on."""
        while self._quiet:
            self._quiet.popleft().answered(End.KEEP)

    def _outcome(self, client: Client, incoming: Incoming) -> Steps[tuple[End, bytes]]:
        """Answer; what becomes of the connection, and what is still to be sent. Raises nothing."""
        request = incoming.request
        try:
            if (
                request.method == "POST"
                and request.path in self._inference.paths
                and request.version == (1, 1)
            ):
                return (yield from self._infer(client, incoming))
            if request.path not in PROBES or request.method != "GET":
                yield BLOCKING
            return self._serve(client, incoming)
        except OSError as error:
            if error.errno in NO_DESCRIPTOR:
                short = failure_of(error, request.method, request.path)
                return End.CLOSE, self._server.failed(request, client.address, short)
            log.debug("the client left: %s", error)
            return End.CLOSE, b""
        except Exception as error:  # noqa: BLE001 - counted, logged and answered
            return End.CLOSE, self._server.failed(request, client.address, error)

    def _serve(self, client: Client, incoming: Incoming) -> tuple[End, bytes]:
        """Answer as the WSGI application says."""
        request, collected = incoming.request, Collected()
        response, environ = create(
            request, collected, client.address, client.server, self._server.cfg
        )
        environ["gateway.caller"] = client.caller
        content = self._server.wsgi(environ, response.start_response)
        try:
            if not incoming.whole or self._server.must_close(request):
                response.force_close()
            if isinstance(content, AnswerBody):
                return self._pass_on(client, response, content), b""
            for part in content:
                response.write(part)
            response.close()
            return end_of(response), send(client.socket, collected.take())
        finally:
            close(content)

    def _infer(self, client: Client, incoming: Incoming) -> Steps[tuple[End, bytes]]:
        """Answer an inference request."""
        request = incoming.request
        answer = yield from self._inference.handle(_call_of(request, client))
        request.body = None  # its endpoint has it, and a stream may run for minutes
        closes = not incoming.whole or request.must_close or self._server.must_close(request)
        end = End.CLOSE if closes else End.KEEP
        body = answer.body
        if not isinstance(body, AnswerBody):
            head = head_of(answer, closes=closes, chunked=False)
            return end, send(client.socket, head + body[0])
        away = False
        try:
            head = head_of(answer, closes=closes, chunked=body.unsized)
            whole = yield from body.whole()
            if whole is not None:
                return end, self._send_whole(client, head, body, whole)
            unsent = send(client.socket, head + (yield from body.early()))
            away = yield from body.hand_over(
                unsent, client.socket, closes=closes, over=partial(self._defer, client.over)
            )
            if away:
                return End.AWAY, b""
            yield BLOCKING
            return self._stay(client, request, answer, unsent, closes=closes), b""
        finally:
            if not away:
                body.close()

    @staticmethod
    def _send_whole(client: Client, head: bytes, body: AnswerBody, whole: bytes) -> bytes:
        try:
            return send(client.socket, head + (in_one_chunk(whole) if body.unsized else whole))
        except OSError:
            body.unsent()
            raise

    def _stay(
        self, client: Client, request: Any, answer: Response, unsent: bytes, *, closes: bool
    ) -> End:
        """Pass the answer on from this thread, after `unsent`."""
        response, _ = create(request, None, client.address, client.server, self._server.cfg)
        if closes:
            response.force_close()
        response.start_response(answer.status, answer.fields)
        response.headers_sent = True
        Outlet(client.socket, self._send_timeout).sendall(unsent)
        return self._pass_on(client, response, answer.body)

    def _pass_on(self, client: Client, response: AnswerHead, content: Iterable[bytes]) -> End:
        response.sock = Outlet(client.socket, self._send_timeout)  # type: ignore[assignment]
        return pass_on(response, content)  # which does no more with it than sendall


def _call_of(request: Any, client: Client) -> Call:
    """The call that gunicorn's parsed `request` is."""
    return Call(
        method=request.method,
        path=request.path,
        uri=request.uri,
        fields=joined(request.headers),
        scheme=request.scheme,
        remote=client.address[0] if isinstance(client.address, tuple) else "",
        input=request.body,
        input_ends=True,
        surplus=client.surplus,
        caller=client.caller,
    )


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
