"""An upstream that trusts nobody's parser: it keeps every byte, and answers what has a length."""

import contextlib
import re
import socket
import threading
from typing import Self

_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]{1,6})(?=\r\n)", re.IGNORECASE)
_TARGET = re.compile(rb"[A-Z]+ ([!-~]+) ")
#: The field that names the request, by its target, that an answer is to.
ANSWERS = "x-answers"


class Recorder:
    """Listens on loopback while it is a context manager; `connections` are the bytes of each.

    What it can't delimit by one Content-Length it does not guess at: it closes the connection.
    """

    def __init__(self) -> None:
        self.connections: list[bytearray] = []
        self._serving: list[tuple[socket.socket, threading.Thread]] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection, thread in self._serving:
            with contextlib.suppress(OSError):  # it may be closed
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            record = bytearray()
            self.connections.append(record)
            thread = threading.Thread(target=self._serve, args=(connection, record))
            self._serving.append((connection, thread))
            thread.start()

    @staticmethod
    def _serve(connection: socket.socket, record: bytearray) -> None:
        answered = 0
        with connection, contextlib.suppress(OSError):  # the other side may reset it
            while data := connection.recv(65_536):
                record += data
                while (head_end := record.find(b"\r\n\r\n", answered)) >= 0:
                    head = bytes(record[answered : head_end + 2])
                    lengths = _LENGTH.findall(head)
                    if len(lengths) != 1:
                        return
                    end = head_end + 4 + int(lengths[0])
                    if len(record) < end:
                        break
                    answered = end
                    connection.sendall(_answer(head))


def _answer(head: bytes) -> bytes:
    target = _TARGET.match(head)
    named = target[1] if target else b"?"
    fields = f"{ANSWERS}: ".encode() + named + b"\r\nContent-Length: 2\r\n\r\n"
    body = b"" if head.startswith(b"HEAD ") else b"{}"
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + fields + body
