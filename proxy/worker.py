"""The gunicorn worker: gthread, where a client costs no thread before its request is complete.

It builds on private methods of gunicorn 27.0.1, which is pinned; tests guard each of them.
"""

import errno
import logging
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from selectors import EVENT_READ
from typing import Any, Final

from gunicorn.workers import gthread
from gunicorn.workers.gthread import ThreadWorker

from proxy.answering import Answering, close, create, pass_on
from proxy.arrival import Arrival, Incoming
from proxy.clients import Client
from proxy.deadlines import Deadlines
from proxy.epoll import Epoll
from proxy.lingering import Lingering
from proxy.link import RELAY_LINK
from proxy.refusal import refusal
from proxy.room import HASTE_SECONDS, PAUSE_SECONDS, SPARED_SECONDS, Room
from proxy.secure import ClientConnection, much_is_left
from proxy.sending import End
from proxy.tasks import Soon
from proxy.threads import Threads
from proxy.vanished import notice_vanished
from relay.sockets import set_reset

log = logging.getLogger("gateway.server")

#: Seconds for which a worker waits for its first list before it accepts; the very first one, for
#: which nobody can answer, says soon what is wrong.
FIRST_LIST_SECONDS = 2.0
VERY_FIRST_LIST_SECONDS = 0.5
#: Seconds for which it waits for the relay; without it, a stream would end with this worker.
RELAY_SECONDS = 1.0
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: Seconds without a further attempt when the process has no file descriptor left.
ACCEPT_PAUSE_SECONDS = 0.05
#: Seconds between two log lines that say so.
_COMPLAINT_SECONDS: Final = 1.0
#: Seconds between two looks at what is not an event: deadlines, and whether the parent lives.
_HOUSEKEEPING_SECONDS: Final = 0.02
#: Seconds a connection is spared while descriptors lack, which are not for connections alone.
_PATIENCE_SECONDS: Final = 5.0
#: How many of the largest bodies may be on their way at once.
_BODIES_AT_ONCE: Final = 8
#: The most connections that are accepted in one turn of the loop.
_MOST_ACCEPTED: Final = 64
#: Seconds a stopping worker waits for a request on a connection that is kept.
_STOPPING_SECONDS: Final[float] = gthread.STOP_KEEPALIVE_LINGER  # type: ignore[attr-defined]


class GatewayWorker(ThreadWorker):
    """Serves the application, and on SIGTERM what is already in the accept queue too.

    The application has an attribute `gateway` with `settings`, `inference`, `begin_draining()`,
    `wait_until_informed()`, `wait_until_linked()` and `streams`.

    Under TLS every connection has a thread, as in gthread. Otherwise `self` is what the connections
    on its loop share, as `proxy.clients.Surroundings` says.
    """

    _notifies_again = 0.0
    _accepted = 0  # in this turn
    _accepting: bool  # gunicorn's
    poller: Any  # ours, not gunicorn's
    #: What the arbiter's handler, which a fork inherits, got before ours were in place.
    early_signals: queue.SimpleQueue[int]

    def get_thread_pool(self) -> Any:
        """The threads that answer requests."""
        if self.cfg.is_ssl:
            return super().get_thread_pool()
        self._threads = Threads(self.cfg.threads)
        return self._threads

    def run(self) -> None:
        """Serve until told to stop, and then until the last connection is over."""
        self._heed_early_signals()
        self._prepare()
        # Others may answer already, and know the cluster: a probe that one of them passes must not
        # send clients to this one too early. Not even if it stops again: it takes what is in the
        # accept queue first.
        very_first = self.age == 1
        self._gateway.wait_until_informed(
            VERY_FIRST_LIST_SECONDS if very_first else FIRST_LIST_SECONDS
        )
        if self.alive and not self._is_ssl:
            self._gateway.wait_until_linked(RELAY_SECONDS)
            self._give_way()
        super().run()
        self._outlast_streams()

    def _give_way(self) -> None:
        """Let the relay go first where cores are few: its tokens are due, a request may wait.

        A container's processes share its part of the machine, and the kernel gives most of it to
        whoever is never idle, as a busy worker is. On Linux a niceness is a thread's own, and one
        is left out: that which starts the relay, which could not take it back.
        """
        settings = self._gateway.settings
        if not (settings.relay and settings.niceness):
            return
        ours, others = threading.current_thread(), threading.enumerate()
        numbers = [one.native_id for one in others if one is not ours and one.name != RELAY_LINK]
        # Asked, because of the thread that was forked Python remembers the number before that.
        for number in filter(None, [threading.get_native_id(), *numbers]):
            try:
                before = os.getpriority(os.PRIO_PROCESS, number)
                os.setpriority(os.PRIO_PROCESS, number, before + settings.niceness)
            except OSError as error:  # it has ended, or the system does not allow it
                log.debug("thread %d does not give way to the relay: %s", number, error)

    def _outlast_streams(self) -> None:
        """Stay until streams that other workers left to this one are over, too.

        The last worker's end is the gateway's, and with it the relay's.
        """
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while self._gateway.streams and time.monotonic() < deadline:
            self.notify()
            time.sleep(0.05)

    def notify(self) -> None:
        """Tell the arbiter that this worker lives; once a second is often enough."""
        now = time.monotonic()
        if now >= self._notifies_again:
            self._notifies_again = now + 1.0
            super().notify()

    def _prepare(self) -> None:
        # As plain attributes: gunicorn's parser asks for twenty of them with each request.
        vars(self.cfg).update({name: item.get() for name, item in self.cfg.settings.items()})
        application: Any = self.wsgi
        self._gateway = application.gateway
        settings = self._gateway.settings
        inference = self._gateway.inference
        self._is_ssl = self.cfg.is_ssl
        self.poller.close()  # nothing is registered yet
        self.poller = Epoll()
        self._names = {listener: listener.getsockname() for listener in self.sockets}
        self._lingering = Lingering(self.poller, self._lingered)
        self._clients: set[Client] = set()
        self._room = Room(self.worker_connections, self._clients, self._lingering)
        self._usual = self._room.usual
        self.max_keepalived = min(self.max_keepalived, self._usual)
        # The relay has two descriptors for each stream of all workers, and the same limit.
        inference.bound(max(1, self._usual // self.cfg.workers))
        self._accepts_again = self._complains_again = self._makes_room_again = 0.0
        self._most_body = settings.max_body_bytes
        self._wants_body = inference.wants_body
        self._answering = Answering(self, inference, settings.send_timeout, self.method_queue.defer)
        self.settle = self._answering.settle
        self.clock = time.monotonic
        self.deadlines = Deadlines(self.clock)
        self.soon = Soon(self.clock)
        self.keepalive = float(self.cfg.keepalive)
        self.send_timeout = settings.send_timeout
        self.unfinished = 0
        self.most_unfinished = _BODIES_AT_ONCE * self._most_body
        for listener in self.sockets:
            notice_vanished(listener, settings.send_timeout)

    def _heed_early_signals(self) -> None:
        """Stop at once if told to while starting: the arbiter says it only once."""
        while not self.early_signals.empty():
            if self.early_signals.get_nowait() in _STOPPING:
                self.alive = False

    def _begin_draining(self) -> None:
        self._gateway.begin_draining()
        self.set_accept_enabled(False)
        for listener in self.sockets:
            while select.select([listener], [], [], 0)[0] and self._take(listener):
                pass
            listener.close()

    def set_accept_enabled(self, enabled: bool | None) -> None:
        """Watch the listeners or not; not while there are no file descriptors.

        They are urgent, as gunicorn's are not: it takes one connection a turn, and a turn is as
        long as all that is ready.
        """
        if bool(enabled) is self._accepting or (enabled and time.monotonic() < self._accepts_again):
            return
        for listener in self.sockets:
            if enabled:
                listener.setblocking(False)
                self.poller.register(listener, EVENT_READ, self.accept, urgent=True)
            else:
                self.poller.unregister(listener)
        self._accepting = bool(enabled)

    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        """Turns of the loop, until it is time again for what gunicorn does between two of them.

        That is housekeeping, and takes longer than a turn itself.
        """
        if self._accepts_again:
            timeout = ACCEPT_PAUSE_SECONDS
            if time.monotonic() >= self._accepts_again:
                self._accepts_again = 0.0
        if self.nr_conns > self._usual:
            timeout = self._relieve()
        wait = self.deadlines.wait(1.0 if timeout is None else timeout)
        ends = time.monotonic() + min(wait, _HOUSEKEEPING_SECONDS)
        while True:
            self._accepted = 0
            self.poller.turn(self.soon.wait(wait) if self.soon.due else wait)
            if self.soon.due:
                self.soon.expire()
            self.settle()
            wait = ends - time.monotonic()
            usual = self.alive and self._accepting and self.nr_conns <= self._usual
            if wait <= 0 or not usual:
                return

    def _relieve(self) -> float:
        """Make room, but do not look at all connections in vain each turn; seconds until again."""
        now = time.monotonic()
        if now >= self._makes_room_again:
            none_left = self.nr_conns >= self.worker_connections
            hurry = none_left and self._others_wait()
            made = self._room.make(HASTE_SECONDS if hurry else SPARED_SECONDS)
            pause = HASTE_SECONDS if none_left else PAUSE_SECONDS
            self._makes_room_again = now if made else now + pause
        return self._makes_room_again - now

    def _others_wait(self) -> bool:
        return self.alive and any(select.select([one], [], [], 0)[0] for one in self.sockets)

    def accept(self, listener: socket.socket) -> None:
        """Take one connection from the queue, if another worker was not faster.

        Not if there are as many as there may be; nor, in this turn, if a flood of new ones would
        keep the others from theirs.
        """
        if self.nr_conns >= self.worker_connections:
            self.set_accept_enabled(False)  # until the loop finds that there are fewer
        elif self._accepted < _MOST_ACCEPTED:
            self._accepted += 1
            self._take(listener)

    def _take(self, listener: socket.socket) -> bool:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                self._pause_accepting(error)
            return False
        self.nr_conns += 1
        if self.nr_conns > self._usual:
            self._relieve()  # so that none is refused for others that idle
        server = self._names[listener]
        if self._is_ssl:
            self.enqueue_req(ClientConnection(self.cfg, client, address, server, self._linger))
        else:
            client.setblocking(False)
            newcomer = Client(self, client, address, server)
            newcomer.surplus = self.nr_conns > self._usual
            self._clients.add(newcomer)
            newcomer.begin()
        return True

    def _pause_accepting(self, why: OSError) -> None:
        now = time.monotonic()
        if now >= self._complains_again:
            self._complains_again = now + _COMPLAINT_SECONDS
            log.error("connections can't be accepted: %s", why)
        self._accepts_again = now + ACCEPT_PAUSE_SECONDS
        self.set_accept_enabled(False)
        self._room.make(_PATIENCE_SECONDS)

    def _linger(self, client: socket.socket) -> None:
        self.nr_conns += 1  # a lingering connection is one still: a stopping worker waits for it
        self._lingering.add(client)

    def _lingered(self) -> None:
        self.nr_conns -= 1

    def murder_pending(self) -> None:
        """Close connections that have been silent, or lingering, for too long."""
        super().murder_pending()
        self._lingering.expire()
        self.deadlines.expire()

    def _cap_keepalive(self, deadline: float) -> None:
        """The loop has ended: drain, and let no connection wait for a request past `deadline`.

        Called once, on the loop's thread, as the first thing after the last turn.
        """
        self._begin_draining()
        super()._cap_keepalive(deadline)  # type: ignore[misc] # not in the stubs
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout or deadline, deadline)
        self.keepalive = min(self.keepalive, _STOPPING_SECONDS)
        for client in self._clients:
            client.cap(deadline)

    def arrival(self, address: Any) -> Arrival:
        """The requests of a new connection."""
        return Arrival(self.cfg, address, self._most_body, self._wants_body)

    def dispatch(self, client: Client, incoming: Incoming) -> None:
        """Answer a request."""
        self._count()
        if client.surplus and self.nr_conns <= self._usual:
            client.surplus = False  # others have left meanwhile
        self._answering.begin(client, incoming)

    def _count(self) -> None:
        """One more request; after the last of this worker ask for a reload, which replaces all.

        To end, as gthread does, would leave nobody to accept until the last stream is over.
        """
        self.nr += 1
        if self.nr >= self.max_requests:
            self.max_requests = sys.maxsize
            log.info("it has had %d requests, and asks for a reload", self.nr)
            os.kill(self.ppid, signal.SIGHUP)

    def run_on_thread(self, job: Callable[..., None], *arguments: Any) -> None:
        """Do what may block."""
        self._threads.run(job, *arguments)

    def defer(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call back on the loop's thread, later. May be called from any thread."""
        self.method_queue.defer(callback, *arguments)

    def linger(self, client: Client) -> None:
        """Close the connection of `client` when the client does."""
        self._clients.discard(client)
        self._lingering.add(client.socket)

    def closed(self, client: Client) -> None:
        """The connection of `client` is closed."""
        self._clients.discard(client)
        self.nr_conns -= 1

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer one request under TLS; false if its connection must be closed."""
        self._count()
        response, environ = create(req, conn.sock, conn.client, conn.server, self.cfg)
        application: Any = self.wsgi
        content = application(environ, response.start_response)
        try:
            if self.must_close(req) or much_is_left(req.body.reader):
                response.force_close()
            end = pass_on(response, content)
        finally:
            close(content)
        if end is End.RESET:
            set_reset(conn.sock)
            conn.sock.close()
        return end is End.KEEP

    def must_close(self, request: Any) -> bool:
        """Whether the connection can carry no request after this one."""
        full = self.nr_conns > self.max_keepalived
        unwanted = not self.alive or not self.cfg.keepalive or full
        return unwanted or _asks_to_close(request.headers)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what is no valid HTTP request, and bugs, without repeating what the client sent.

        gunicorn's own answer and log line quote it, keys and query strings included.
        """
        answer = self.failed(req, addr, exc)
        try:
            client.settimeout(1.0)
            client.sendall(answer)
        except OSError as failure:
            log.debug("the client left: %s", failure)

    def refused(self, client: Client, error: Exception) -> bytes:
        """The answer to what can't be answered by the application."""
        return self.failed(None, client.address, error)

    def failed(self, request: Any, address: Any, error: BaseException) -> bytes:
        """The answer to what is no valid request, or to one for which there was none."""
        return refusal(request, address, error)


def _asks_to_close(fields: Iterable[tuple[str, str]]) -> bool:
    """Whether `close` is among the options of `Connection`; gunicorn sees it only alone."""
    for name, value in fields:
        if name == "CONNECTION" and "close" in [x.strip() for x in value.lower().split(",")]:
            return True
    return False
