"""The relay: one thread, one epoll, all streams of a gateway."""

import errno
import select
import socket
import time
from collections.abc import Callable

from relay.lingering import Lingering
from relay.link import Ending, Link
from relay.messages import Order, Outcome, Report, unpack
from relay.sockets import leaves_room, set_reset, shut_down
from relay.stream import Stream
from relay.timers import Timers

_READ = select.EPOLLIN
#: Of what an endpoint sent the kernel tells once: looking whether it was taken costs it each time.
_MORE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITE = select.EPOLLOUT
#: Seconds after which a client whose stream was broken off must have taken the rest of it.
_LAST_WORDS_SECONDS = 5.0
_TURN_SECONDS = 1.0
#: Seconds without a further attempt to accept a worker when there is no descriptor for it.
_ACCEPT_PAUSE_SECONDS = 0.05


class Relay:
    """Takes streams from workers that connect to `listener`, until `gateway_is_gone` is true.

    Owns every descriptor it gets.
    """

    def __init__(self, listener: socket.socket, gateway_is_gone: Callable[[], bool]) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._gateway_is_gone = gateway_is_gone
        self._epoll = select.epoll()
        self._epoll.register(listener, _READ)
        self._links: dict[int, Link] = {}
        self._reading: dict[int, Stream] = {}  # by their endpoint's descriptor, unless paused
        self._clients: dict[int, Stream] = {}  # by their client's descriptor: all streams
        self._timers = Timers()
        self._unclaimed: list[Ending] = []  # of streams that no worker has accounted for
        self._ended: list[tuple[Stream, Report]] = []  # in this turn
        self._lingering = Lingering(self._epoll)
        self._checked = time.monotonic()
        self._accepts_again = 0.0  # 0 while it does

    def run(self) -> None:
        """Serve until the gateway is gone and the last client has got what is due."""
        while not self._over():
            self.turn(self._timeout())

    def _timeout(self) -> float:
        longest = _ACCEPT_PAUSE_SECONDS if self._accepts_again else _TURN_SECONDS
        return min(longest, max(0.0, self._timers.next() - time.monotonic()))

    def turn(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for something to do, and do it.

        Links come last: descriptors closed in this turn must not be given to a new stream while
        events of the former are still to be looked at.
        """
        links: list[int] = []
        reading, clients = self._reading, self._clients
        events = self._epoll.poll(timeout)
        now = time.monotonic()
        for fd, event in events:
            stream = reading.get(fd)
            if stream is not None:
                if stream.pull(now) or event != _READ:
                    self._settle(stream, now)
            elif (stream := clients.get(fd)) is not None:
                self._client_event(stream, event, now)
            elif not self._lingering.handles(fd):
                links.append(fd)
        for stream in self._timers.expired(now):
            stream.overdue(now)
            self._settle(stream, now)
        self._lingering.expire(now)
        for fd in links:
            self._link_event(fd, now)
        if self._accepts_again and now >= self._accepts_again:
            self._accepts_again = 0.0
            self._epoll.modify(self._listener, _READ)
        if self._ended:
            self._report()

    def _client_event(self, stream: Stream, event: int, now: float) -> None:
        if event & _GONE:
            stream.abandon("left", "the client closed its connection")
        elif event & _WRITE:
            stream.flush(now)
        self._settle(stream, now)

    def _settle(self, stream: Stream, now: float) -> None:
        """Watch for what the stream waits for now, or end it."""
        fd = stream.upstream.fileno()
        if stream.outcome is not None:
            self._let_go(stream)
            if not stream.pending:
                self._end(stream, now)
                return
        if stream.pending and not stream.waits:  # the client is slow: so is the endpoint
            if self._reading.pop(fd, None) is not None:
                self._epoll.unregister(fd)
            self._epoll.modify(stream.client.fileno(), _GONE | _WRITE)
            stream.wait(now)
            self._timers.arm(stream)
        elif not stream.pending and fd not in self._reading:
            self._epoll.modify(stream.client.fileno(), _GONE)
            stream.waits = False
            self._reading[fd] = stream
            self._epoll.register(fd, _MORE)
            stream.last_moved = now
        elif not stream.pending:
            self._epoll.modify(fd, _MORE)  # there may be more, which nothing would tell again

    def _let_go(self, stream: Stream) -> None:
        """Nothing more is wanted of the endpoint, although its client may have to get something."""
        fd = stream.upstream.fileno()
        if fd < 0:
            return
        if self._reading.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        if stream.outcome != "complete":
            shut_down(stream.upstream)
        stream.upstream.close()

    def _end(self, stream: Stream, now: float) -> None:
        client = stream.client.fileno()
        del self._clients[client]
        self._timers.forget(stream)
        self._epoll.unregister(client)
        report = stream.report(now)
        if report.outcome == "complete" and not stream.order.closes:
            stream.client.close()  # the worker has one too and goes on with it
        elif report.outcome in ("left", "stalled"):
            set_reset(stream.client)
            stream.client.close()
        else:
            self._lingering.add(stream.client, now)
        self._ended.append((stream, report))

    def _report(self) -> None:
        by_link: dict[Link, list[Ending]] = {}
        for stream, report in self._ended:
            if isinstance(stream.owner, Link):
                by_link.setdefault(stream.owner, []).append((stream.order, report))
            else:
                self._unclaimed.append((stream.order, report))
        self._ended.clear()
        for link, endings in by_link.items():
            link.report(endings)
            self._flush(link)
        if self._unclaimed:
            self._hand_out()

    def _flush(self, link: Link) -> None:
        done = link.flush()
        self._epoll.modify(link.socket.fileno(), _READ if done else _READ | _WRITE)

    def _link_event(self, fd: int, now: float) -> None:
        link = self._links.get(fd)
        if link is None:
            self._accept(now)
            return
        while (received := link.receive()) is not None:
            message, descriptors = received
            if not message:
                self._lost(link)
                return
            self._message(link, message, descriptors, now)
        self._flush(link)

    def _accept(self, now: float) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):  # no descriptor is left
                self._accepts_again = now + _ACCEPT_PAUSE_SECONDS
                self._epoll.modify(self._listener, 0)
            return
        self._links[connection.fileno()] = Link(connection)
        self._epoll.register(connection, _READ)

    def _message(self, link: Link, message: bytes, descriptors: list[int], now: float) -> None:
        document, raw = unpack(message)
        kind = document.pop("kind")
        if kind == "stream":
            self._take_on(link, document, raw, descriptors, now)
        elif kind == "hello":
            link.greet(document["events"], descriptors, leaves=document["leaves"])
            self._hand_out()
        elif kind == "leave":
            link.active = False
            self._hand_out()
            link.answer("left")
        elif kind == "ping":
            link.answer("pong")
        elif kind == "cut":
            self._cut(link, now)

    def _take_on(
        self,
        link: Link,
        document: dict[str, object],
        raw: bytes,
        descriptors: list[int],
        now: float,
    ) -> None:
        head = document.pop("head")
        assert isinstance(head, int)  # noqa: S101 - our own worker's
        order = Order(**document)  # type: ignore[arg-type]
        # Whichever family they are of: nothing here depends on it, and asking costs system calls.
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd) for fd in descriptors]
        if len(sockets) != 2 or not leaves_room(descriptors):
            for one in sockets:
                one.close()
            why = "no descriptors left"
            link.report([(order, Report(order.id, "refused", why, 0, None, now, False))])
            return
        client, upstream = sockets
        client.setblocking(False)
        upstream.setblocking(False)
        stream = Stream(order, client, upstream, link.events, now)
        stream.owner = link
        self._timers.add(stream)
        self._clients[client.fileno()] = stream
        self._epoll.register(client, _GONE)
        self._reading[upstream.fileno()] = stream
        self._epoll.register(upstream, _MORE)
        stream.begin(raw[:head], raw[head:], now)
        if stream.pending or stream.outcome is not None:
            self._settle(stream, now)
        if not link.active:
            self._hand_out()

    def _hand_out(self) -> None:
        """Give streams of workers that stop or died to one that does not."""
        heir = next((link for link in self._links.values() if link.active), None)
        if heir is None:
            return
        moving: dict[Link, list[int]] = {}
        adopted: list[Order] = []
        for stream in self._clients.values():
            owner = stream.owner
            if isinstance(owner, Link) and owner.active:
                continue
            if isinstance(owner, Link):
                moving.setdefault(owner, []).append(stream.order.id)
            stream.owner = heir
            stream.order.closes = True  # its client's connection was the other's to go on with
            adopted.append(stream.order)
        late, self._unclaimed = self._unclaimed, []
        adopted += [order for order, _ in late]
        heir.adopt((order.id, order.facts) for order in adopted)
        heir.report(late)
        self._flush(heir)
        for link, ids in moving.items():
            link.moved(ids)
            self._flush(link)

    def _lost(self, link: Link) -> None:
        """A worker has ended or died: its streams go on."""
        fd = link.socket.fileno()
        del self._links[fd]
        self._epoll.unregister(fd)
        link.socket.close()
        self._unclaimed += link.unheard()
        for stream in self._clients.values():
            if stream.owner is link:
                stream.owner = None
                stream.order.closes = True
        for stream, _ in self._ended:
            if stream.owner is link:
                stream.owner = None
        self._hand_out()

    def _cut(self, link: Link | None, now: float) -> None:
        for stream in list(self._clients.values()):
            if link is None or stream.owner is link:
                self._break_off(stream, "draining", "the gateway is stopping", now)

    def _break_off(self, stream: Stream, outcome: Outcome, reason: str, now: float) -> None:
        if stream.outcome is None:
            stream.fail(outcome, reason, now)
        stream.order.send = min(stream.order.send, _LAST_WORDS_SECONDS)
        self._settle(stream, now)
        self._timers.arm(stream)

    def _over(self) -> bool:
        """Whether nothing is left to do, now that the gateway is gone."""
        if self._links:
            return False
        now = time.monotonic()
        if now - self._checked < _TURN_SECONDS and (self._clients or self._lingering.any):
            return False
        self._checked = now
        if not self._gateway_is_gone():
            return False
        self._cut(None, now)
        self._ended.clear()
        return not self._clients and not self._lingering.any
