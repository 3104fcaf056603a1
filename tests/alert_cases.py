"""What Prometheus may have seen of gateways, and which alert fires then; for test_alerts.py."""

from tests.alert_cases_models import DISCOVERY, MODELS, requests
from tests.promtool import Case, series_of

POD = {"namespace": "models", "pod": "gw-1"}
NAMESPACE = {"namespace": "models"}


def errors(code: str, text: str) -> dict[str, str]:
    return {series_of("gateway_errors_total", code=code): text}


def snapshot(age: str, ttl: int = 600) -> dict[str, str]:
    return {series_of(DISCOVERY): age, series_of("gateway_snapshot_ttl_seconds"): f"{ttl}x30"}


def results(name: str, **counts: str) -> dict[str, str]:
    return {series_of(name, result=result): text for result, text in counts.items()}


def fallbacks(text: str) -> dict[str, str]:
    return {series_of("gateway_strategy_fallbacks_total", strategy="least-busy"): text}


DENIED = series_of("gateway_retries_denied_total")
SKIPPED = series_of("gateway_discovery_skipped_total", reason="port")
OTHERS = {series_of(DISCOVERY, namespace="others"): "1x30"}
REPLACED = {series_of(DISCOVERY, "gw-2"): "_x3 1x30"}
ABSENT = "GatewayAbsent"
STALE = "GatewaySnapshotStale"
FAILS = "GatewayDiscoveryFails"
SKIPS = "GatewayDiscoverySkipped"
NOT_SCRAPED = "GatewayEnginesNotScraped"
FAST = "GatewayErrorBudgetBurnsFast"
SLOWLY = "GatewayErrorBudgetBurnsSlowly"
BUDGET = "GatewayRetryBudgetExhausted"
OVERLOADED = "GatewayOverloaded"
BUG = "GatewayInternalErrors"
RELAY = "GatewayRelayDied"
SCRAPES, POLLS = "gateway_scrapes_total", "gateway_polls_total"
REASON = {"namespace": "models", "reason": "port"}
THREE_DAYS, HALF_HOURS = "3d", "30m"

CASES = [
    *MODELS,
    Case(ABSENT, "nothing ever was there", {}, "6m", {}),
    Case(ABSENT, "the last gateway is gone", snapshot("1x3 stale"), labels=NAMESPACE),
    Case(
        ABSENT,
        "that of one namespace is gone, that of another is there",
        snapshot("1x3 stale") | OTHERS,
        labels=NAMESPACE,
    ),
    Case(ABSENT, "a gateway was there until now", snapshot("1x6 stale")),
    Case(ABSENT, "another gateway took its place", snapshot("1x3 stale") | REPLACED),
    Case(ABSENT, "a gateway is there", snapshot("1x30") | OTHERS),
    Case(STALE, "half of the TTL is over", snapshot("1+60x30"), labels=POD, at="7m"),
    Case(STALE, "there never was a list", snapshot("Inf Inf Inf Inf"), "2m", POD),
    Case(STALE, "a short TTL is half over", snapshot("40x30", ttl=60), labels=POD),
    Case(STALE, "there is much time left", snapshot("1+60x30"), "5m"),
    Case(STALE, "the next list came", snapshot("1 400 2"), "2m"),
    Case(FAILS, "no list succeeds", results(POLLS, forbidden="0+6x30"), labels=POD),
    Case(FAILS, "most fail", results(POLLS, ok="0+3x30", timeout="0+6x30"), labels=POD),
    Case(FAILS, "some fail", results(POLLS, ok="0+20x30", throttled="0+5x30")),
    Case(FAILS, "it is over", results(POLLS, ok="0x5 30+30x30", timeout="0+6x5 30x30"), "14m"),
    Case(SKIPS, "a slice was skipped at the start", {SKIPPED: "1x120"}, "0m", REASON),
    Case(SKIPS, "one more is skipped", {SKIPPED: "1x100 2x100"}, "110m", REASON),
    Case(SKIPS, "it was an hour ago", {SKIPPED: "1x120"}, "90m"),
    Case(SKIPS, "none ever was", {series_of(DISCOVERY): "1x30"}),
    Case(
        NOT_SCRAPED,
        "engines refuse",
        results(SCRAPES, ok="0+10x30", unreachable="0+50x30") | fallbacks("0+9x30"),
        labels=POD,
    ),
    Case(NOT_SCRAPED, "nobody scrapes", fallbacks("0+9x30"), labels=POD),
    Case(NOT_SCRAPED, "no strategy needs it", results(SCRAPES, no_metrics="0+60x30")),
    Case(
        NOT_SCRAPED,
        "no strategy needs it any more",
        results(SCRAPES, no_metrics="0+60x30") | fallbacks("9x30"),
    ),
    Case(
        NOT_SCRAPED,
        "one engine of six is new",
        results(SCRAPES, ok="0+50x30", unreachable="0+10x30") | fallbacks("0+1x30"),
    ),
    Case(
        FAST,
        "2 % fail in an hour, after five without",
        requests("200", "0+200x190") | errors("upstream_reset", "0x150 0+4x40"),
        "6h",
        NAMESPACE,
        "2m",
    ),
    Case(
        FAST,
        "clients' mistakes hide none of it",
        requests("200", "0+98x60")
        | requests("502", "0+2x60")
        | requests("404", "0+9900x60")
        | errors("upstream_reset", "0+2x60"),
        "60m",
        NAMESPACE,
    ),
    Case(
        FAST,
        "1 % of the streams break for six hours",
        requests("200", "0+600x190") | errors("upstream_died", "0+6x190"),
        "6h",
        NAMESPACE,
        "2m",
    ),
    Case(
        FAST,
        "clients make mistakes",
        requests("404", "0+50x60")
        | requests("200", "0+1x60")
        | errors("model_not_found", "0+50x60"),
        "60m",
    ),
    Case(FAST, "clients leave", requests("499", "0+50x60") | requests("200", "0+1x60"), "60m"),
    Case(FAST, "pods answer 500", requests("500", "0+50x60") | errors("upstream_reset", "0x60")),
    Case(
        FAST,
        "one of a night's twenty fails",
        requests("200", "0 1+1x19") | errors("upstream_died", "0 1x20"),
        "5m",
    ),
    Case(
        FAST,
        "the trouble is over",
        requests("200", "0+100x90") | errors("upstream_reset", "0+5x20 100x70"),
        "60m",
    ),
    Case(
        SLOWLY,
        "0.2 % fail for three days",
        requests("200", "0+2000x150") | errors("upstream_timeout", "0+4x150"),
        THREE_DAYS,
        NAMESPACE,
        HALF_HOURS,
    ),
    Case(
        SLOWLY,
        "0.4 % fail on a quiet day",
        requests("200", "0+4000x95 382000+2000x55") | errors("upstream_timeout", "0x95 0+8x55"),
        THREE_DAYS,
        NAMESPACE,
        HALF_HOURS,
    ),
    Case(
        SLOWLY,
        "less fails than may",
        requests("200", "0+20000x150") | errors("upstream_timeout", "0+10x150"),
        THREE_DAYS,
        every=HALF_HOURS,
    ),
    Case(
        SLOWLY,
        "eight of few fail",
        requests("200", "0+2x150") | errors("upstream_timeout", "0x140 4 8x10"),
        THREE_DAYS,
        every=HALF_HOURS,
    ),
    Case(
        SLOWLY,
        "the trouble is over",
        requests("200", "0+2000x150") | errors("upstream_timeout", "0x100 0+100x30 3000x20"),
        THREE_DAYS,
        every=HALF_HOURS,
    ),
    Case(BUDGET, "many are denied", {DENIED: "0+5x30"}, labels=NAMESPACE),
    Case(BUDGET, "a few are denied", {DENIED: "0+1x30"}),
    Case(BUDGET, "many were denied", {DENIED: "0 50x30"}),
    Case(OVERLOADED, "many are refused", errors("gateway_overloaded", "0+5x30"), labels=POD),
    Case(OVERLOADED, "a few are refused", errors("gateway_overloaded", "0+1x30")),
    Case(OVERLOADED, "others fail", errors("upstream_reset", "0+50x30")),
    Case(BUG, "one request met a bug", errors("internal_error", "0x5 1x30"), labels=POD),
    Case(BUG, "discovery died long ago", results(POLLS, internal_error="1x99"), "90m", POD),
    Case(BUG, "scraping died long ago", results(SCRAPES, internal_error="1x99"), "90m", POD),
    Case(BUG, "the bug is history", errors("internal_error", "0x5 1x30"), "25m"),
    Case(BUG, "pods fail", errors("upstream_reset", "0+5x30") | results(POLLS, timeout="0+9x30")),
    Case(RELAY, "streams broke off", errors("relay_died", "0x5 7x30"), labels=POD),
    Case(RELAY, "that is history", errors("relay_died", "0x5 7x30"), "25m"),
    Case(RELAY, "pods break streams", errors("upstream_died", "0+5x30")),
]
