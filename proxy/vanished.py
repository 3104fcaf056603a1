"""Clients that vanish: cut off or powered down, they say nothing, and nothing is heard of them."""

import socket
from typing import Final

#: Probes of a connection on which nothing moves, within the time after which it is given up.
_PROBES: Final = 3
_MOST_SECONDS: Final = 32_767  # Linux takes no more


def notice_vanished(listener: socket.socket, seconds: float) -> None:
    """Let the kernel end connections accepted by `listener` whose client is gone without a word.

    That is one that has acknowledged nothing of what was sent to it for `seconds` (RFC 5482), or
    does not answer probes while nothing is sent (RFC 9293 §3.8.4); the connection then reads as
    reset. Without it a stream for nobody would go on until the kernel's buffers are full, and a
    request that waits for its pod would until it is answered. Accepted connections inherit it.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    pause = min(_MOST_SECONDS, max(1, round(seconds / _PROBES)))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, pause)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, pause)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    unacknowledged = min(_MOST_SECONDS, seconds) * 1000
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(unacknowledged)))
