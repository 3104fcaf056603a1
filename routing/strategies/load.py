"""Strategies that go by what engines report of themselves, and by how soon they answered.

An endpoint without a fresh report is judged by this worker's own requests on it; `Reports` says how
reports are brought up to date.
"""

from collections.abc import Sequence

from cache.endpoints import Endpoint
from routing.strategies.base import Strategy
from routing.view import Query, View

#: What one request of a queue weighs where the figures proper are equal.
_TIE = 1e-6
#: The weight of the tokens an engine made in the second of its report. Measured (bench/strategies,
#: one gateway): 0.4 puts the median time to the first token 30 % above random's, 0.1 12 % below.
_MADE = 0.1


class LeastBusy(Strategy):
    """The engine with the fewest requests that run or wait."""

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """Requests that run or wait in each by now."""
        return view.reports(endpoints).busy(self._rng)


class LeastKvCache(Strategy):
    """The engine whose KV cache is used least, ties by what waits.

    Requests that wait for room in it, and those sent since the report, count with what a running
    one takes on average: a cache that is full says nothing of the queue before it.
    """

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """The part of each cache that is taken or wanted, which may be more than all of it."""
        reports = view.reports(endpoints)
        each = reports.per_request(
            [engine.kv_usage if engine else None for engine in reports.engines]
        )
        running = reports.running()
        costs = []
        for engine, since in zip(reports.engines, reports.since(self._rng), strict=True):
            if engine is None:  # as many run in it as in the others, and take as much
                used, queue = running * each, since - running
            else:
                used, queue = engine.kv_usage, engine.queued + since
            costs.append(used + queue * (each + _TIE))
        return costs


class Throughput(Strategy):
    """The engine with the most headroom for tokens.

    The engines of a model are taken to be equally fast, so the most headroom is where the fewest
    tokens a second are being made and read. What an engine should make for the requests it has
    counts most: what it did make in the one second of a report tells whose prompts happened to be
    read in it, and an engine that makes few may be stuck.
    """

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """Tokens a second that each should make for its requests, and a part of what it did."""
        reports = view.reports(endpoints)
        each = reports.per_request(
            [engine.tokens_per_second if engine else None for engine in reports.engines]
        )
        costs = []
        for engine, busy in zip(reports.engines, reports.busy(self._rng), strict=True):
            wanted = busy * (each + _TIE)
            made = engine.tokens_per_second if engine else wanted
            costs.append(wanted + _MADE * (made - wanted))
        return costs


class LeastLatency(Strategy):
    """The endpoint that is expected to begin its answer first.

    Expected is the moving average of the time to the first byte, times one more than the requests
    before it in the queue. An endpoint nothing is known of is taken for as good as the best.

    Requests that end do not shorten the queue of those that have not begun, so the change since the
    report counts from where it is least. (Counted from none, all sent since would be hidden by what
    has ended, and the whole second's requests go to one engine.) In an
    engine without a report as many are taken to run as in the others.
    """

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """Seconds until each would begin its answer; queues alone where nothing is known."""
        reports = view.reports(endpoints)
        expected: list[float | None] = [None] * len(endpoints)
        if view.latencies is not None:
            expected = view.latencies.expected([endpoint.key for endpoint in endpoints])
        best = min((seconds for seconds in expected if seconds is not None), default=1.0)
        since = reports.since(self._rng)
        least, running = min(0.0, *since), reports.running()
        costs = []
        for engine, change, seconds in zip(reports.engines, since, expected, strict=True):
            queue = engine.queued + change if engine else max(least, change - running)
            costs.append((best if seconds is None else seconds) * (1.0 + queue - least))
        return costs
