"""When streams have to be looked at: a heap, which costs a stream that moves next to nothing."""

import heapq
import itertools
import math
from collections.abc import Iterator

from relay.stream import Stream


class Timers:
    """The deadlines of all streams.

    A deadline that moves back, as it does with every byte, costs nothing: its stream is looked at
    too early, and armed again.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []  # of all streams, and of some that are over
        self._armed: dict[int, Stream] = {}
        self._numbers = itertools.count()

    def add(self, stream: Stream) -> None:
        """Watch over a new stream."""
        stream.number = next(self._numbers)
        self._armed[stream.number] = stream
        self.arm(stream)

    def arm(self, stream: Stream) -> None:
        """See to it that the stream is looked at when its deadline comes; not if it is over."""
        deadline = stream.deadline()
        if deadline < stream.timer_at and stream.number in self._armed:
            stream.timer_at = deadline
            heapq.heappush(self._heap, (deadline, stream.number))

    def forget(self, stream: Stream) -> None:
        """The stream is over."""
        del self._armed[stream.number]

    def next(self) -> float:
        """The monotonic time at which a stream may have to be looked at."""
        return self._heap[0][0] if self._heap else math.inf

    def expired(self, now: float) -> Iterator[Stream]:
        """Streams whose deadline has passed; each is armed again afterwards."""
        while self._heap and self._heap[0][0] <= now:
            when, number = heapq.heappop(self._heap)
            stream = self._armed.get(number)
            if stream is None or when != stream.timer_at:
                continue  # over, or armed for earlier meanwhile
            stream.timer_at = math.inf
            if stream.deadline() <= now:
                yield stream
            self.arm(stream)
