"""The gunicorn worker: gthread, with an end that costs nobody an answer.

It builds on private methods of gunicorn 27.0.1, which is pinned; tests guard each of them.
"""

import select
import socket
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.workers.gthread import ThreadWorker

from proxy.body import AnswerBroken


class AnswerHead(wsgi.Response):
    """gunicorn's response, without a second `Date` or `Server` where the endpoint sent its own."""

    def default_headers(self) -> list[str]:
        """The status line and the fields the server adds."""
        given = {name.lower() for name, _ in self.headers}
        lines = super().default_headers()
        return [lines[0], *(x for x in lines[1:] if x.partition(":")[0].lower() not in given)]


class GatewayWorker(ThreadWorker):
    """Serves the application, and on SIGTERM what is already in the accept queue too.

    The application has an attribute `gateway` with `start()`, `begin_draining()` and `stop()`.
    """

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: begin to drain, on the loop: interrupted code may hold any lock here."""
        if self.alive:
            self.method_queue.defer(self._begin_draining)
        super().handle_exit(sig, frame)

    def _begin_draining(self) -> None:
        application: Any = self.wsgi
        application.gateway.begin_draining()
        self.set_accept_enabled(False)
        for listener in self.sockets:
            while select.select([listener], [], [], 0)[0]:
                waiting = self.nr_conns
                self.accept(listener)
                if self.nr_conns == waiting:
                    break  # another worker was faster
            listener.close()

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer one request; false if its connection must be closed."""
        response, environ = wsgi.create(
            req, conn.sock, conn.client, conn.server, self.cfg, response_class=AnswerHead
        )
        environ["wsgi.multithread"] = True
        full = len(self.keepalived_conns) >= self.max_keepalived
        if not self.alive or not self.cfg.keepalive or full:
            response.force_close()
        application: Any = self.wsgi
        content = application(environ, response.start_response)
        try:
            for part in content:
                response.write(part)
            response.close()
        except OSError:
            raise  # the client left
        except Exception as error:
            if not response.headers_sent:
                raise
            if not isinstance(error, AnswerBroken):
                self.log.exception("a bug in an answer's body")
            return self._break_off(conn.sock)
        finally:
            content.close()
        return not response.should_close()

    def _break_off(self, client: socket.socket) -> bool:
        """Close so that the client sees a truncated answer and still reads all that was sent."""
        util.close_graceful(client)  # a FIN and a short linger: a reset would destroy unread bytes
        return False
