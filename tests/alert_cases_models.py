"""The alerts that tell of a model's pods, where gateways may not agree; for alert_cases.py."""

import re

from tests.promtool import Case, series_of

MODEL = {"namespace": "models", "model": "llama"}
DISCOVERY = "gateway_snapshot_age_seconds"
UNREADY = "GatewayModelUnready"
NO_PODS = "GatewayModelWithoutPods"
GONE = "GatewayModelGone"
STORM = "GatewaySetAsideStorm"


def endpoints(
    pod: str = "gw-1",
    *,
    ready: str = "0x30",
    not_ready: str = "0x30",
    leaving: str = "0x30",
    aside: str = "0x30",
    age: str = "1x30",
) -> dict[str, str]:
    """The endpoints of one model, as a gateway sees them whose list is of that age.

    States that are not given have none.
    """
    counts = {"ready": ready, "not_ready": not_ready, "terminating": leaving, "set_aside": aside}
    return {
        series_of("gateway_endpoints", pod, model="llama", state=state): text
        for state, text in counts.items()
    } | {series_of(DISCOVERY, pod): age}


def by_instance(series: dict[str, str]) -> dict[str, str]:
    """The same where Prometheus adds `instance` only."""
    known = 'namespace="models", pod='
    return {name.replace(known, "instance="): text for name, text in series.items()}


def unlabelled(series: dict[str, str]) -> dict[str, str]:
    """The same where Prometheus adds nothing that tells one gateway from another."""
    added = re.compile(r'namespace="models", pod="gw-1"(?:, )?')
    return {added.sub("", name): text for name, text in series.items()}


def requests(status: str, text: str) -> dict[str, str]:
    return {series_of("gateway_requests_total", model="llama", status=status): text}


def not_found(text: str) -> dict[str, str]:
    return {series_of("gateway_errors_total", code="model_not_found"): text}


# A gateway that can't reach the API server any more: what it knows is of the beginning.
CUT_OFF = "1+60x30"
THEY_LOAD = endpoints(not_ready="2x30")
ONE_IS_READY_STILL = endpoints("gw-2", ready="1x30", age=CUT_OFF)
# Ten minutes of service, then every pod is lost; the new ones are pending.
LOST = endpoints(ready="2x10 0x99", age="1x110")
MISSED = requests("503", "0x10 0+2x99")
# The same, when the Service is lost.
NO_MORE = "0x10 stale"
DELETED = endpoints(ready="2x10 stale", not_ready=NO_MORE, leaving=NO_MORE, aside=NO_MORE)
ASKED_FOR = not_found("0x10 0+2x99")

MODELS = [
    Case(UNREADY, "pods load, none is ready", endpoints(not_ready="2x30"), "2m", MODEL),
    Case(UNREADY, "one of two is ready", endpoints(ready="1x30", not_ready="1x30")),
    Case(UNREADY, "it was scaled to zero", endpoints()),
    Case(UNREADY, "it is being scaled to zero", endpoints(leaving="2x30")),
    Case(UNREADY, "what was ready is set aside", endpoints(aside="1x30", not_ready="1x30")),
    Case(UNREADY, "only just now", endpoints(ready="1 1 0", not_ready="0 0 1"), "2m"),
    Case(UNREADY, "another gateway has one", THEY_LOAD | endpoints("gw-2", ready="1x30")),
    Case(
        UNREADY,
        "a gateway that is cut off still calls one ready",
        THEY_LOAD | ONE_IS_READY_STILL,
        "4m",
        MODEL,
    ),
    Case(
        UNREADY,
        "a gateway that is cut off still calls them unready",
        endpoints(ready="2x30") | endpoints("gw-2", not_ready="2x30", age=CUT_OFF),
    ),
    Case(
        UNREADY,
        "a gateway that is cut off missed that it was scaled to zero",
        endpoints() | endpoints("gw-2", not_ready="2x30", age=CUT_OFF),
    ),
    Case(
        UNREADY,
        "the other gateway's list is late, but no minute",
        THEY_LOAD | endpoints("gw-2", ready="1x30", age="50x30"),
    ),
    Case(
        UNREADY,
        "all gateways list every five minutes",
        endpoints(not_ready="2x30", age="241x30")
        | endpoints("gw-2", not_ready="2x30", age="60x30"),
        labels=MODEL,
    ),
    Case(
        UNREADY,
        "all gateways are cut off",
        endpoints(not_ready="2x30", age=CUT_OFF)
        | endpoints("gw-2", not_ready="2x30", age="301+60x30"),
        "4m",
        MODEL,
    ),
    Case(
        UNREADY,
        "the only gateway has a worker without a list",
        endpoints(not_ready="2x30", age="Inf Inf Inf Inf"),
        "3m",
        MODEL,
    ),
    Case(
        UNREADY,
        "all lists have expired",
        endpoints(ready="_x30", not_ready="2x10 stale", leaving="_x30", aside="_x30", age=CUT_OFF),
        "12m",
    ),
    Case(UNREADY, "all pods are lost and clients ask", LOST | MISSED, "14m", MODEL),
    Case(UNREADY, "they have been lost for long", LOST | MISSED, "100m", MODEL),
    Case(
        UNREADY,
        "a gateway that is cut off does not know that they are lost",
        LOST | ONE_IS_READY_STILL | MISSED,
        "14m",
        MODEL,
    ),
    Case(UNREADY, "it was put to sleep and nobody asks", LOST | requests("503", "4x99"), "14m"),
    Case(UNREADY, "it has slept for days", endpoints() | requests("503", "0+2x30"), "14m"),
    Case(UNREADY, "one is left", endpoints(ready="2x10 1x30") | MISSED, "14m"),
    Case(NO_PODS, "clients ask", endpoints() | requests("503", "0+2x30"), "12m", MODEL),
    Case(
        NO_PODS,
        "a gateway that is cut off still knows one",
        endpoints() | ONE_IS_READY_STILL | requests("503", "0+2x30"),
        "12m",
        MODEL,
    ),
    Case(
        NO_PODS,
        "a gateway that is cut off has not heard of the new ones",
        endpoints(not_ready="1x30") | endpoints("gw-2", age=CUT_OFF) | requests("503", "0+2x30"),
        "12m",
    ),
    Case(
        NO_PODS,
        "clients ask while the last pods leave",
        endpoints(leaving="1x30") | requests("503", "0+2x30"),
        "12m",
        MODEL,
    ),
    Case(NO_PODS, "nobody asks any more", endpoints() | requests("503", "4x30"), "12m"),
    Case(NO_PODS, "it loads", endpoints(not_ready="1x30") | requests("503", "0+2x30"), "12m"),
    Case(GONE, "its Service is deleted and clients ask", DELETED | ASKED_FOR, "15m", MODEL),
    Case(
        GONE,
        "a gateway that is cut off still knows it",
        DELETED | ONE_IS_READY_STILL | ASKED_FOR,
        "15m",
        MODEL,
    ),
    Case(GONE, "it is retired and nobody asks", DELETED | not_found("4x99"), "15m"),
    Case(GONE, "clients misspell its name", endpoints(ready="2x30") | ASKED_FOR, "15m"),
    Case(GONE, "all its pods are lost", LOST | ASKED_FOR, "15m"),
    Case(
        GONE,
        "it has been gone for long",
        DELETED | ASKED_FOR | {series_of(DISCOVERY): "1x99"},
        "80m",
    ),
    Case(STORM, "half of the endpoints fail", endpoints(ready="2x30", aside="2x30"), labels=MODEL),
    Case(
        STORM,
        "one of three gateways sees half of them fail",
        endpoints(ready="2x30", aside="2x30")
        | endpoints("gw-2", ready="4x30")
        | endpoints("gw-3", ready="4x30"),
        labels=MODEL,
    ),
    Case(STORM, "one of ten fails", endpoints(ready="9x30", aside="1x30")),
    Case(
        STORM,
        "another one fails for each gateway",
        endpoints(ready="3x30", aside="1x30") | endpoints("gw-2", ready="3x30", aside="1x30"),
    ),
    Case(STORM, "they failed for a moment", endpoints(ready="4 0 4x20", aside="0 4 0x20"), "5m"),
    Case(STORM, "all is well", endpoints(ready="4x30")),
]

#: Where Prometheus adds less than the alerts' texts name.
UNLABELLED = [
    Case(
        UNREADY,
        "that gateway is told by its instance only",
        by_instance(THEY_LOAD | ONE_IS_READY_STILL),
        "4m",
        {"model": "llama"},
    ),
    Case(
        STORM,
        "that gateway is told by its instance only",
        by_instance(
            endpoints(ready="2x30", aside="2x30")
            | endpoints("gw-2", ready="4x30")
            | endpoints("gw-3", ready="4x30")
        ),
        labels={"model": "llama"},
    ),
    Case(
        UNREADY,
        "no label tells the gateway from others",
        unlabelled(THEY_LOAD),
        labels={"model": "llama"},
    ),
]
