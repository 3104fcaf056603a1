"""The threads that answer requests: as many as there are, all started at once, none in the way."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger("gateway.server")

Job = tuple[Callable[..., None], tuple[Any, ...]]


class _Thread:
    """One of them, which sleeps on `wake` while it has nothing to do."""

    __slots__ = ("job", "wake")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


class Threads:
    """Runs jobs on `count` threads, first come, first served.

    Cheaper than an executor's pool: there is no future, and no thread to be started for a job. The
    thread that became idle last is woken first, because its stack is still in the processor's
    cache; with hundreds of threads taking turns it never is. The threads keep no process alive.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()  # guards: _idle, _waiting, _ended
        self._idle: list[_Thread] = []
        self._waiting: deque[Job] = deque()
        self._ended = False
        for number in range(count):
            thread = _Thread()
            self._idle.append(thread)
            threading.Thread(
                target=self._work, args=(thread,), name=f"request-{number}", daemon=True
            ).start()

    def run(self, job: Callable[..., None], *arguments: Any) -> None:
        """Run `job` as soon as a thread is free; it must not raise."""
        with self._lock:
            if not self._idle:
                self._waiting.append((job, arguments))
                return
            thread = self._idle.pop()
        thread.job = (job, arguments)
        thread.wake.release()

    def shutdown(self, wait: bool = False) -> None:
        """Let every thread end after the jobs that came before; nobody waits for them."""
        with self._lock:
            self._ended = True
            idle, self._idle = self._idle, []
        for thread in idle:
            thread.wake.release()

    def _work(self, thread: _Thread) -> None:
        while True:
            thread.wake.acquire()
            job, thread.job = thread.job, None
            while job is not None:
                self._run(*job)
                job = None  # a waiting thread holds on to nothing
                job = self._next(thread)
            if self._ended:
                return

    @staticmethod
    def _run(job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            job(*arguments)
        except Exception:
            log.exception("a bug on a request's thread")

    def _next(self, thread: _Thread) -> Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if not self._ended:
                self._idle.append(thread)
            return None
