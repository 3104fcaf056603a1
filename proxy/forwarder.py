"""One request to one endpoint after the other, until one answers or the rules say stop."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from cache.endpoints import Endpoint
from metrics import RETRIES, RETRIES_DENIED, UPSTREAM_FAILURES
from proxy.errors import GatewayError
from proxy.failures import (
    ClientLeft,
    ConnectFailed,
    ConnectionDied,
    OutOfResources,
    ResponseBroken,
    ResponseInvalid,
    ResponseTimeout,
    UpstreamFailure,
)
from proxy.request import InferenceRequest
from proxy.steps import Steps
from proxy.trace import UNTRACED, Trace
from proxy.transport import Reply
from routing.budget import RetryBudget
from routing.inflight import Lease
from routing.retries import Failure, RetryRules, Step
from routing.router import Candidates

_REASONS = {
    Failure.NOTHING_SENT: "connect",
    Failure.STALE_CONNECTION: "stale_connection",
    Failure.DIED: "replay",
    Failure.UNAVAILABLE: "unavailable",
}


class Exchange(Protocol):
    """Sends a request to an endpoint and waits for the head of its answer."""

    def exchange(
        self, endpoint: Endpoint, request: InferenceRequest, *, fresh: bool = False
    ) -> Steps[Reply]:
        """Raise an `UpstreamFailure` where no answer came."""


@dataclass(slots=True)
class Answer:
    """An endpoint's answer and the place on it, which is held until the answer is over.

    `note_error` takes the kind of failure that ends it early.
    """

    reply: Reply
    lease: Lease
    attempts: int
    note_error: Callable[[str], None] = lambda _kind: None

    def close(self) -> None:
        """Close the stream and give the place back. Idempotent."""
        try:
            self.reply.stream.close()
        finally:
            self.lease.release()


class Forwarder:
    """Sends requests on, and again where that can harm nobody.

    `retries` bounds further attempts after connections that did not come about; `replay` allows a
    request whose endpoint died to be sent to one other.
    """

    def __init__(
        self, transport: Exchange, budget: RetryBudget, *, retries: int, replay: bool
    ) -> None:
        self.transport = transport
        self.budget = budget
        self._retries = retries
        self._replay = replay

    def forward(
        self, request: InferenceRequest, candidates: Candidates, trace: Trace = UNTRACED
    ) -> Steps[Answer]:
        """Return the answer that is to be passed on; the caller closes it.

        `trace` is told of every attempt. Raises `GatewayError`, and what `Candidates.take` raises.
        """
        self.budget.request()
        rules = RetryRules(retries=self._retries, replay=self._replay and request.replayable)
        attempts = _Attempts(self, request, candidates, rules, trace)
        try:
            return (yield from attempts.run())
        except BaseException:
            attempts.close()
            raise


class _Attempts:
    """The attempts of one request. Owns the lease it is at, and the answer it may fall back on."""

    def __init__(
        self,
        forwarder: Forwarder,
        request: InferenceRequest,
        candidates: Candidates,
        rules: RetryRules,
        trace: Trace,
    ) -> None:
        self._transport = forwarder.transport
        self._budget = forwarder.budget
        self._request = request
        self._candidates = candidates
        self._rules = rules
        self._trace = trace
        self._count = 0
        self._step = Step.ELSEWHERE
        self._lease: Lease | None = None
        self._answer: Answer | None = None  # the answer, or a 503 until there is a better one
        self._failure: UpstreamFailure | None = None  # of the last attempt
        self._denied = False  # the budget had no further attempt left

    def run(self) -> Steps[Answer]:
        """Attempt until there is an answer or nothing more to try."""
        self._lease = self._candidates.take()
        while self._lease is not None:
            self._lease = yield from self._attempt(self._lease)
        if self._answer is not None and self._may_pass_on():
            return self._answer
        raise self._error()

    def close(self) -> None:
        """Let go of everything, because nothing will be passed on."""
        if self._lease is not None:
            self._lease.release()
        if self._answer is not None:
            self._answer.close()

    def _attempt(self, lease: Lease) -> Steps[Lease | None]:
        """One attempt; returns the lease of the next, None when it is over."""
        self._count += 1
        ended = yield from self._exchange(lease)
        if ended is None:
            return None
        self._step = self._rules.after(ended, lease.endpoint.key)
        following = self._following(lease, ended)
        if following is not lease and ended is not Failure.UNAVAILABLE:
            lease.release()
        if following is not None:
            RETRIES.labels(_REASONS[ended]).inc()
        return following

    def _exchange(self, lease: Lease) -> Steps[Failure | None]:
        """Send the request; None if the answer is good to pass on, else how the attempt ended."""
        # A request that must not run twice never meets the doubt an idle connection brings.
        fresh = self._step is Step.RESEND or not self._rules.replay
        try:
            request = self._request
            if fields := self._trace.attempt(lease.endpoint):
                request = replace(request, own_fields={**request.own_fields, **fields})
            reply = yield from self._transport.exchange(lease.endpoint, request, fresh=fresh)
        except ClientLeft:
            raise
        except UpstreamFailure as failure:
            UPSTREAM_FAILURES.labels(failure.kind).inc()
            self._trace.attempted(failure=failure.kind)
            self._failure = failure
            ended = _classify(failure)
            if ended is not Failure.STALE_CONNECTION and not isinstance(failure, OutOfResources):
                self._candidates.error_note(lease.endpoint)(failure.kind)
            # That a connection which had idled was closed says nothing against the endpoint.
            if ended in (Failure.NOTHING_SENT, Failure.DIED) or isinstance(failure, ResponseBroken):
                self._candidates.failed(lease.endpoint)
            return ended
        self._trace.attempted(status=reply.head.status)
        self._candidates.succeeded(lease.endpoint)
        if self._answer is not None:
            self._answer.close()
        self._answer = Answer(
            reply, lease, self._count, self._candidates.error_note(lease.endpoint)
        )
        self._failure = None
        return Failure.UNAVAILABLE if reply.head.status == 503 else None

    def _following(self, lease: Lease, ended: Failure) -> Lease | None:
        """Where the next attempt goes, if the rules, the endpoints and the budget have one left."""
        if self._step is Step.GIVE_UP:
            return None
        if self._step is Step.RESEND:
            return lease  # the first attempt on an endpoint that had closed an idle connection
        following = self._candidates.take()
        if following is None:
            return None
        # A 503 says that there is too much work, so more of it is never beyond the budget.
        transport = ended is not Failure.UNAVAILABLE
        sound = transport and self._candidates.is_sound(following.endpoint)
        if self._budget.allows_retry(to_sound=sound):
            return following
        following.release()
        self._denied = True
        RETRIES_DENIED.inc()
        return None

    def _may_pass_on(self) -> bool:
        """Whether the answer held is the last word: not if a later attempt may have run."""
        return self._failure is None or (
            isinstance(self._failure, ConnectFailed) and not self._rules.may_have_run
        )

    def _error(self) -> GatewayError:
        model, tries = self._candidates.model, f"after {self._count} attempt(s)"
        if self._denied:
            tries += ", and too many requests are being retried already"
        failure = self._failure
        if isinstance(failure, OutOfResources):
            return GatewayError("gateway_overloaded", f"the gateway can't connect: {failure}")
        if isinstance(failure, ResponseTimeout):
            return GatewayError("upstream_timeout", f"model {model!r}: {failure}, {tries}")
        if isinstance(failure, ResponseInvalid):
            return GatewayError("upstream_protocol_error", f"model {model!r}: {failure}")
        if isinstance(failure, ConnectFailed) and not self._rules.may_have_run:
            return GatewayError(
                "upstream_unreachable",
                f"model {model!r}: no endpoint accepted a connection {tries}; last: {failure}",
            )
        return GatewayError(
            "upstream_reset",
            f"model {model!r}: the connection to the endpoint ended before a response, {tries}; "
            "the request may have run",
        )


def _classify(failure: UpstreamFailure) -> Failure:
    if isinstance(failure, ConnectFailed):
        return Failure.NOTHING_SENT
    if isinstance(failure, ConnectionDied):
        return Failure.STALE_CONNECTION if failure.idle else Failure.DIED
    return Failure.FINAL
