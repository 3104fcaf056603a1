"""The relay's process, as a worker sees it: reached, started where there is none, and ended."""

import fcntl
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from relay.sockets import short_name

_APPLICATION: Final = Path(__file__).parent.parent
#: Seconds between two starts, so that a relay that can't live costs little. One that was killed is
#: to be back within a second.
_START_SECONDS: Final = 0.5
#: Seconds a message to the relay may take; it reads them as fast as it can.
_SEND_SECONDS: Final = 1.0
_CREDENTIALS: Final = struct.Struct("3i")  # process, user, group


class RelayProcess:
    """The one relay of the gateway whose `directory` this is. Make it in a worker."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "relay.sock"
        # Asked now: a relay that is started after the arbiter's death must not wait for another's.
        self._gateway = os.getppid()
        self._children: list[subprocess.Popen[bytes]] = []  # one, and those that are dying
        self._started = -math.inf

    def connect(self, tick: float) -> socket.socket | None:
        """A connection on which reading gives up after `tick` seconds; None if there is no relay.

        Then one is being started. Raises `OSError`.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with short_name(str(self._path)) as name:
                connection.connect(name)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_SEND_SECONDS))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(tick))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            self._start()
            return None
        except OSError:
            connection.close()
            raise
        return connection

    def _start(self) -> None:
        """Start one, unless another worker does: who holds the lock is, or starts, the relay."""
        self.reap()
        if time.monotonic() < self._started + _START_SECONDS:
            return
        lock = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            self._started = time.monotonic()
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                self._path.unlink(missing_ok=True)
                with short_name(str(self._path)) as name:
                    listener.bind(name)
                self._spawn(listener.fileno(), lock)
        finally:
            os.close(lock)

    def _spawn(self, listener: int, lock: int) -> None:
        numbers = [str(number) for number in (listener, lock, self._gateway)]
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            # Without site-packages: it needs none of them, and is there in 20 ms.
            [sys.executable, "-E", "-s", "-S", "-m", "relay", str(self._directory), *numbers],
            cwd=_APPLICATION,
            pass_fds=(listener, lock),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._children.append(child)

    def reap(self) -> bool:
        """Bury the relays this worker started that have ended; false if one has not."""
        self._children = [child for child in self._children if child.poll() is None]
        return not self._children


def kill(connection: socket.socket) -> None:
    """End the relay at the other end of `connection`, which the kernel knows: it listened."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    os.kill(_CREDENTIALS.unpack(credentials)[0], signal.SIGKILL)


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
