"""Bodies that nobody should send: each is named for what it is, in few words, and goes nowhere."""

import gzip
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.pod import Engine
from tests.e2e.crowd import workers
from tests.e2e.expect import INVALID, Expected, check_error, counted_once
from tests.e2e.place import Place, place, process_of
from tests.harness import wait_for
from tests.wire import RawAnswer, Wire, body_of, chat_body, head_of, in_chunks, post

#: Bytes of the largest of them, and of an error's message and its log line, whatever was sent.
LARGE = 10_000_000
SHORT = 300
LINE = 1000
DEEP = 100_000


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("odd"), max_body_bytes=str(2 * LARGE)) as here:
        here.deploy("llama", engine=Engine(tokens=1))
        yield here


def named(name: str) -> bytes:
    """A body with a model's name as it is to be spelled in JSON."""
    return b'{"messages":[],"model":"' + name.encode("utf-8", "surrogatepass") + b'"}'


UNKNOWN = Expected(404, "model_not_found", INVALID, "model", "does not exist")
NOT_JSON = Expected(400, "invalid_body", INVALID, says="not valid JSON")
TOO_DEEP = Expected(400, "invalid_body", INVALID, says="nested too deeply")
TWICE = Expected(400, "invalid_body", INVALID, says="'model' is there twice")
NOT_AN_OBJECT = Expected(400, "invalid_body", INVALID, says="not a JSON object")
NAMELESS = Expected(400, "missing_model", INVALID, "model")
COMPRESSED = Expected(400, "invalid_body", INVALID, says="compressed with gzip")
ODD = {
    "a name of 10 MB": (named("m" * LARGE), UNKNOWN),
    "a name of 10 MB in escapes": (named(r"\u00e9" * (LARGE // 6)), UNKNOWN),
    "a name that is half a surrogate pair": (named(r"llama\ud83e"), UNKNOWN),
    "a name of control characters": (named(r"\u0000\r\n\u001b[31m\u0085\u2028\u202e"), UNKNOWN),
    "a name that looks like a header": (named(r"x\r\nx-injected: yes\r\n\r\n"), UNKNOWN),
    "control characters as they are": (named("lla\r\nma"), NOT_JSON),
    "surrogates as UTF-8": (named("\ud83e\udd99"), NOT_JSON),
    "overlong UTF-8": (b'{"model": "llam\xc1\xa1"}', NOT_JSON),
    "a byte order mark": (b"\xef\xbb\xbf" + chat_body(), NOT_JSON),
    "Infinity": (b'{"model": "llama", "top_p": Infinity}', NOT_JSON),
    "-Infinity": (b'{"model": "llama", "top_p": -Infinity}', NOT_JSON),
    "NaN in the depths": (b'{"model": "llama", "a": [{"b": [NaN]}]}', NOT_JSON),
    "two models, one in escapes": (b'{"model": "llama", "mod\\u0065l": "other"}', TWICE),
    "the same model twice": (b'{"model": "llama", "model": "llama"}', TWICE),
    "brackets beside a model": (
        b'{"model": "llama", "a": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        TOO_DEEP,
    ),
    "brackets that never close": (b"[" * DEEP, TOO_DEEP),
    "objects in objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, TOO_DEEP),
    "objects in a list": (b"[" + chat_body() + b"]", NOT_AN_OBJECT),
    "null": (b"null", NOT_AN_OBJECT),
    "a number of 10 MB": (b"9" * LARGE, NOT_AN_OBJECT),
    "10 MB of spaces": (b" " * LARGE, NOT_JSON),
    "a list as model": (b'{"model": ["llama"]}', NAMELESS),
    "gzip": (gzip.compress(chat_body()), COMPRESSED),
    "deflate": (zlib.compress(chat_body()), NOT_JSON),
}
CODINGS = {"gzip": "gzip", "deflate": "deflate"}


def asking(case: str, body: bytes, *, close: bool = True) -> bytes:
    """The request, by an id that is told in its log line."""
    coding = CODINGS.get(case)
    fields = [f"x-request-id: {id_of(case)}"] + ([f"Content-Encoding: {coding}"] if coding else [])
    return post(body, *fields, close=close)


def id_of(case: str) -> str:
    return case.replace(" ", "-").replace(",", "")


def line_of(here: Place, request_id: str) -> dict[str, Any]:
    """The log line of a request, of which there is one."""

    def lines() -> list[dict[str, Any]]:
        return [line for line in here.gateway.log_lines() if line.get("request_id") == request_id]

    (line,) = wait_for(lines, "it is logged")
    return line


@pytest.mark.fault(20)
@pytest.mark.parametrize("case", ODD)
def test_an_odd_body_is_named_for_what_it_is_in_few_words_and_reaches_no_pod(
    here: Place, case: str
) -> None:
    body, expected = ODD[case]
    seen = process_of(here.cluster.models["llama"].pods[0]).requests
    before = len(seen)
    with counted_once(here.gateway, expected.code):
        answer = here.exchange(asking(case, body))
    check_error(answer, expected)
    assert len(json.loads(answer.content)["error"]["message"]) < SHORT
    assert answer.value("x-injected") is None
    line = line_of(here, id_of(case))
    assert (line["status"], line["error"]) == (expected.status, expected.code)
    assert len(json.dumps(line)) < LINE
    assert len(seen) == before


@pytest.mark.fault(20)
def test_a_connection_carries_one_odd_body_after_the_other_and_then_a_good_one(here: Place) -> None:
    """All were read to their ends, so that nothing of one is taken for the next request."""
    seen = process_of(here.cluster.models["llama"].pods[0]).requests
    before = len(seen)
    with Wire(here.gateway.port) as wire:
        for case, (body, expected) in ODD.items():
            assert next_answer(wire.send(post(body, close=False))).status == expected.status, case
        framed = post(in_chunks(b"[1]", b"{}"), "Transfer-Encoding: chunked", close=False)
        assert next_answer(wire.send(framed)).status == 400
        good = wire.send(post(None, "x-request-id: after-all-of-them")).read_to_the_end()
    assert (good.status, good.complete) == (200, True)
    assert [request.request_id for request in seen[before:]] == ["after-all-of-them"]


def next_answer(wire: Wire) -> RawAnswer:
    """The next answer on a connection that is kept."""
    raw = wire.read_until(b"\r\n\r\n")
    length = int(dict(head_of(raw)[1])["content-length"])
    while len(body_of(raw)) < length:
        raw += wire.socket.recv(65_536)
    assert len(body_of(raw)) == length
    return RawAnswer(raw)


#: What takes twenty times its size to be looked through. Python runs for each of its objects, and
#: could turn to another body then.
SPACIOUS = b'{"model":"none","a":[[]' + b",[],[],[],[],{}" * (LARGE // 15) + b"]}"
CROWD = 6
#: Bytes for all of them: as they came, as they are kept, and what one alone takes beside that.
ROOM = CROWD * 4 * LARGE + 40 * LARGE


@pytest.mark.fault(20)
def test_of_a_crowd_of_bodies_that_take_much_memory_only_one_is_looked_through_at_a_time(
    here: Place, record_property: Callable[[str, object], None]
) -> None:
    (worker,) = workers(here.gateway)
    before = peak_bytes(worker)
    answers: list[RawAnswer] = []

    def ask() -> None:
        answers.append(here.exchange(post(SPACIOUS)))

    askers = [threading.Thread(target=ask) for _ in range(CROWD)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert [answer.status for answer in answers] == [404] * CROWD
    grown = peak_bytes(worker) - before
    record_property(f"row 20: growth for {CROWD} bodies of 10 MB, MB", f"{grown / 1e6:.0f}")
    assert grown < ROOM, grown


def peak_bytes(pid: int) -> int:
    """The most memory a process has had so far."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    return int(peak) * 1024


@pytest.mark.fault(20)
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_one_byte_over_the_limit_is_refused_at_that_byte_and_its_connection_closed(
    here: Place, framing: str
) -> None:
    limit = 2 * LARGE
    too_large = Expected(413, "body_too_large", INVALID, says=str(limit))
    before = len(process_of(here.cluster.models["llama"].pods[0]).requests)
    with counted_once(here.gateway, "body_too_large"), Wire(here.gateway.port) as wire:
        if framing == "length":  # not a byte of it is waited for
            wire.send(post(b"", f"Content-Length: {limit + 1}", close=False))
        else:
            body = chat_body().ljust(limit)
            wire.send(post(in_chunks(body, end=False), "Transfer-Encoding: chunked", close=False))
            wire.send(in_chunks(b" ", end=False))
        answer = wire.read_to_the_end()
    check_error(answer, too_large)
    assert answer.value("connection") == "close"
    assert len(process_of(here.cluster.models["llama"].pods[0]).requests) == before
