"""What all workers have counted since the start, in the few numbers that the page draws."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Metric

#: Adding up is work for every worker's every series: whoever asks sooner gets the same again.
_FRESH_SECONDS = 0.5


class Totals:
    """Adds up what `counted` holds. `clock` is monotonic, in seconds."""

    def __init__(self, counted: CollectorRegistry, clock: Callable[[], float]) -> None:
        self._counted = counted
        self._clock = clock
        self._lock = threading.Lock()  # guards: _read_at, _document
        self._read_at: float | None = None
        self._document: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """Requests by status, errors by code, and the histogram of seconds to the first byte.

        `at` is the monotonic time, in seconds, at which they were added up.
        """
        with self._lock:
            now = self._clock()
            if self._read_at is None or now - self._read_at > _FRESH_SECONDS:
                self._document = {"at": round(now, 3), **_totals(self._counted.collect())}
                self._read_at = now
            return self._document


def _totals(metrics: Iterable[Metric]) -> dict[str, Any]:
    requests: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    buckets: Counter[float] = Counter()
    for metric in metrics:
        for sample in metric.samples:
            if sample.name == "gateway_requests_total":
                requests[sample.labels["status"]] += int(sample.value)
            elif sample.name == "gateway_errors_total" and sample.value:
                errors[sample.labels["code"]] += int(sample.value)
            elif sample.name == "gateway_first_byte_seconds_bucket":
                buckets[float(sample.labels["le"])] += int(sample.value)
    return {
        "requests": dict(sorted(requests.items())),
        "errors": dict(sorted(errors.items())),
        # The last bucket, which has no upper bound, is all of them.
        "first_byte_seconds": [
            [None if bound == float("inf") else bound, count]
            for bound, count in sorted(buckets.items())
        ],
    }
