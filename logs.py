"""Logs: one JSON object a line, on standard output, from the gateway and from gunicorn alike."""

import json
import logging
import os
import select
import threading
import time
from collections import deque
from functools import lru_cache
from typing import Any, Final, TextIO

#: Made once: `json.dumps` would make an encoder for every line.
_ENCODE = json.JSONEncoder(default=str).encode

#: Seconds between two writes, and lines that may wait for one: some 20 MB.
_PAUSE_SECONDS: Final = 0.02
_MOST_LINES: Final = 50_000
_MOST_BYTES: Final = 1 << 20  # of one write
#: Seconds that whoever has no thread for it waits for a reader of the logs.
_FLUSH_SECONDS: Final = 1.0


class LineWriter(logging.Handler):
    """Writes lines to `stream`: at once, and after `start` from a thread of its own.

    A request's thread that wrote its line itself would wait for the others' lines, and all of them
    for whoever reads the logs. Lines that can't be written are counted, and told of when it works
    again. Nothing is left in the buffer of `stream`: it would come out late and in the middle of a
    line, and whoever reads nothing could hold up the end of the process.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._lost = 0
        self._within_line = False  # the last write broke off there
        self._stalled = False  # the last time there was no room
        self._writing = threading.Lock()  # guards: _stream, both of these, and the lines' order
        self._woken = threading.Event()
        self._started = False

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, without the lock that handlers have: a line is one append."""
        passes = bool(self.filter(record))
        if passes:
            self.emit(record)
        return passes

    def start(self) -> None:
        """Write from a daemon thread; threads do not survive a fork."""
        self._started = True
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a line that can't be made is told of in one
            line = _ENCODE({"level": "error", "logger": "logs", "message": f"no line: {error!r}"})
        if len(self._lines) >= _MOST_LINES:
            self._lost += 1
            return
        self._lines.append(line)
        if not self._started:
            self.flush()
        elif not self._woken.is_set():
            self._woken.set()

    def flush(self) -> None:
        """Write what waits, as far as whoever reads the logs takes it within a second.

        A reader that stalls is waited for once, and not again before there is room.
        """
        patience = 0.0 if self._stalled else _FLUSH_SECONDS
        deadline = time.monotonic() + patience
        if self._writing.acquire(timeout=patience):
            try:
                while self._waits():
                    self._stalled = not self._has_room(deadline - time.monotonic())
                    if self._stalled or not self._write(select.PIPE_BUF):  # there is room for that
                        return
            finally:
                self._writing.release()

    def _run(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()  # before the lines are taken: none is left that nobody waits for
            with self._writing:
                while self._waits() and self._write(_MOST_BYTES):
                    pass
            time.sleep(_PAUSE_SECONDS)

    def _waits(self) -> bool:
        return bool(self._lines or self._lost)

    def _has_room(self, seconds: float) -> bool:
        """Wait until a write would not; false if that takes longer than `seconds`."""
        try:
            poll = select.poll()
            poll.register(self._stream, select.POLLOUT)
        except (OSError, ValueError):  # it has no descriptor, or is closed
            return True
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def _write(self, most: int) -> bool:
        """Write lines of at most `most` bytes, or one that has more; false if that can't be."""
        lines = self._next(most - self._within_line)
        told = 0 if self._lines else self._lost
        if told:
            message = f"{told} lines could not be written"
            lines.append(_ENCODE({"level": "error", "logger": "logs", "message": message}))
        begun = "\n" if self._within_line else ""
        data = (begun + "".join(f"{line}\n" for line in lines)).encode()
        written = self._put(data)
        if written:
            self._within_line = not data.endswith(b"\n", 0, written)
        whole = data.count(b"\n", len(begun), written)
        if whole == len(lines):
            self._lost -= told
            return True
        self._lost += len(lines) - whole - bool(told)
        return False

    def _next(self, most: int) -> list[str]:
        lines: list[str] = []
        while self._lines and (not lines or most > len(self._lines[0])):
            lines.append(self._lines.popleft())
            most -= len(lines[-1]) + 1
        return lines

    def _put(self, data: bytes) -> int:
        """Write `data`; how many bytes of it were taken."""
        written = 0
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):  # it has none, or is closed
            return self._put_as_text(data)
        try:
            while written < len(data):
                written += os.write(descriptor, data[written:])
        except OSError:
            pass  # what was written is known
        return written

    def _put_as_text(self, data: bytes) -> int:
        try:
            self._stream.write(data.decode())
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: it is closed
            return 0
        return len(data)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; an exception becomes type, message and place, no traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "time": f"{_date_time(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = f"{record.exc_info[0].__name__}: {record.exc_info[1]}"
            line["at"] = _where(record.exc_info[2])
        line.update(getattr(record, "facts", {}))
        return _ENCODE(line)


@lru_cache(maxsize=2)
def _date_time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _where(traceback: Any) -> str:
    """The innermost frame: enough to find the line, and only one line."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}"


def keep_no_origins() -> None:
    """Let records be made without what no line of ours says: code's place, thread, process.

    Finding it out takes a third of what a record costs. The `logging` module's documentation,
    "Optimization", names these switches.
    """
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def configuration(level: str) -> dict[str, Any]:
    """The `logging.config.dictConfig` of everything that runs in our processes."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "logs.JsonFormatter"}},
        "handlers": {
            "stdout": {
                "class": "logs.LineWriter",
                "stream": "ext://sys.stdout",
                "formatter": "json",
            }
        },
        "root": {"level": "WARNING", "handlers": ["stdout"]},
        "loggers": {
            "gateway": {"level": level.upper()},
            "gunicorn.error": {"level": level.upper(), "propagate": True},
        },
    }
