"""The gateway's metrics. Objects only; where they are counted decides what they mean.

Under gunicorn every worker writes to files in `PROMETHEUS_MULTIPROC_DIR`, and whoever is asked adds
them up; the variable must be set before this module is imported (`gunicorn.conf.py` does it).
`model` is only ever a known model or `unknown`, so that no client can grow the label set.
"""

import os
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

UNKNOWN_MODEL: Final = "unknown"
#: A process's files, by the kinds of metrics below.
FILES: Final = ("counter", "histogram", "gauge_livesum", "gauge_livemin")
_FILE_BYTES = 65_536

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)

REQUESTS = Counter(
    "gateway_requests", "Inference requests and refusals, by model and status.", ["model", "status"]
)
ERRORS = Counter("gateway_errors", "Errors the gateway made itself, by code.", ["code"])
REQUEST_SECONDS = Histogram(
    "gateway_request_seconds",
    "Seconds from a request's arrival to the last byte of its answer.",
    ["model"],
    buckets=_SECONDS,
)
FIRST_BYTE_SECONDS = Histogram(
    "gateway_first_byte_seconds",
    "Seconds from a request's arrival to the first byte of the answer's body.",
    ["model"],
    buckets=_SECONDS,
)
IN_FLIGHT = Gauge(
    "gateway_in_flight",
    "Requests being answered by an endpoint now.",
    ["model"],
    multiprocess_mode="livesum",
)
RETRIES = Counter("gateway_retries", "Further attempts made, by reason.", ["reason"])
RETRIES_DENIED = Counter(
    "gateway_retries_denied", "Further attempts that the retry budget did not allow."
)
UPSTREAM_FAILURES = Counter(
    "gateway_upstream_failures", "Failures of endpoints on transport level, by kind.", ["kind"]
)
CLIENT_ABORTS = Counter(
    "gateway_client_aborts", "Clients that left before their answer was complete.", ["phase"]
)
POLLS = Counter("gateway_polls", "Lists of EndpointSlices, by result.", ["result"])
WATCHES = Counter("gateway_watches", "Watches of EndpointSlices that ended, by result.", ["result"])
LISTED_AT = Gauge(
    "gateway_listed_at",
    "Monotonic time of the last good list, the oldest of all workers.",
    multiprocess_mode="livemin",
)
SNAPSHOT_TTL = Gauge(
    "gateway_snapshot_ttl_seconds",
    "Seconds that a good list may serve while the API server is away.",
    multiprocess_mode="livemin",
)
SKIPPED = Counter(
    "gateway_discovery_skipped",
    "Slices and endpoints that were not understood or not allowed, by reason.",
    ["reason"],
)
SCRAPES = Counter(
    "gateway_scrapes", "Times an engine was asked for its load, by result.", ["result"]
)
STRATEGY_FALLBACKS = Counter(
    "gateway_strategy_fallbacks",
    "Choices made by requests in flight because a fresh report of an engine was missing.",
    ["strategy"],
)
STREAM_BYTES = Counter("gateway_stream_bytes", "Bytes of answers passed on to clients.")
HELD_REQUESTS = Gauge(
    "gateway_held_requests",
    "Requests that wait for a first ready endpoint of their model now.",
    multiprocess_mode="livesum",
)
HOLDS = Counter(
    "gateway_holds",
    "Requests that would have waited for a first ready endpoint, by result.",
    ["result"],
)


def make_files(directory: Path) -> None:
    """Make this process's files, before it counts anything and each at once with its size.

    `prometheus_client` makes them where they are missing, but empty first: whoever adds up in that
    moment fails. Those of a former process with this id are kept, and counted on. Raises `OSError`.
    """
    pid = os.getpid()
    new = directory / f"new-metrics-{pid}"
    for kind in FILES:
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        os.truncate(new, _FILE_BYTES)
        path = directory / f"{kind}_{pid}.db"
        if not path.exists():
            new.rename(path)
    new.unlink(missing_ok=True)
