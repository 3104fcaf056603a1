"""Sends mutations to a proxy and judges what became of them on both of its sides."""

import re
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from tests.mutations import Mutation
from tests.recorder import ANSWERS, Recorder
from tests.strict_http import End, Reading, Request, read_strictly
from tests.wire import CHAT, Wire, head_of, post

#: Connections that are used for it at the same time.
_AT_ONCE = 4
_NUMBER = re.compile(r"[?&](?:outer|hidden)=([0-9]{4})\b")
#: What a proxy says where it refuses; never that it failed, or waited in vain.
_REFUSALS = frozenset({400, 404, 405, 413, 414, 417, 431, 501, 505})


@dataclass(frozen=True)
class Answer:
    """An answer: to `target`, if the recorder gave it, else with the gateway's `code`, if any."""

    status: int
    target: str | None
    code: str | None = None


@dataclass
class Attack:
    """A mutation that was sent, what came back until its connection ended, and what is wrong."""

    mutation: Mutation
    reading: Reading
    answers: list[Answer] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether not even the first request was taken."""
        return bool(self.answers) and self.answers[0].status in _REFUSALS


def attack_all(connect: Callable[[], Wire], some: Iterable[Mutation]) -> list[Attack]:
    """Send the mutations to the proxy that `connect` gives connections to."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda mutation: _attack(connect, mutation), some))


def _attack(connect: Callable[[], Wire], mutation: Mutation) -> Attack:
    """Send one, and good requests after it: each has to get its own answer."""
    attack = Attack(mutation, read_strictly(mutation.raw))
    target = f"{CHAT}?probe={mutation.number:04d}"
    good = post(b"{}", target=target)
    try:
        with connect() as wire:
            _exchange(wire, attack, good)
        with connect() as wire:
            answers, rest = _answers(wire.send(good).read_to_the_end().raw, [])
    except OSError as error:
        attack.faults.append(f"a connection did not end well: {error!r}")
    else:
        if rest or answers != [Answer(200, target)]:
            attack.faults.append(f"the next good request got {answers} {rest!r}")
    return attack


def _exchange(wire: Wire, attack: Attack, good: bytes) -> None:
    """Send a mutation, and take what comes back until the proxy ends the connection."""
    expected, end = list(attack.reading.requests), attack.reading.end
    wire.send(attack.mutation.raw)
    raw = b""
    if end is End.INCOMPLETE:  # whether the proxy waits for the rest or refuses: there is none
        _end(wire)
    else:
        raw = _receive(wire, expected, len(expected) + (end is End.INVALID))
    if end is End.CLEAN:  # the next one on the same connection has to be taken for what it is
        with suppress(OSError):  # the proxy may be closing it
            wire.send(good)
        expected += read_strictly(good).requests
    elif end is End.INVALID and all(a.status < 400 for a in _answers(raw, expected)[0]):
        _end(wire)  # it was taken: no use in waiting for more
    raw = wire.read_to_the_end(raw).raw
    attack.answers, rest = _answers(raw, expected)
    if rest:
        attack.faults.append(f"an answer that is none: {rest!r}")
    _judge_answers(attack, expected)


def _end(wire: Wire) -> None:
    """Send no more; under TLS, too, what comes back can still be read."""
    with suppress(OSError):  # the proxy may have closed it
        socket.socket.shutdown(wire.socket, socket.SHUT_WR)


def _receive(wire: Wire, requests: list[Request], count: int) -> bytes:
    """What comes back until it holds so many answers, or ends."""
    raw = b""
    while len(_answers(raw, requests)[0]) < count and (data := wire.socket.recv(65_536)):
        raw += data
    return raw


def _answers(raw: bytes, requests: list[Request]) -> tuple[list[Answer], bytes]:
    """The complete final answers in what was received, and what comes after them."""
    found: list[Answer] = []
    while b"\r\n\r\n" in raw:
        first, fields = head_of(raw)
        status, by_name = int(first.split(" ")[1]), dict(fields)
        bodyless = len(found) < len(requests) and requests[len(found)].method == "HEAD"
        size = 0 if status < 200 or bodyless else int(by_name.get("content-length", "0"))
        end = raw.index(b"\r\n\r\n") + 4 + size
        if len(raw) < end:
            break
        raw = raw[end:]
        if status >= 200:
            found.append(Answer(status, by_name.get(ANSWERS), by_name.get("x-gateway-error")))
    return found, raw


def _judge_answers(attack: Attack, expected: list[Request]) -> None:
    """Each answer is its own request's; what was no request got at most one, a refusal."""
    for answer, request in zip(attack.answers, expected, strict=False):
        if answer.target not in (None, request.origin):
            attack.faults.append(f"{request.origin} got the answer to {answer.target}")
    beyond = attack.answers[len(expected) :]
    if len(beyond) > 1 or any(a.target or a.status not in _REFUSALS for a in beyond):
        attack.faults.append(f"answers to what is no request: {beyond}")
    failed = [a for a in attack.answers if a.status >= 400 and a.status not in _REFUSALS]
    if failed:
        attack.faults.append(f"the proxy failed: {failed}")


@dataclass(frozen=True)
class Verdict:
    """What came upstream, by the mutation's number, and what is wrong with any of it."""

    forwarded: dict[int, list[Request]]
    extra: int
    faults: list[str]


def judge(recorder: Recorder, attacks: Iterable[Attack]) -> Verdict:
    """Compare what the recorder has with what the clients have sent."""
    forwarded: dict[int, list[Request]] = {}
    faults = []
    for record in recorder.connections:
        reading = read_strictly(bytes(record))
        if reading.end is not End.CLEAN:
            faults.append(f"upstream, {reading.end}: {bytes(record)[-500:]!r}")
        for request in reading.requests:
            if _framing(request) != ["content-length"]:
                faults.append(f"upstream, framed in an odd way: {request}")
            number = _NUMBER.search(request.target)
            if number:
                forwarded.setdefault(int(number[1]), []).append(request)
    extra = 0
    for attack in attacks:
        seen = forwarded.get(attack.mutation.number, [])
        sent = {(request.origin, request.body) for request in attack.reading.requests}
        wrong = [one.target for one in seen if (one.target, one.body) not in sent]
        answered = [answer.target for answer in attack.answers if answer.target]
        if wrong or len({one.target for one in seen}) < len(seen):
            attack.faults.append(f"upstream came {seen}")
        if attack.reading.end is not End.INCOMPLETE and len(answered) < len(seen):
            attack.faults.append(f"upstream came {seen}, and answers to {answered} only")
        extra += len(wrong)
        faults += [f"{attack.mutation}: {fault}" for fault in attack.faults]
    return Verdict(forwarded, extra, faults)


def _framing(request: Request) -> list[str]:
    """The names that say, or that somebody might think say, where the body ends."""
    names = [name.replace("_", "-") for name in request.names]
    return [name for name in names if name in ("content-length", "transfer-encoding")]
