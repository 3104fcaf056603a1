"""The accounts of relayed streams: what is written down and given back when one ends."""

import contextlib
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cache.endpoints import Endpoint
from metrics import UPSTREAM_FAILURES
from proxy.errors import GatewayError
from proxy.forwarder import Answer
from proxy.link import RelayLink
from proxy.record import RequestRecord
from proxy.trace import OFF, Tracing
from relay.messages import Framing, Order, Outcome, Report
from relay.stream import chunk
from routing.inflight import InFlight
from routing.lasterrors import LastErrors, culprit

#: The error a stream ends with, by its outcome. Where they differ, clients are told less than logs.
BREAKS: dict[Outcome, GatewayError] = {
    "died": GatewayError("upstream_died", "the endpoint's answer broke off"),
    "idle": GatewayError("upstream_idle", "the endpoint fell silent"),
    "timeout": GatewayError("upstream_timeout", "the answer took longer than any may"),
    "draining": GatewayError("gateway_draining", "the gateway's time to finish is over"),
    "refused": GatewayError("gateway_overloaded", "the gateway can't pass on the rest"),
}


def last_events() -> dict[str, str]:
    """What a broken event stream says last, by outcome."""
    return {outcome: error.event().decode() for outcome, error in BREAKS.items()}


class RelayedAccount:
    """One stream's account.

    `settle` is called once, with whether the endpoint's connection may carry another request, and
    whether the stream is complete; `note_error` before it if the endpoint failed, with how, and
    `break_off` if the relay could not take it, so that it told the client nothing.
    """

    def __init__(
        self,
        record: RequestRecord,
        status: int,
        settle: Callable[[bool, bool], None],
        note_error: Callable[[str], None],
        break_off: Callable[[], None] = lambda: None,
    ) -> None:
        self._record = record
        self._status = status
        self._settle = settle
        self._note_error = note_error
        self._break_off = break_off

    def ended(self, report: Report) -> None:
        """Write down how it ended."""
        self._record.relayed(report.size, report.first)
        if report.outcome in ("left", "stalled"):
            self._record.aborted("receiving" if report.outcome == "left" else "stalled")
        elif report.outcome != "complete":
            if report.outcome in ("died", "idle"):
                UPSTREAM_FAILURES.labels(report.outcome).inc()
                self._note_error(report.outcome)
            elif report.outcome == "refused":
                self._break_off()
            self._record.failed(BREAKS[report.outcome].code, report.reason)
        self._settle(report.reusable, report.outcome == "complete")
        self._record.finish(self._status, report.at)

    def lost(self) -> None:
        """The relay died."""
        self._record.failed("relay_died", "the process that moved this stream died")
        self._settle(False, False)
        self._record.finish(self._status)

    def moved(self) -> None:
        """Another worker has the record now."""
        self._settle(False, False)
        self._record.hand_on()


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: an endpoint may be silent, a client may not read, a stream may take in all."""

    idle: float
    send: float
    total: float


def order_of(answer: Answer, facts: dict[str, Any]) -> Order:
    """The order to relay an answer, without limits yet."""
    head = answer.reply.head
    lengths = head.values("content-length")
    framing: Framing = "closed"
    if head.status in (204, 304) or lengths:
        framing = "length"
    elif head.tokens("transfer-encoding"):
        framing = "chunked"
    return Order(
        id=0,
        framing=framing,
        length=int(lengths[0]) if lengths and head.status not in (204, 304) else 0,
        events=head.is_event_stream,
        takes_event=head.takes_event,
        idle=math.inf,
        send=math.inf,
        ends=math.inf,
        closes=True,
        facts=facts,
    )


class StreamRelay:
    """Gives answers to the relay, and takes over the accounts of workers that are gone."""

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        in_flight: InFlight,
        errors: LastErrors,
        clock: Callable[[], float],
        tracing: Tracing = OFF,
    ) -> None:
        self.link = RelayLink(directory, last_events(), self._adopt)
        self._limits = limits
        self._in_flight = in_flight
        self._errors = errors
        self._clock = clock
        self._tracing = tracing

    def take(
        self,
        answer: Answer,
        record: RequestRecord,
        client: socket.socket,
        unsent: bytes,
        *,
        closes: bool,
        settle: Callable[[bool, bool], None],
        patient: bool,
    ) -> bool:
        """Let the relay go on with `answer`; false if it can't.

        `unsent` is what the client gets before the rest of the body; `closes` that its connection
        is to be closed after it. `settle` is called as `RelayedAccount` says. `patient` allows to
        wait for the relay to take it.
        """
        lent = answer.reply.stream.lend()
        if lent is None:
            return False
        upstream, received = lent
        status = answer.reply.head.status
        order = order_of(
            answer,
            {
                "record": record.facts(),
                "status": status,
                "endpoint": culprit(answer.lease.endpoint),
            },
        )
        order.closes = closes
        order.idle, order.send = self._limits.idle, self._limits.send
        order.ends = self._clock() + self._limits.total
        break_off = partial(_break_off, client, unsent, takes_event=order.takes_event)
        account = RelayedAccount(record, status, settle, answer.note_error, break_off)
        if self.link.hand_over(
            order, (client, upstream), (unsent, received), account, patient=patient
        ):
            return True
        answer.reply.stream.take_back()
        return False

    def _adopt(self, facts: dict[str, Any]) -> RelayedAccount:
        record = RequestRecord.resumed(facts["record"], self._clock, self._tracing)
        endpoint = Endpoint(*facts["endpoint"])
        lease = self._in_flight.count(endpoint)

        def settle(_reusable: bool, _keeps: bool) -> None:
            lease.release()

        note_error = partial(self._errors.note, culprit(endpoint))
        return RelayedAccount(record, facts["status"], settle, note_error)


def _break_off(client: socket.socket, unsent: bytes, *, takes_event: bool) -> None:
    """Send what is due before the end of a stream that nobody moves, as far as there is room."""
    event = chunk(BREAKS["refused"].event()) if takes_event else b""
    with contextlib.suppress(OSError):
        client.send(unsent + event)
