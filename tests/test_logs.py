"""Logs: every record is one line of JSON, whatever it holds."""

import contextlib
import io
import json
import logging
import logging.config
import os
import re
import select
import sys
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from logs import JsonFormatter, LineWriter, configuration
from tests.harness import wait_for


class Log:
    """A logger of its own, and what it wrote to a stream that takes ASCII only."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        self.handler = logging.StreamHandler(io.TextIOWrapper(self.bytes, "ascii", newline="\n"))
        self.handler.setFormatter(JsonFormatter())
        self.logger = logging.Logger("gateway.test")  # not one of the process's tree
        self.logger.addHandler(self.handler)

    def lines(self) -> list[dict[str, Any]]:
        self.handler.flush()
        return [json.loads(line) for line in self.bytes.getvalue().splitlines()]

    def line(self) -> dict[str, Any]:
        (line,) = self.lines()
        return line


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_line_says_when_how_bad_who_and_what(log: Log) -> None:
    log.logger.warning("%d of %s", 1, "two")
    line = log.line()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {"level": "warning", "logger": "gateway.test", "message": "1 of two"}


def test_the_time_is_utc_with_milliseconds(log: Log) -> None:
    record = log.logger.makeRecord("gateway.test", logging.INFO, "", 0, "x", (), None)
    record.created, record.msecs = 1_700_000_000.999, 999.0
    assert json.loads(JsonFormatter().format(record))["time"] == "2023-11-14T22:13:20.999Z"


def test_facts_are_keys_of_their_own(log: Log) -> None:
    log.logger.info("x", extra={"facts": {"model": "llama", "bytes": 7, "pod": None}})
    line = log.line()
    assert (line["model"], line["bytes"], line["pod"]) == ("llama", 7, None)


@pytest.mark.parametrize(
    "text",
    ["two\nlines", "\r\n\x00\x1b[31m", "ünïcödé \u2028\u2029\x85", "lone \ud800", '"quoted\\"'],
)
def test_whatever_is_said_stays_on_one_line(log: Log, text: str) -> None:
    log.logger.error("%s", text, extra={"facts": {"reason": text}})
    line = log.line()
    assert line["message"] == line["reason"] == text


def test_facts_that_json_does_not_know_become_text(log: Log) -> None:
    log.logger.info("x", extra={"facts": {"what": {1}}})
    assert log.line()["what"] == "{1}"


def fail() -> None:
    raise ValueError("two\nlines")


def test_an_exception_is_its_type_its_message_and_its_place_on_one_line(log: Log) -> None:
    try:
        fail()
    except ValueError as error:
        log.logger.exception("a bug", exc_info=error)
    line = log.line()
    assert line["exception"] == "ValueError: two\nlines"
    assert re.fullmatch(r".*test_logs\.py:\d+ fail", line["at"])
    assert "Traceback" not in json.dumps(line)


def test_an_exception_that_was_never_raised_has_no_place(log: Log) -> None:
    log.logger.error("a bug", exc_info=ValueError("x"))
    assert log.line()["at"] == ""


def test_no_exception_adds_nothing(log: Log) -> None:
    log.logger.error("x", exc_info=True)
    assert "exception" not in log.line()


@pytest.fixture
def restored() -> Iterator[None]:
    """Give the process its own logging back."""
    loggers = [logging.getLogger(name) for name in (None, "gateway", "gunicorn.error")]
    before = [(one, one.level, one.handlers[:], one.propagate) for one in loggers]
    yield
    for one, level, handlers, propagate in before:
        one.setLevel(level)
        one.handlers[:] = handlers
        one.propagate = propagate


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", "dec"), ("info", "ec"), ("warning", "ec"), ("error", "c")],
)
def test_the_configuration_shows_what_its_level_says(
    capsys: pytest.CaptureFixture[str], level: str, shown: str
) -> None:
    configured = configuration(level)
    configured["handlers"]["stdout"]["stream"] = sys.stdout  # which is the test's
    logging.config.dictConfig(configured)
    logging.getLogger("gateway.test").debug("d")
    logging.getLogger("gunicorn.error").warning("e")
    logging.getLogger("gateway.test").error("c")
    logging.getLogger("urllib3").info("someone else's chatter")
    written = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    assert written == list(shown)


class Pipe:
    """A pipe as a log, which is read only when asked for."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.stream = os.fdopen(self.write_end, "w")
        self.writer = LineWriter(self.stream)
        self.writer.setFormatter(JsonFormatter())
        self.logger = logging.Logger("gateway.test")
        self.logger.addHandler(self.writer)
        self.text = ""

    def close(self) -> None:
        """Let the writer's thread, which nobody stops, write to nobody."""
        self.writer.flush()
        with contextlib.suppress(OSError):
            os.close(self.read_end)
        with contextlib.suppress(OSError):
            self.stream.close()

    def read(self) -> None:
        if select.select([self.read_end], [], [], 0.01)[0]:
            self.text += os.read(self.read_end, 1 << 20).decode()

    def messages(self) -> list[str]:
        self.read()
        return [json.loads(line)["message"] for line in self.text.splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_without_a_thread_a_line_is_there_at_once(pipe: Pipe) -> None:
    pipe.logger.info("one")
    assert pipe.messages() == ["one"]


def test_a_thread_writes_all_lines_in_their_order(pipe: Pipe) -> None:
    pipe.writer.start()
    wanted = [str(number) for number in range(500)]
    for text in wanted:
        pipe.logger.info(text)
    wait_for(lambda: len(pipe.messages()) == 500, "all lines are written")
    assert pipe.messages() == wanted


def test_lines_that_wait_are_written_before_the_end(pipe: Pipe) -> None:
    pipe.writer.start()
    for number in range(20):
        pipe.logger.info("%d", number)
    logging.shutdown([weakref.ref(pipe.writer)])
    assert len(pipe.messages()) == 20


def test_a_reader_that_stalls_stops_nobody_and_is_told_what_was_lost(pipe: Pipe) -> None:
    pipe.writer.start()
    began = time.monotonic()
    for _ in range(60_000):
        pipe.logger.info("x" * 50)
    assert time.monotonic() - began < 30
    pipe.logger.info("beyond")  # which is lost, too

    def told() -> bool:
        pipe.read()
        return "lines could not be written" in pipe.text

    wait_for(told, "what was lost is told of", 30.0)
    wait_for(lambda: pipe.text.endswith("\n"), "the line is whole")
    messages = pipe.messages()
    (told_of,) = [text for text in messages if "could not be written" in text]
    assert int(told_of.split()[0]) + messages.count("x" * 50) == 60_001
    assert "beyond" not in messages
    pipe.logger.info("again")
    wait_for(lambda: pipe.messages()[-1] == "again", "it goes on")


def test_a_log_that_nobody_reads_any_more_stops_nobody(pipe: Pipe) -> None:
    os.close(pipe.read_end)
    for _ in range(3):
        pipe.logger.info("x")
    pipe.writer.start()
    began = time.monotonic()
    pipe.logger.info("y")
    pipe.writer.flush()
    assert time.monotonic() - began < 1.0


def test_a_line_that_cant_be_made_is_told_of_in_one(pipe: Pipe) -> None:
    pipe.logger.info("%d", "no number")
    (message,) = pipe.messages()
    assert message.startswith("no line: TypeError")
