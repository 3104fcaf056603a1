"""The status page: what `status.json` says, complete without a script, and live with one.

Text of slices, pods and clients gets into the page as text only: the template engine escapes it
here, and the script sets nothing but `textContent`. Style and script are in the page itself, and
the Content-Security-Policy allows just these two, by their hashes, and to ask the gateway.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flask import render_template

from views import words

_FOLDER: Final = Path(__file__).parent
_SCRIPTS: Final = ("words.js", "charts.js", "page.js")

#: A page is for reading: of larger clusters it shows what is not well first, and counts the rest.
MOST_MODELS: Final = 100
MOST_ENDPOINTS: Final = 50

Row = dict[str, str]


class Page:
    """Renders the page. Made once: style and script are read, and their hashes known, from then."""

    def __init__(self) -> None:
        self._style = (_FOLDER / "page.css").read_text()
        self._script = "".join((_FOLDER / name).read_text() for name in _SCRIPTS)
        self.fields = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": "; ".join(
                (
                    "default-src 'none'",
                    f"style-src '{_hash(self._style)}'",
                    f"script-src '{_hash(self._script)}'",
                    "connect-src 'self'",
                    "img-src data:",
                    "base-uri 'none'",
                    "form-action 'none'",
                    "frame-ancestors 'none'",
                )
            ),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }

    def locked(self) -> str:
        """What a browser is shown where a key is needed, which it has no way to send."""
        return render_template("locked.html", style=self._style)

    def render(self, document: bytes) -> str:
        """The page of what `Overview.read` gives. Needs Flask's application context."""
        state = json.loads(document)
        models = _worst_first(state["models"], MOST_MODELS, _model_rank)
        return render_template(
            "page.html",
            style=self._style,
            script=self._script,
            most_models=MOST_MODELS,
            most_endpoints=MOST_ENDPOINTS,
            summary=words.summary(state),
            models=[_model(model, state["at"]) for model in models],
            models_left=words.left("model", len(state["models"]) - len(models)),
            events=[_event(event, state) for event in state["events"]],
            requests=_requests(state["totals"]),
            errors=_errors(state["totals"]),
            first_byte=_first_byte(state["totals"]),
        )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _worst_first(items: list[Any], most: int, rank: Any) -> list[Any]:
    """All in their order, or the first so many of those that are not well before the others."""
    return items if len(items) <= most else sorted(items, key=rank)[:most]


def _model_rank(model: Mapping[str, Any]) -> int:
    states = model["states"]
    if not states["ready"]:
        return 0
    return 1 if sum(states.values()) > states["ready"] else 2


def _endpoint_rank(endpoint: Mapping[str, Any]) -> int:
    if endpoint["state"] != "ready":
        return 0
    return 1 if endpoint["last_error"] else 2


def _model(model: Mapping[str, Any], at: float) -> dict[str, Any]:
    endpoints = _worst_first(model["endpoints"], MOST_ENDPOINTS, _endpoint_rank)
    return {
        "model": model["model"],
        "states": words.states(model["states"]),
        "endpoints": [_endpoint(endpoint, at) for endpoint in endpoints],
        "left": words.left("endpoint", len(model["endpoints"]) - len(endpoints)),
    }


def _endpoint(endpoint: Mapping[str, Any], at: float) -> Row:
    load, error = endpoint["load"] or {}, endpoint["last_error"]
    return {
        "key": f"{endpoint['address']} {endpoint['pod'] or ''}",
        "state": endpoint["state"],
        "state_word": words.STATES[endpoint["state"]],
        "pod": endpoint["pod"] or words.NONE,
        "address": endpoint["address"],
        "zone": endpoint["zone"] or words.NONE,
        "in_flight": words.number(endpoint["in_flight"]),
        "running": words.number(load.get("running")),
        "waiting": words.number(load.get("waiting")),
        "kv": words.percent(load.get("kv_cache_usage")),
        "error": words.kind(error["kind"]) if error else words.NONE,
        "error_at": words.clock_time(error["at"], at) if error else "",
    }


def _event(event: Mapping[str, Any], state: Mapping[str, Any]) -> Row:
    after = event["after"] or "gone"
    return {
        "at": words.clock_time(event["at"], state["at"], milliseconds=True),
        "name": event["name"],
        "model": event["model"] or words.NONE,
        "before": words.STATES[event["before"] or "new"],
        "state": after,
        "state_word": words.STATES[after],
        "delay": words.delay(event, len(state["workers"])),
    }


def _requests(totals: Mapping[str, Any]) -> list[Row]:
    classes: Counter[str] = Counter()
    for status, count in totals["requests"].items():
        classes[f"{status[0]}xx"] += count
    return [
        {"key": name, "name": name, "total": words.number(count), "now": words.NONE}
        for name, count in sorted(classes.items())
    ]


def _errors(totals: Mapping[str, Any]) -> list[Row]:
    return [
        {"key": code, "name": code, "total": words.number(count), "now": words.NONE}
        for code, count in totals["errors"].items()
    ]


def _first_byte(totals: Mapping[str, Any]) -> list[Row]:
    buckets = totals["first_byte_seconds"]
    return [
        {
            "key": f"p{percent}",
            "name": f"p{percent}",
            "total": words.seconds(words.quantile(buckets, percent / 100)),
            "now": words.NONE,
        }
        for percent in (50, 95, 99)
    ]
