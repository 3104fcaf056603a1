"""Clients' connections on the loop: what a client does, or fails to do, costs no thread."""

import contextlib
import math
import selectors
import socket
from typing import Any, Final

from gunicorn import util

from proxy.arrival import Incoming
from proxy.caller import Caller
from proxy.deadlines import NEVER
from proxy.epoll import EVENT_HANG_UP
from proxy.errors import GatewayError
from proxy.phases import BODY_CREDIT_SECONDS, BODY_LAG_SECONDS, BODY_RATE, HEAD_SECONDS, Phase
from proxy.sending import End, send
from proxy.surroundings import Surroundings
from relay.sockets import set_reset, untaken

#: Bytes kept of what a client sends before it has its answer; beyond them it is not read.
MOST_EARLY_BYTES: Final = 65_536
_RECEIVE_BYTES: Final = 65_536
#: Bytes of a request up to which it may still come when larger ones may not.
_SMALL_BYTES: Final = 65_536
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Seconds in which the rest of a request must come.
_GRANTED: Final = {Phase.HEAD: HEAD_SECONDS, Phase.BODY: BODY_LAG_SECONDS}
#: Phases in which the client may have something to say, or leave.
_LISTENING: Final = (Phase.HEAD, Phase.BODY, Phase.BUSY)


class Client:
    """One connection: a state machine on the loop's thread, driven by what the socket allows.

    While a request is being answered its thread may send; nothing else touches `socket` elsewhere.
    `caller` is the latest request's. `surplus` says that there is no room for it to stay.
    """

    caller: Caller

    __slots__ = (
        *("address", "caller", "deadline", "server", "slot", "socket", "surplus"),
        *("_around", "_arrival", "_charged", "_end", "_gone", "_phase", "_rest", "_returned"),
        *("_untaken", "_watched"),
    )

    def __init__(
        self, around: Surroundings, sock: socket.socket, address: Any, server: Any
    ) -> None:
        self.socket = sock
        self.address = address
        self.server = server
        self.surplus = False
        self.deadline = math.inf
        self.slot = NEVER
        self._around = around
        self._arrival = around.arrival(address)
        self._charged = 0  # bytes of ours among the unfinished ones
        self._gone = False
        self._rest = memoryview(b"")
        self._end = End.CLOSE
        self._untaken = 0
        self._returned: bool | None = None
        self._phase = Phase.IDLE
        self._watched = 0

    def begin(self) -> None:
        """Answer the request that mostly has come with the connection, and wait for what has not.

        The request comes first: its endpoint may be at work while it is noted what to wait for.
        """
        self._receive()
        if self._phase is Phase.IDLE:
            self._await_next()
        elif self._phase in _LISTENING and not self._gone:
            self._watch(selectors.EVENT_READ)

    def readable(self, _: object = None) -> None:
        """The client has sent something, or left."""
        if self._watched != selectors.EVENT_READ:
            return  # what came first in this turn has changed that
        self._receive()

    def _receive(self) -> None:
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if self._phase is Phase.BUSY:
            self._around.settle()  # it may have its answer
        if not data:
            self._left()
        elif self._phase is Phase.BUSY:
            self._arrival.hold(data)
            if self._arrival.held > MOST_EARLY_BYTES:
                self._watch(EVENT_HANG_UP)
            self._around.settle()
        else:
            self._take(data)

    def _hung_up(self, _: object = None) -> None:
        """The client has left while it is not read."""
        if self._watched != EVENT_HANG_UP:
            return  # as above
        self._around.settle()
        self._left()

    @property
    def restless(self) -> bool:
        """Whether the client has left, or sent more, while its request was being answered."""
        return self._gone or self._arrival.held > 0

    @property
    def waited(self) -> float:
        """Seconds it has been without a request, or lags behind with one; below 0 if neither."""
        around = self._around
        granted = around.keepalive if self._phase is Phase.IDLE else _GRANTED.get(self._phase)
        return -1.0 if granted is None else granted - (self.deadline - around.clock())

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come that was not read yet; closing would reset it."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass  # it is broken, which whoever reads it notices
        return False

    def _take(self, data: bytes) -> None:
        try:
            incoming = self._arrival.feed(data)
        except Exception as error:  # noqa: BLE001 - answered; the loop must live on
            self._refuse(error)
            return
        if incoming is None:
            self._wait(len(data))
        else:
            self._dispatch(incoming)

    def _wait(self, size: int) -> None:
        """More must come, and in time."""
        around, arrival = self._around, self._arrival
        around.unfinished += arrival.held - self._charged
        self._charged = arrival.held
        most = around.most_unfinished
        if self._charged <= _SMALL_BYTES:
            most += most // 8  # few large ones must not keep all others out
        if around.unfinished > most:
            self._give_up(
                GatewayError("gateway_overloaded", "too many requests are arriving at once")
            )
            return
        now = around.clock()
        if not arrival.in_body:
            if self._phase is Phase.IDLE and self._charged:
                self._phase = Phase.HEAD
                around.deadlines.set(self, now + HEAD_SECONDS)
        elif self._phase is Phase.BODY:
            latest = min(self.deadline + size / BODY_RATE, now + BODY_CREDIT_SECONDS)
            around.deadlines.set(self, latest)
        else:
            self._phase = Phase.BODY
            around.deadlines.set(self, now + BODY_LAG_SECONDS)
            if arrival.expects_continue:
                self._continue()

    def _continue(self) -> None:
        with contextlib.suppress(OSError):  # the next thing heard of it is its end
            send(self.socket, _CONTINUE)

    def _give_up(self, why: GatewayError) -> None:
        incoming = self._arrival.give_up(why)
        if incoming is None:
            self._refuse(why)
        else:
            self._dispatch(incoming)

    def _dispatch(self, incoming: Incoming) -> None:
        self._answering()
        if not self._gone:
            self.caller = Caller()
        if incoming.expects_continue:
            self._continue()
        self._around.dispatch(self, incoming)

    def _answering(self) -> None:
        self._phase = Phase.BUSY
        self.deadline = math.inf
        self._around.unfinished -= self._charged
        self._charged = 0

    def _refuse(self, error: Exception) -> None:
        self._answering()
        self.answered(End.CLOSE, self._around.refused(self, error))

    def _left(self) -> None:
        # A client that closes its sending side only is taken to have left, as nginx does: nobody
        # can tell the two apart, and an answer for nobody is expensive here.
        self._gone = True
        self._watch(0)
        if self._phase is Phase.BUSY:
            self.caller.depart()
            self._around.settle()
            return
        self.caller = Caller()
        self.caller.depart()
        incoming = self._arrival.give_up(ConnectionResetError("the client left"))
        if incoming is None:
            self._close()
        else:
            self._dispatch(incoming)  # which counts it

    def answered(self, end: End, rest: bytes = b"") -> None:
        """The request has its answer, but for `rest`; what becomes of the connection is `end`."""
        if rest:
            self._phase = Phase.SENDING
            self._rest = memoryview(rest)
            self._end = end
            self.writable()
        elif end is End.AWAY:
            self._phase = Phase.AWAY
            self._watch(0)
            if self._returned is not None:
                self.over(self._returned)
        else:
            self._finish(end)

    def over(self, reusable: bool) -> None:
        """What was done elsewhere is over; unless `reusable` nothing is left to do but to close.

        May come before `answered`.
        """
        if self._phase is not Phase.AWAY:
            self._returned = reusable
            return
        self._returned = None
        if reusable:
            self._finish(End.KEEP)
        else:
            self._close()

    def writable(self, _: object = None) -> None:
        """Send as much of the rest as the client takes."""
        if self._phase is not Phase.SENDING:
            return  # as above
        try:
            sent = self.socket.send(self._rest)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        self._rest = self._rest[sent:]
        if self._rest:
            self._watch(selectors.EVENT_WRITE)
            if sent or self.deadline == math.inf:
                self._give_time()
        else:
            self.deadline = math.inf
            self._finish(self._end)

    def _give_time(self) -> None:
        self._untaken = untaken(self.socket)
        self._around.deadlines.set(self, self._around.clock() + self._around.send_timeout)

    def _finish(self, end: End) -> None:
        if self._gone or end is End.RESET:
            self._close(reset=end is End.RESET)
        elif end is End.CLOSE:
            self._watch(0)
            self._phase = Phase.OVER
            self._around.deadlines.forget(self)
            self._around.linger(self)
        elif self._arrival.held:
            self._phase = Phase.BUSY
            self._watch(self._watched & selectors.EVENT_READ)
            self._around.defer(self._resume)  # others come first, and nothing grows
        else:
            self._await_next()

    def _await_next(self) -> None:
        self._phase = Phase.IDLE
        self._watch(selectors.EVENT_READ)
        self._around.deadlines.set(self, self._around.clock() + self._around.keepalive)

    def _resume(self) -> None:
        """Go on with a request that came before the one before it was answered."""
        if self._gone:
            self._close()
        else:
            self._await_next()
            self._take(b"")

    def cap(self, deadline: float) -> None:
        """Don't wait for a request any longer than that."""
        if self._phase is Phase.IDLE and self.deadline > deadline:
            self._around.deadlines.set(self, deadline)

    def expired(self) -> None:
        """What was waited for did not come in time."""
        if self._phase is Phase.IDLE and self.is_silent:
            self._close()
        elif self._phase is Phase.IDLE:
            self._receive()  # it came in this very turn
        elif self._phase is Phase.SENDING:
            if untaken(self.socket) < self._untaken:
                self._give_time()
            else:
                self._close(reset=True)
        else:
            part = "head" if self._phase is Phase.HEAD else "body"
            self._refuse(
                GatewayError("request_timeout", f"the request's {part} did not come in time")
            )

    def _watch(self, events: int) -> None:
        if events == self._watched:
            return
        poller = self._around.poller
        callback = self.readable
        if events != selectors.EVENT_READ:
            callback = self.writable if events == selectors.EVENT_WRITE else self._hung_up
        if not self._watched:
            poller.register(self.socket, events, callback)
        elif events:
            poller.modify(self.socket, events, callback)
        else:
            poller.unregister(self.socket)
        self._watched = events

    def _close(self, *, reset: bool = False) -> None:
        self._watch(0)
        self._phase = Phase.OVER
        around = self._around
        around.unfinished -= self._charged
        self._charged = 0
        around.deadlines.forget(self)
        if reset:
            set_reset(self.socket)
        util.close(self.socket)
        around.closed(self)
