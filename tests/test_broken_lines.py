"""A log line that could be written in part only spoils no other."""

import fcntl
import json
import logging
import os

from logs import JsonFormatter, LineWriter


def test_a_line_that_broke_off_is_ended_before_the_next_one() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)  # so that a page of the line is taken, and no more
    with os.fdopen(reader, "rb", buffering=0) as pipe, os.fdopen(writer, "w") as stream:
        lines = LineWriter(stream)
        lines.setFormatter(JsonFormatter())
        log = logging.Logger("gateway.test")
        log.addHandler(lines)
        log.info("x" * 10_000)
        broken = pipe.read(65_536)
        log.info("next")
        rest = pipe.read(65_536)
    assert len(broken) == 4096
    assert b"\n" not in broken
    assert rest.startswith(b"\n")
    told = [json.loads(line)["message"] for line in rest.splitlines()[1:]]
    assert told == ["next", "1 lines could not be written"]
