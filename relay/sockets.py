"""What is asked of sockets that Python has no name for."""

import contextlib
import fcntl
import os
import resource
import socket
import struct
import termios
from collections.abc import Iterator

_RESERVE = 16


def untaken(client: socket.socket) -> int:
    """Bytes that were sent and that the client has not taken yet.

    A slow client takes some long before the kernel has so much room that it calls the socket
    writable.
    """
    (size,) = struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))
    return int(size)


def leaves_room(descriptors: list[int]) -> bool:
    """Whether this process may keep `descriptors`, of which the kernel gives the lowest numbers.

    Some are left to workers that are still to come: one that is not accepted would take its relay
    for hanging, and end it.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most == resource.RLIM_INFINITY or max(descriptors) < most - min(_RESERVE, most // 8)


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
