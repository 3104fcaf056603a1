"""An inference engine in virtual time: a queue, a batch, and a KV cache that shares prefixes.

No threads, no clock of its own, no chance: the same jobs at the same times end the same way.
"""

import math
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

#: A step this close to a job's last is its last: times are sums of fractions.
_NEARLY = 1e-6


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an engine is and how much it holds; times in seconds.

    One prompt is read at a time, in the order of arrival, while those before it are being answered:
    a step that makes a token for each of these takes `step` and `step_each` more for each of them,
    and `reading_factor` times as long while a prompt is read. `block` tokens share a block of the
    KV cache, which has `blocks` of them.
    """

    read_tokens_per_second: float = 8000.0
    read_seconds: float = 0.01  # for any prompt, however much of it is cached
    step: float = 0.015
    step_each: float = 0.0003
    reading_factor: float = 1.3
    batch: int = 64
    block: int = 16
    blocks: int = 4096

    def slower(self, times: float) -> "Pace":
        """An engine that takes so many times as long for everything."""
        return replace(
            self,
            read_tokens_per_second=self.read_tokens_per_second / times,
            read_seconds=self.read_seconds * times,
            step=self.step * times,
            step_each=self.step_each * times,
        )


@dataclass(slots=True, eq=False)
class Job:
    """One request. `prefix` names its prompt's full blocks, each name telling all before it too.

    `cached`, and the times, are set as the engine works on it.
    """

    prefix: Sequence[int]
    prompt_tokens: int
    output_tokens: int
    cached: int = 0
    first_token_at: float = math.nan
    ended_at: float = math.nan


@dataclass(frozen=True, slots=True)
class Told:
    """What an engine reports: requests, the part of the cache they take, running totals."""

    running: int
    waiting: int
    kv_usage: float
    prompt_tokens: float
    generated_tokens: float


class Cache:
    """The KV cache: blocks that running requests hold, and idle ones kept until room is needed.

    A block's name tells all before it, so whoever holds one holds those before it too, and of the
    idle ones the last of a prompt are the first to go. What is there of a prompt, and what of that
    is held, is therefore a beginning of it, whose end is found by halving.
    """

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._held: dict[int, int] = {}  # how many requests hold each
        self._idle: OrderedDict[int, None] = OrderedDict()  # the one used the longest ago first
        self._private = 0

    @property
    def shared(self) -> int:
        """Blocks of prompts that requests hold, those of several counted once."""
        return len(self._held)

    def hits(self, prefix: Sequence[int]) -> int:
        """How many blocks at the beginning of `prefix` are there."""
        held, idle = self._held, self._idle
        return _beginning(prefix, lambda name: name in held or name in idle)

    def hold(self, prefix: Sequence[int], private: int) -> bool:
        """Take what a request needs; False, and nothing is taken, while there is no room."""
        held, idle = self._held, self._idle
        shared = _beginning(prefix, held.__contains__)
        new = len(prefix) - shared
        if len(held) + new + self._private + private > self._blocks:
            return False
        there = self.hits(prefix)
        for name in prefix[:shared]:
            held[name] += 1
        for name in prefix[shared:there]:
            del idle[name]
        held.update(dict.fromkeys(prefix[shared:], 1))
        self._private += private
        for _ in range(len(held) + len(idle) + self._private - self._blocks):
            idle.popitem(last=False)
        return True

    def release(self, prefix: Sequence[int], private: int) -> None:
        """Give it back; the prompt's blocks stay, and the last of them are the first to go."""
        held, idle = self._held, self._idle
        shared = _beginning(prefix, lambda name: held[name] > 1)
        for name in prefix[:shared]:
            held[name] -= 1
        for name in reversed(prefix[shared:]):
            del held[name]
            idle[name] = None
        self._private -= private


def _beginning(prefix: Sequence[int], true: Callable[[int], bool]) -> int:
    """How many at the beginning something is `true` of, which is true of none after these."""
    return bisect_left(prefix, True, key=lambda name: not true(name))


class EngineModel:
    """The engine. `submit` and `advance` are given the time, which never goes backwards."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.reading_seconds = 0.0  # spent on prompts so far
        self._cache = Cache(pace.blocks)
        self._queue: deque[Job] = deque()
        self._reading: Job | None = None
        self._read_at = math.inf
        self._answering: list[tuple[float, int, Job]] = []  # by the step of each one's last token
        self._serial = 0
        self._now = 0.0
        self._steps = 0.0
        self._step_seconds = pace.step
        self._read_tokens = 0
        self._made_tokens = 0.0

    def submit(self, at: float, job: Job) -> None:
        """A request arrives. ValueError if it is larger than the whole cache."""
        if len(job.prefix) + self._private(job) > self.pace.blocks:
            raise ValueError(f"a prompt of {job.prompt_tokens} tokens does not fit into the cache")
        self._pass_time(at)
        self._queue.append(job)
        self._begin_next()

    def next_event(self) -> float:
        """When something happens next by itself; infinity when nothing will."""
        if not self._answering:
            return self._read_at
        left = self._answering[0][0] - self._steps
        return min(self._read_at, self._now + max(0.0, left) * self._step_seconds)

    def advance(self, to: float) -> list[Job]:
        """Let time pass up to the next event, which is at `to`: the jobs that it concerns.

        One that has its first token has a `first_token_at`, one that is over an `ended_at` too.
        """
        self._pass_time(to)
        concerned = []
        if self._reading is not None and self._read_at <= to:
            concerned.append(self._has_read(self._reading))
        while self._answering and self._answering[0][0] - self._steps <= _NEARLY:
            job = self._end(heappop(self._answering)[2])
            if job not in concerned:
                concerned.append(job)
        if concerned:
            self._begin_next()
        return concerned

    def told(self, at: float) -> Told:
        """The report at this time, which must not be after the next event."""
        self._pass_time(at)
        made = sum(job.output_tokens - (last - self._steps) for last, _, job in self._answering)
        return Told(
            running=len(self._answering) + (self._reading is not None),
            waiting=len(self._queue),
            kv_usage=min(1.0, (self._cache.shared + made / self.pace.block) / self.pace.blocks),
            prompt_tokens=self._read_tokens,
            generated_tokens=self._made_tokens,
        )

    def _private(self, job: Job) -> int:
        """Blocks that no other can share. Reserved in whole: what runs is never pushed out."""
        tokens = job.prompt_tokens + job.output_tokens
        return -(-tokens // self.pace.block) - len(job.prefix)

    def _pass_time(self, to: float) -> None:
        steps = (to - self._now) / self._step_seconds
        self._steps += steps
        self._made_tokens += steps * len(self._answering)
        self._now = to

    def _begin_next(self) -> None:
        """Begin to read the next prompt if there is room, and set the pace of the steps."""
        pace = self.pace
        if self._reading is None and self._queue and len(self._answering) < pace.batch:
            job = self._queue[0]
            hits = self._cache.hits(job.prefix)
            if self._cache.hold(job.prefix, self._private(job)):
                self._queue.popleft()
                job.cached = min(hits * pace.block, job.prompt_tokens - 1)
                seconds = (job.prompt_tokens - job.cached) / pace.read_tokens_per_second
                self._reading, self._read_at = job, self._now + pace.read_seconds + seconds
                self.reading_seconds += pace.read_seconds + seconds
        self._step_seconds = pace.step + pace.step_each * len(self._answering)
        if self._reading is not None:
            self._step_seconds *= pace.reading_factor

    def _has_read(self, job: Job) -> Job:
        """Its first token is there."""
        job.first_token_at = self._now
        self._reading, self._read_at = None, math.inf
        self._read_tokens += job.prompt_tokens
        self._made_tokens += 1
        self._serial += 1
        heappush(self._answering, (self._steps + job.output_tokens - 1, self._serial, job))
        return job

    def _end(self, job: Job) -> Job:
        job.ended_at = self._now
        self._cache.release(job.prefix, self._private(job))
        return job
