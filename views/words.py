"""How the page puts things; `words.js` says the same in the browser, and a test compares them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

#: What stands where nothing is known.
NONE: Final = "–"  # noqa: RUF001 - it is no hyphen

STATES: Final[Mapping[str, str]] = {
    "new": "new",
    "ready": "ready",
    "not_ready": "not ready",
    "terminating": "terminating",
    "set_aside": "set aside",
    "gone": "gone",
}


def number(value: float | None) -> str:
    """`12,345`, without decimals."""
    return NONE if value is None else f"{value:,.0f}"


def percent(part: float | None) -> str:
    """`62 %` of a part of 1."""
    return NONE if part is None else f"{part * 100:.0f} %"


def seconds(value: float | None) -> str:
    """`84 ms`, `1.2 s`, `12 s`, `3 min`, `2 h`."""
    if value is None:
        return NONE
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value // 60:.0f} min" if value < 7200 else f"{value // 3600:.0f} h"


def clock_time(at: float, now: float, *, milliseconds: bool = False) -> str:
    """`12:03:04` of the day of `now` in UTC, of another day `11-22 12:03:04`."""
    moment = datetime.fromtimestamp(round(at * 1000) // 1000, UTC)
    today = moment.date() == datetime.fromtimestamp(now, UTC).date()
    text = moment.strftime("%H:%M:%S" if today else "%m-%d %H:%M:%S")
    return f"{text}.{round(at * 1000) % 1000:03d}" if milliseconds else text


def kind(name: str) -> str:
    """A kind of failure as metrics name it, in words."""
    return name.replace("_", " ")


def plural(what: str, count: int) -> str:
    """`1 model`, `2 models`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def left(what: str, count: int) -> str:
    """What the page does not show, if anything."""
    return f"… and {plural(what, count)} more in status.json" if count > 0 else ""


def states(counts: Mapping[str, int]) -> str:
    """`3 ready, 1 terminating`."""
    found = [f"{count:,} {STATES[state]}" for state, count in counts.items() if count]
    return ", ".join(found) or "no endpoints"


def delay(event: Mapping[str, Any], workers: int) -> str:
    """How soon a change was seen; or which of several workers it concerns."""
    if event["worker"] is not None:
        return f"by worker {event['worker']}" if workers > 1 else ""
    if event["delay"] is None:
        return ""
    bound = "" if event["exact"] else "at most "
    return f"{bound}{seconds(event['delay'])} after the API said so"


def summary(state: Mapping[str, Any]) -> dict[str, str]:
    """What stands at the top."""
    troubles = [f"worker {one['worker']}: {one['reason']}" for one in state["troubles"]]
    if len(state["workers"]) == 1:
        troubles = [one["reason"] for one in state["troubles"]]
    if state["last_poll_error"]:
        troubles.append(f"the last list of endpoints failed: {kind(state['last_poll_error'])}")
    age = state["snapshot_age_seconds"]
    return {
        "state": "ready" if state["ready"] else "not_ready",
        "state_word": "ready" if state["ready"] else "not ready",
        "reason": "; ".join(troubles),
        "gateway": state["gateway"],
        "version": state["version"],
        "workers": plural("worker", len(state["workers"])),
        "age": "never" if age is None else f"{age:,.1f} s ago",
        "at": clock_time(state["at"], state["at"]),
    }


def quantile(buckets: Sequence[Sequence[Any]], part: float) -> float | None:
    """The value below which that part of a histogram lies, by linear interpolation.

    `buckets` are (upper bound, count up to it), the last without a bound. None where nothing was
    counted; what lies in the last bucket is at least its lower bound, which is returned.
    """
    total = buckets[-1][1] if buckets else 0
    if not total:
        return None
    wanted, lower, below = part * total, 0.0, 0
    for bound, count in buckets:
        if bound is None:
            break
        if count >= wanted and count > below:
            return float(lower + (bound - lower) * (wanted - below) / (count - below))
        lower, below = bound, count
    return float(lower)
