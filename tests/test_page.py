"""What the page is made of: totals, and the part of a large cluster that is shown."""

import json
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, Counter, Histogram

from tests.fakes import Clock
from views.page import MOST_ENDPOINTS, MOST_MODELS, Page
from views.totals import Totals


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_totals_are_added_up_over_models(registry: CollectorRegistry) -> None:
    requests = Counter("gateway_requests", "-", ["model", "status"], registry=registry)
    errors = Counter("gateway_errors", "-", ["code"], registry=registry)
    first = Histogram(
        "gateway_first_byte_seconds", "-", ["model"], buckets=(0.1, 1), registry=registry
    )
    for model in ("a", "b"):
        requests.labels(model, "200").inc(3)
        first.labels(model).observe(0.5)
    requests.labels("a", "503").inc()
    errors.labels("no_ready_endpoints").inc()
    errors.labels("never_seen")
    assert Totals(registry, lambda: 12.0).read() == {
        "at": 12.0,
        "requests": {"200": 6, "503": 1},
        "errors": {"no_ready_endpoints": 1},
        "first_byte_seconds": [[0.1, 0], [1.0, 2], [None, 2]],
    }


def test_whoever_asks_soon_gets_the_same_totals_again(registry: CollectorRegistry) -> None:
    clock = Clock()
    totals = Totals(registry, clock)
    first = totals.read()
    clock.now += 0.4
    assert totals.read() is first
    clock.now += 0.4
    assert totals.read()["at"] > first["at"]


def endpoint(number: int, *, state: str = "ready", error: bool = False) -> dict[str, Any]:
    return {
        "pod": f"pod-{number}",
        "address": f"10.0.0.{number}:80",
        "zone": None,
        "state": state,
        "in_flight": 0,
        "load": None,
        "last_error": {"kind": "refused", "at": 0.0} if error else None,
    }


def page_of(models: list[dict[str, Any]]) -> str:
    app = Flask("tests", template_folder="../views")
    state = {
        "version": "1",
        "gateway": "host",
        "at": 0.0,
        "ready": True,
        "snapshot_age_seconds": 0.5,
        "last_poll_error": None,
        "workers": [1],
        "troubles": [],
        "models": models,
        "events": [],
        "totals": {"at": 0, "requests": {}, "errors": {}, "first_byte_seconds": []},
    }
    with app.app_context():
        return Page().render(json.dumps(state).encode())


def model(name: str, *endpoints: dict[str, Any]) -> dict[str, Any]:
    ready = sum(one["state"] == "ready" for one in endpoints)
    states = {"ready": ready, "not_ready": len(endpoints) - ready}
    return {"model": name, "states": states, "endpoints": list(endpoints)}


def test_of_many_endpoints_those_that_are_not_well_are_shown() -> None:
    many = [endpoint(number) for number in range(MOST_ENDPOINTS + 10)]
    many[-1] = endpoint(1001, state="not_ready")
    many[-2] = endpoint(1002, error=True)
    page = page_of([model("m", *many)])
    assert page.count('<tr role="row" data-key="10.') == MOST_ENDPOINTS
    assert "pod-1001" in page
    assert "pod-1002" in page
    assert "… and 10 endpoints more in status.json" in page


def test_of_many_models_those_that_are_not_well_are_shown() -> None:
    many = [model(f"model-{number}", endpoint(1)) for number in range(MOST_MODELS + 1)]
    many.append(model("limping", endpoint(1), endpoint(2, state="not_ready")))
    many.append(model("down"))
    page = page_of(many)
    assert page.count('<section class="model" data-key="') == MOST_MODELS + 1  # and the template
    assert page.index('data-key="down"') < page.index('data-key="limping"')
    assert page.index('data-key="limping"') < page.index('data-key="model-0"')
    assert "… and 3 models more in status.json" in page
