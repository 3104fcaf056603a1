"""The worker's side of its connection to the relay."""

import array
import contextlib
import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from metrics import ERRORS
from proxy.relayprocess import RelayProcess, kill
from relay.messages import MAX_MESSAGE_BYTES, Order, Report, pack, unpack, values
from relay.sockets import untaken
from relay.tally import Tally

log = logging.getLogger("gateway.relay")

#: The name of the thread that hears from the relay, and starts one where there is none.
RELAY_LINK: Final = "relay-link"
_GROUP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Seconds between attempts to reach a relay that is being started.
_RETRY_SECONDS: Final = 0.05
#: Seconds until the next attempt when something is wrong here.
_PAUSE_SECONDS: Final = 1.0
#: Ticks for which a relay may owe an answer before it is taken to hang. They count while this
#: process runs, so that a container that was frozen ends no relay.
_MOST_TICKS: Final = 5


class Account(Protocol):
    """Whoever accounts for a relayed stream. Each method is called from the link's thread."""

    def ended(self, report: Report) -> None:
        """It ended."""

    def lost(self) -> None:
        """The relay died: the stream is broken, and its client does not know yet."""

    def moved(self) -> None:
        """Another worker accounts for it now."""


class RelayLink:
    """Gives streams to the gateway's relay and hears of their ends.

    `directory` is shared by the gateway's processes. `events` are what a broken event stream says
    last, by outcome. `adopt` makes the account of a stream that another worker had, from its facts.
    After each `tick` seconds for which the relay was silent it is looked whether it hangs.
    """

    def __init__(
        self,
        directory: Path,
        events: Mapping[str, str],
        adopt: Callable[[dict[str, Any]], Account],
        *,
        tick: float = 1.0,
    ) -> None:
        self.process = RelayProcess(directory)
        self._events = dict(events)
        self._adopt = adopt
        self._tick = tick
        self._ids = itertools.count(1)
        self._lock = threading.Lock()  # guards: _socket, _accounts, _leaving, _may_adopt
        self._socket: socket.socket | None = None
        self._accounts: dict[int, Account] = {}
        self._leaving = False
        self._may_adopt = False  # the relay may give this worker others' streams
        self.linked = threading.Event()  # set while there is a relay
        self._stopped = threading.Event()

    def start(self) -> None:
        """Connect, and stay connected, in a daemon thread."""
        threading.Thread(target=self._run, name=RELAY_LINK, daemon=True).start()

    def stop(self) -> None:
        """Give no more streams; those that run go on."""
        self._stopped.set()
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    @property
    def count(self) -> int:
        """How many streams this worker accounts for."""
        return len(self._accounts)

    @property
    def needed(self) -> bool:
        """Whether this worker accounts for streams, or may yet be given others' to account for."""
        with self._lock:
            return self._may_adopt or bool(self._accounts)

    def hand_over(
        self,
        order: Order,
        sockets: tuple[socket.socket, socket.socket],
        raw: tuple[bytes, bytes],
        account: Account,
        *,
        patient: bool = True,
    ) -> bool:
        """Let the relay go on with a stream; false if it can't now, and nothing has happened.

        If `patient`, it may take a second until the relay has the message.

        `sockets` are the client's and the endpoint's, `raw` the response's head for the client, and
        what was received of the body. Sets the order's `id`.
        """
        head, received = raw
        order.id = next(self._ids) << 22 | os.getpid() & 0x3FFFFF  # unique among the workers
        message = pack({"kind": "stream", "head": len(head), **values(order)}, head + received)
        with self._lock:
            connection = self._socket
            if connection is None or len(message) > MAX_MESSAGE_BYTES:
                return False
            self._accounts[order.id] = account
        try:
            flags = 0 if patient else socket.MSG_DONTWAIT
            _send(connection, message, [one.fileno() for one in sockets], flags)
        except OSError as error:
            if patient:
                log.warning("a stream could not be given to the relay: %s", error)
            with self._lock:
                return self._accounts.pop(order.id, None) is None  # lost already: then it is over
        return True

    def leave(self) -> None:
        """This worker stops: another one may take over its streams, if there is one.

        Once the relay has answered, it gives this one no more streams of others.
        """
        with self._lock:
            self._leaving = True
        self._tell("leave")

    def cut(self) -> None:
        """End this worker's streams now, visibly."""
        self._tell("cut")

    def _tell(self, kind: str, flags: int = 0) -> None:
        with self._lock:
            connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):  # then the streams are over too, or it is told again
                connection.send(pack({"kind": kind}), flags)

    def _run(self) -> None:
        # A relay this thread starts inherits that: a signal to the whole group must not end it, not
        # even while it starts. It ends after the workers, which give it the last streams.
        signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
        while not self._stopped.is_set():
            pause = _PAUSE_SECONDS
            with _bugs_noted("a bug in the link to the relay"):
                pause = self._link()
            self._stopped.wait(pause)
        self.process.reap()

    def _link(self) -> float:
        """Be linked while that lasts; the seconds until it is to be tried again."""
        try:
            connection = self.process.connect(self._tick)
        except OSError as error:
            log.error("there is no relay, streams cost a thread each: %s", error)  # noqa: TRY400
            return _PAUSE_SECONDS
        if connection is None:
            return _RETRY_SECONDS
        with connection:
            try:
                self._serve(connection)
            finally:
                self._unlink()
        return _RETRY_SECONDS

    def _serve(self, connection: socket.socket) -> None:
        """Give streams and hear of them until the connection ends."""
        try:
            heard = self._greet(connection)
        except OSError as error:
            log.warning("the relay could not be reached: %s", error)
            return
        with self._lock:
            self._socket = connection
            leaves = self._leaving and self._may_adopt
        self.linked.set()
        if leaves:
            self._tell("leave")  # which was said in between
        for document in self._messages(connection):
            kind = document["kind"]
            if kind == "left":
                with self._lock:
                    self._may_adopt = False
            for item in document["items"]:
                with _bugs_noted("a bug in a stream's account"):
                    self._heard(kind, item)
                if kind == "ended":
                    heard.add()

    def _greet(self, connection: socket.socket) -> Tally:
        """Say hello; what counts the reports that are accounted for, for whoever comes after us."""
        heard, descriptor = Tally.begin()
        try:
            with self._lock:
                leaves = self._leaving
                self._may_adopt = not leaves
            hello = {"kind": "hello", "events": self._events, "leaves": leaves}
            _send(connection, pack(hello), [descriptor])
        finally:
            os.close(descriptor)
        return heard

    def _messages(self, connection: socket.socket) -> Iterator[dict[str, Any]]:
        """What the relay says until its end."""
        ticks = 0
        while True:
            try:
                message = connection.recv(MAX_MESSAGE_BYTES)
            except ConnectionResetError:
                continue  # it has died with something unread, but what it said before comes first
            except BlockingIOError:
                ticks = self._look_at(connection, ticks)
                continue
            if not message:
                return
            ticks = 0
            yield unpack(message)[0]

    def _look_at(self, connection: socket.socket, ticks: int) -> int:
        """The relay has been silent; for how many ticks it has owed an answer.

        One that hangs is ended: else its streams would hang with it, and those it is given.
        """
        with self._lock:
            leaves = self._leaving and self._may_adopt
        if leaves:
            self._tell("leave", socket.MSG_DONTWAIT)  # it may not have got that
        if not ticks and not untaken(connection):
            return 0
        if not ticks:
            self._tell("ping", socket.MSG_DONTWAIT)
        elif ticks == _MOST_TICKS:
            log.error("the relay hangs, and is ended")
            with contextlib.suppress(ProcessLookupError):
                kill(connection)
        return ticks + 1

    def _unlink(self) -> None:
        """The connection has ended."""
        self.linked.clear()
        with self._lock:
            self._socket = None
            self._may_adopt = False
            lost = list(self._accounts.values())
            self._accounts.clear()
        if self._stopped.is_set():
            return
        log.warning("the relay has died, and %d streams with it", len(lost))
        for account in lost:
            with _bugs_noted("a bug in a stream's account"):
                account.lost()

    def _heard(self, kind: str, item: Any) -> None:
        if kind == "adopt":
            an_id, facts = item
            account = self._adopt(facts)
            with self._lock:
                self._accounts[an_id] = account
            return
        report = Report(**item) if kind == "ended" else None
        with self._lock:
            ended = self._accounts.pop(report.id if report else item, None)
        if ended is not None and report is not None:
            ended.ended(report)
        elif ended is not None:
            ended.moved()


@contextlib.contextmanager
def _bugs_noted(what: str) -> Iterator[None]:
    """Write down and count what is raised, so that it harms nothing else."""
    try:
        yield
    except Exception:
        log.exception(what)
        ERRORS.labels("internal_error").inc()


def _send(
    connection: socket.socket, message: bytes, descriptors: list[int], flags: int = 0
) -> None:
    # Not `socket.send_fds`, which forgets its flags (CPython issue 107898).
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    connection.sendmsg([message], passed, flags)
