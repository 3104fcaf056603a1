"""Clients that ask at a steady pace, and how long each of their answers took."""

import math
import statistics
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from tests.e2e.crowd import p99
from tests.wire import RawAnswer, exchange


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when it began (monotonic), the seconds until its answer was over, the answer."""

    begun: float
    seconds: float
    answer: RawAnswer


class Steady:
    """Sends `per_second` requests a second, each on a connection of its own; a context manager.

    A client that waits for its answer longer than until its next turn sends late, and makes up for
    nothing: there are never more than `clients` requests at once.
    """

    def __init__(self, port: int, request: bytes, per_second: float, clients: int = 8) -> None:
        self.samples: list[Sample] = []
        self._port = port
        self._request = request
        self._interval = clients / per_second
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number / per_second,))
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def since(self, begin: float, end: float = math.inf) -> list[Sample]:
        """The requests that began between these times and have been answered."""
        return [sample for sample in list(self.samples) if begin <= sample.begun < end]

    def _ask_on(self, first: float) -> None:
        due = time.monotonic() + first
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            begun = time.monotonic()
            answer = exchange(self._port, self._request)
            self.samples.append(Sample(begun, time.monotonic() - begun, answer))
            due = max(due + self._interval, time.monotonic())


def slowest_of_100(samples: Iterable[Sample]) -> float:
    """The p99 of their times, in seconds."""
    return p99([sample.seconds for sample in samples])


def in_ms(samples: Iterable[Sample]) -> str:
    """Their median and p99, for the figures a run prints."""
    times = [sample.seconds for sample in samples]
    return f"{1000 * statistics.median(times):.1f} / {1000 * p99(times):.1f} ms"
