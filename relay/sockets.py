"""What is asked of sockets that Python has no name for."""

import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator


def untaken(client: socket.socket) -> int:
    """Bytes that were sent and that the client has not taken yet.

    A slow client takes some long before the kernel has so much room that it calls the socket
    writable.
    """
    (size,) = struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))
    return int(size)


def set_reset(client: socket.socket) -> None:
    """Let the connection end with a reset instead of a FIN when its last descriptor is closed."""
    with contextlib.suppress(OSError):  # it is gone already
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def shut_down(connection: socket.socket) -> None:
    """End a connection for everyone who holds it."""
    with contextlib.suppress(OSError):  # it may have ended by itself
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def short_name(path: str) -> Iterator[str]:
    """Another name of `path`: a socket's may have 107 bytes (unix(7)), a directory's many more."""
    folder, name = os.path.split(path)
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{name}"
    finally:
        os.close(directory)
