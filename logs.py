"""Logs: one JSON object a line, on standard output, from the gateway and from gunicorn alike."""

import json
import logging
import time
from functools import lru_cache
from typing import Any

#: Made once: `json.dumps` would make an encoder for every line.
_ENCODE = json.JSONEncoder(default=str).encode


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
                "class": "logging.StreamHandler",
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
