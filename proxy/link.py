"""The worker's side of its connection to the relay, which it starts where there is none."""

import array
import contextlib
import fcntl
import itertools
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from relay.messages import MAX_MESSAGE_BYTES, Order, Report, pack, unpack, values

log = logging.getLogger("gateway.relay")

_APPLICATION = Path(__file__).parent.parent
_GROUP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Seconds between attempts to reach a relay that another worker is starting.
_RETRY_SECONDS = 0.05
#: Seconds a message to the relay may take; it reads them as fast as it can.
_SEND_SECONDS = 1


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
    """

    def __init__(
        self,
        directory: Path,
        events: Mapping[str, str],
        adopt: Callable[[dict[str, Any]], Account],
    ) -> None:
        self._directory = directory
        self._events = dict(events)
        self._adopt = adopt
        self._ids = itertools.count(1)
        self._lock = threading.Lock()  # guards: _socket, _accounts, _leaving
        self._socket: socket.socket | None = None
        self._accounts: dict[int, Account] = {}
        self._leaving = False
        self.linked = threading.Event()  # set while there is a relay
        self._stopped = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Connect, and stay connected, in a daemon thread."""
        threading.Thread(target=self._run, name="relay-link", daemon=True).start()

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
            # Not `socket.send_fds`, which forgets its flags (CPython issue 107898).
            numbers = array.array("i", [one.fileno() for one in sockets])
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
            connection.sendmsg([message], passed, 0 if patient else socket.MSG_DONTWAIT)
        except OSError as error:
            if patient:
                log.warning("a stream could not be given to the relay: %s", error)
            with self._lock:
                return self._accounts.pop(order.id, None) is None  # lost already: then it is over
        return True

    def leave(self) -> None:
        """This worker stops: another one may take over its streams, if there is one."""
        with self._lock:
            self._leaving = True
        self._tell("leave")

    def cut(self) -> None:
        """End this worker's streams now, visibly."""
        self._tell("cut")

    def _tell(self, kind: str) -> None:
        with self._lock:
            connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):  # then the streams are over too
                connection.send(pack({"kind": kind}))

    def _run(self) -> None:
        # A relay this thread starts inherits that: a signal to the whole group must not end it, not
        # even while it starts. It ends after the workers, which give it the last streams.
        signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
        while not self._stopped.is_set():
            try:
                connection = self._connected()
            except OSError as error:
                log.error("there is no relay, streams cost a thread each: %s", error)  # noqa: TRY400
                self._stopped.wait(1.0)
                continue
            if connection is None:
                self._stopped.wait(_RETRY_SECONDS)
                continue
            with connection:
                self._serve(connection)
        self.reap()

    def _serve(self, connection: socket.socket) -> None:
        connection.send(pack({"kind": "hello", "events": self._events}))
        with self._lock:
            self._socket = connection
            leaving = self._leaving
        self.linked.set()
        if leaving:
            self._tell("leave")
        while message := _received(connection):
            document, _ = unpack(message)
            for item in document["items"]:
                self._heard(document["kind"], item)
        self.linked.clear()
        with self._lock:
            self._socket = None
            lost = list(self._accounts.values())
            self._accounts.clear()
        if self._stopped.is_set():
            return
        log.warning("the relay has died, and %d streams with it", len(lost))
        for account in lost:
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

    def _connected(self) -> socket.socket | None:
        """A connection to the relay, which is started if need be; None while another starts it."""
        path = self._directory / "relay.sock"
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(path))
            timeout = struct.pack("@ll", _SEND_SECONDS, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            self._start_relay(path)
            return None
        except OSError:
            connection.close()
            raise
        return connection

    def _start_relay(self, path: Path) -> None:
        """Start one, unless another worker does: who holds the lock is, or starts, the relay."""
        self.reap()
        lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                path.unlink(missing_ok=True)
                listener.bind(str(path))
                listener.listen(64)
                self._spawn(listener.fileno(), lock)
        finally:
            os.close(lock)

    def _spawn(self, listener: int, lock: int) -> None:
        numbers = [str(number) for number in (listener, lock, os.getppid())]
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            # Without site-packages: it needs none of them, and is there in 20 ms.
            [sys.executable, "-E", "-s", "-S", "-m", "relay", str(self._directory), *numbers],
            cwd=_APPLICATION,
            pass_fds=(listener, lock),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def reap(self) -> bool:
        """Bury the relay this worker started, if it has ended; false if it has not."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        return self._child is None


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(MAX_MESSAGE_BYTES)
    except OSError:
        return b""
