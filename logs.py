"""Logs: one JSON object a line, on standard output, from the gateway and from gunicorn alike."""

import json
import logging
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


class LineWriter(logging.Handler):
    """Writes lines to `stream`: at once, and after `start` from a thread of its own.

    A request's thread that wrote its line itself would wait for the others' lines, and all of them
    for whoever reads the logs. Lines that can't be written are counted, and told of when it works
    again.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._lost = 0
        self._writing = threading.Lock()  # guards: _stream, and the lines' order
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
        """Write what waits, unless somebody reads so slowly that it takes a second."""
        if self._writing.acquire(timeout=1.0):
            try:
                self._write()
            finally:
                self._writing.release()

    def _run(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()  # before the lines are taken: none is left that nobody waits for
            self.flush()
            time.sleep(_PAUSE_SECONDS)

    def _write(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        lost, self._lost = self._lost, 0
        if not (lines or lost):
            return
        told = f"{lost} lines could not be written"
        last = [_ENCODE({"level": "error", "logger": "logs", "message": told})] if lost else []
        try:
            self._stream.write("\n".join(lines + last) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: it is closed
            self._lost += lost + len(lines)


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
