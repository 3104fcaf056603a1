"""The load generator for streams: one epoll loop that reads tokens and notes how long each took.

A token has arrived when the kernel says so (`SO_TIMESTAMPNS`): by the time this process gets a
CPU and reads it, others have had theirs, and on a busy machine that wait is longer than the way
through a proxy.

Run as a process of its own: `python -m bench.load` reads a plan from standard input and prints
what it saw, both as JSON.
"""

import gc
import json
import select
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass

from bench.figures import quantile
from bench.limits import raise_descriptors
from bench.wire import DONE, EVENT_ENDS, LAST_CHUNK, STAMP, STAMP_BYTES, request

#: Seconds that streams may take longer than planned before they count as errors.
PATIENCE = 10.0
#: socket(7), as Linux has it on all 64-bit machines; Python has no name for it.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)


@dataclass(frozen=True)
class Plan:
    """`streams` of `tokens` at `rate` a second, opened over `ramp` seconds.

    One that ends is replaced by another until `again` seconds after the start. With `ticks`, tokens
    that are due within the same millisecond leave together.
    """

    port: int
    streams: int
    tokens: int
    rate: float
    ramp: float
    again: float = 0.0
    ticks: bool = True


class Stream:
    """One request: when it was sent, tokens seen, and bytes that are not a whole token yet."""

    __slots__ = ("asked", "rest", "seen", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.asked = 0
        self.seen = 0
        self.rest = b""


class StreamLoad:
    """Carries out a plan. Delays are nanoseconds."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._request = request(plan.port, tokens=plan.tokens, rate=plan.rate, ticks=plan.ticks)
        self._epoll = select.epoll()
        self._running: dict[int, Stream] = {}
        self._delays: list[int] = []
        self._firsts: list[int] = []
        self._errors: Counter[str] = Counter()
        self._opened = 0
        self._ramped = 0
        self._again = False
        self._realtime = 0  # what the kernel's times have on CLOCK_MONOTONIC, nanoseconds

    def run(self) -> dict[str, object]:
        """Open every stream, read all of them to their ends, and report."""
        plan, started = self._plan, time.monotonic()
        gap = plan.ramp / plan.streams
        last = started + max(plan.ramp, plan.again) + plan.tokens / plan.rate + PATIENCE
        while self._ramped < plan.streams or self._running:
            now = time.monotonic()
            if now > last:
                self._errors["unfinished"] += len(self._running)
                break
            while self._ramped < plan.streams and now >= started + self._ramped * gap:
                self._ramped += 1
                self._open()
            self._again = now < started + plan.again
            wait = started + self._ramped * gap - now if self._ramped < plan.streams else 1.0
            events = self._epoll.poll(max(0.0, wait), 512)
            self._realtime = time.time_ns() - time.monotonic_ns()
            for fd, _ in events:
                self._step(fd, self._running[fd])
        return self._report(time.monotonic() - started)

    def _open(self) -> None:
        self._opened += 1
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.connect_ex(("127.0.0.1", self._plan.port))
        self._running[sock.fileno()] = Stream(sock)
        self._epoll.register(sock, select.EPOLLOUT)

    def _step(self, fd: int, stream: Stream) -> None:
        try:
            if not stream.asked:
                stream.sock.send(self._request)
                stream.asked = time.monotonic_ns()
                self._epoll.modify(fd, select.EPOLLIN)
                return
            data, ancillary, _, _ = stream.sock.recvmsg(16_384, _ANCILLARY_BYTES)
        except OSError as error:
            self._end(fd, stream, type(error).__name__)
            return
        if data:
            self._read(fd, stream, data, self._arrival(ancillary))
        else:
            self._end(fd, stream, "cut off")

    def _arrival(self, ancillary: list[tuple[int, int, bytes]]) -> int:
        """When the kernel got what was just read; now, if it does not say."""
        for _, kind, content in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(content)
                return int(seconds * 1_000_000_000 + nanoseconds - self._realtime)
        return time.monotonic_ns()

    def _read(self, fd: int, stream: Stream, data: bytes, now: int) -> None:
        if stream.rest:
            data = stream.rest + data
        if not stream.seen and len(data) > 12 and data[:12] != b"HTTP/1.1 200":
            self._end(fd, stream, f"status {data[9:12].decode('latin-1')}")
            return
        after, at = 0, data.find(STAMP)
        while 0 <= at <= len(data) - STAMP_BYTES:
            after = at + STAMP_BYTES
            self._delays.append(now - int(data[after - 20 : after]))
            if not stream.seen:
                self._firsts.append(now - stream.asked)
            stream.seen += 1
            at = data.find(STAMP, after)
        if stream.seen < self._plan.tokens:
            stream.rest = b"" if data.endswith(EVENT_ENDS) else data[after:]
            return
        stream.rest = data[after:]
        if stream.rest.endswith(LAST_CHUNK):
            whole = stream.seen == self._plan.tokens and DONE in stream.rest
            self._end(fd, stream, "" if whole else "wrong end")

    def _end(self, fd: int, stream: Stream, error: str) -> None:
        del self._running[fd]
        stream.sock.close()
        if error:
            self._errors[error] += 1
        if self._again:
            self._open()

    def _report(self, wall: float) -> dict[str, object]:
        return {
            "wall": wall,
            "load_cpu": time.process_time(),
            "streams": self._opened,
            "tokens": len(self._delays),
            "errors": dict(self._errors),
            "delay_p50": quantile(self._delays, 0.5) / 1e9,
            "delay_p99": quantile(self._delays, 0.99) / 1e9,
            "ttft_p50": quantile(self._firsts, 0.5) / 1e9,
            "ttft_p99": quantile(self._firsts, 0.99) / 1e9,
        }


def main() -> int:
    """Carry out the plan on standard input."""
    raise_descriptors()
    plan = Plan(**json.load(sys.stdin))
    gc.disable()
    json.dump(StreamLoad(plan).run(), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
