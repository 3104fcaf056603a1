"""The gunicorn worker: gthread, with an end that costs nobody an answer.

It builds on private methods of gunicorn 27.0.1, which is pinned; tests guard each of them.
"""

import errno
import logging
import queue
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

from gunicorn import util
from gunicorn.http import errors, wsgi
from gunicorn.workers.gthread import TConn, ThreadWorker

from metrics import ERRORS
from proxy.body import AnswerBroken
from proxy.errors import GatewayError
from proxy.headers import request_id
from proxy.lingering import Lingering

log = logging.getLogger("gateway.server")

#: Seconds for which a worker that is not the first waits for its first list before it accepts.
FIRST_LIST_SECONDS = 2.0
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: Seconds without a further attempt when the process has no file descriptor left.
ACCEPT_PAUSE_SECONDS = 0.05
#: Bytes of a refused request's body that are read for the sake of keeping the connection; gunicorn
#: reads no more either.
MOST_READ_IN_VAIN = 65_536
_NOT_HTTP: dict[type[Exception], tuple[int, str]] = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
    errors.UnsupportedTransferCoding: (501, "Not Implemented"),
}


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


class ClientConnection(TConn):
    """A client's connection, which the loop closes without waiting for the client."""

    def __init__(
        self,
        config: Any,
        client: socket.socket,
        address: Any,
        server: Any,
        linger: Callable[[socket.socket], None],
    ) -> None:
        super().__init__(config, client, address, server)
        self._linger = linger

    def close(self, graceful: bool = False) -> None:
        """Close it; `graceful` lets the client read what was sent."""
        if graceful:
            self._linger(self.sock)
        else:
            util.close(self.sock)


class GatewayWorker(ThreadWorker):
    """Serves the application, and on SIGTERM what is already in the accept queue too.

    The application has an attribute `gateway` with `begin_draining()` and `wait_until_informed()`.
    """

    #: What the arbiter's handler, which a fork inherits, got before ours were in place.
    early_signals: queue.SimpleQueue[int]

    def run(self) -> None:
        """Serve until told to stop, and then until the last connection is over."""
        self._heed_early_signals()
        self._lingering = Lingering(self.poller, self._lingered)
        if self.age > 1 and self.alive:
            # Another one answers already, or did, and knows the cluster: no client shall notice.
            application: Any = self.wsgi
            application.gateway.wait_until_informed(FIRST_LIST_SECONDS)
        super().run()

    def _heed_early_signals(self) -> None:
        """Stop at once if told to while starting: the arbiter says it only once."""
        while not self.early_signals.empty():
            if self.early_signals.get_nowait() in _STOPPING:
                self.alive = False

    def _begin_draining(self) -> None:
        application: Any = self.wsgi
        application.gateway.begin_draining()
        self.set_accept_enabled(False)
        for listener in self.sockets:
            while select.select([listener], [], [], 0)[0] and self._take(listener):
                pass
            listener.close()

    def accept(self, listener: socket.socket) -> None:
        """Take one connection from the queue, if another worker was not faster."""
        self._take(listener)

    def _take(self, listener: socket.socket) -> bool:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                log.error("connections can't be accepted: %s", error)  # noqa: TRY400
                time.sleep(ACCEPT_PAUSE_SECONDS)
            return False
        self.nr_conns += 1
        self.enqueue_req(
            ClientConnection(self.cfg, client, address, listener.getsockname(), self._linger)
        )
        return True

    def _linger(self, client: socket.socket) -> None:
        self.nr_conns += 1  # a lingering connection is one still: a stopping worker waits for it
        self._lingering.add(client)

    def _lingered(self) -> None:
        self.nr_conns -= 1

    def murder_pending(self) -> None:
        """Close connections that have been silent, or lingering, for too long."""
        super().murder_pending()
        self._lingering.expire()

    def _cap_keepalive(self, deadline: float) -> None:
        """The loop has ended: drain, and let no connection wait for a request past `deadline`.

        Called once, on the loop's thread, as the first thing after the last turn.
        """
        self._begin_draining()
        super()._cap_keepalive(deadline)  # type: ignore[misc] # not in the stubs
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout or deadline, deadline)

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer one request; false if its connection must be closed."""
        response, environ = wsgi.create(
            req, conn.sock, conn.client, conn.server, self.cfg, response_class=AnswerHead
        )
        environ["wsgi.multithread"] = True
        cookies = [value for name, value in req.headers if name == "COOKIE"]
        if len(cookies) > 1:  # gunicorn joins them with a comma, which may be part of one
            environ["HTTP_COOKIE"] = "; ".join(cookies)
        application: Any = self.wsgi
        content = application(environ, response.start_response)
        if self._must_close(req):
            response.force_close()
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
                    _reset(conn.sock)  # nothing else shows this client that something is missing
            elif response.headers_sent:
                log.exception("a bug in an answer's body")
            else:
                raise
            return False  # closed as it is: visibly short of its end
        finally:
            content.close()
        return not response.should_close()

    def _must_close(self, req: Any) -> bool:
        full = len(self.keepalived_conns) >= self.max_keepalived
        unwanted = not self.alive or not self.cfg.keepalive or full
        return unwanted or _asks_to_close(req.headers) or _much_is_left(req.body.reader)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what is no valid HTTP request, and bugs, without repeating what the client sent.

        gunicorn's own answer and log line quote it, keys and query strings included.
        """
        if req is None and isinstance(exc, errors.ParseException):
            status, reason = _NOT_HTTP.get(type(exc), (400, "Bad Request"))
            error = GatewayError("bad_request", f"this is no valid request: {type(exc).__name__}")
            log.warning("%s from %s", error.message, addr[0] if addr else "a local client")
        else:
            status, reason = 500, "Internal Server Error"
            error = GatewayError("internal_error", "the gateway failed; its log says why")
            log.error("a bug in an answer", exc_info=exc)
        ERRORS.labels(error.code).inc()
        try:
            client.settimeout(1.0)
            client.sendall(_answer(status, reason, error))
        except OSError as failure:
            log.debug("the client left: %s", failure)


def _asks_to_close(fields: Iterable[tuple[str, str]]) -> bool:
    """Whether `close` is among the options of `Connection`; gunicorn sees it only alone."""
    options = (value.lower().split(",") for name, value in fields if name == "CONNECTION")
    return any(option.strip() == "close" for listed in options for option in listed)


def _much_is_left(reader: Any) -> bool:
    """Whether so much of a request's body is unread that its client is told to stop sending."""
    chunked_and_unfinished = getattr(reader, "parser", None) is not None
    return chunked_and_unfinished or getattr(reader, "length", 0) > MOST_READ_IN_VAIN


def _reset(client: socket.socket) -> None:
    """Close with a reset instead of a FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _answer(status: int, reason: str, error: GatewayError) -> bytes:
    body = error.body()
    fields = error.response_headers(request_id(None), retry_after=1)
    fields += [("Content-Length", str(len(body))), ("Connection", "close")]
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
