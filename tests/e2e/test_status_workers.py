"""Every worker shows the same, whatever names the cluster makes up, and with a key where asked."""

import os
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.e2e.browser import OpenTab, browser, needs_chromium
from tests.e2e.village import EVIL, KEY, MODEL, Village, village
from tests.harness import wait_for
from views import words


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    with village(tmp_path_factory.mktemp("v")) as running:
        yield running


def test_whichever_worker_is_asked_no_state_comes_back(place: Village) -> None:
    """Each reads the file at times of its own, so two of them disagree for moments."""
    before = len(place.document()["events"])
    seen = [place.state()]
    lengths = [before]
    for conditions in ({"ready": True}, {"ready": True, "terminating": True}):
        place.show(**conditions)
        wanted = "terminating" if "terminating" in conditions else "ready"
        while seen[-60:] != [wanted] * 60 and len(seen) < 3000:
            document = place.document()
            (pool,) = [one for one in document["models"] if one["model"] == MODEL]
            seen.append(pool["endpoints"][0]["state"])
            lengths.append(len(document["events"]))
    changes = [after for one, after in pairwise(seen) if one != after]
    assert changes == ["ready", "terminating"]
    assert lengths == sorted(lengths)
    assert lengths[-1] == before + 2


def test_when_the_speaker_dies_the_next_one_tells_the_same_story(place: Village) -> None:
    for conditions in ({"ready": True}, {"ready": True, "terminating": True}, {"ready": False}):
        place.show_to_all(**conditions)
    first = place.document()

    def story(document: dict[str, Any]) -> list[tuple[str, str, str]]:
        return [(event["name"], event["before"], event["after"]) for event in document["events"]]

    os.kill(first["speaker"], signal.SIGKILL)
    second = wait_for(
        lambda: (now := place.document())["speaker"] != first["speaker"] and now, "another speaks"
    )
    assert second["speaker"] in first["workers"]
    assert story(second)[:2] == story(first)[:2]
    wait_for(lambda: len(place.document()["workers"]) == 2, "the dead one is replaced")
    assert {place.document()["speaker"] for _ in range(20)} == {second["speaker"]}


def test_the_document_is_complete_and_of_known_shape(place: Village) -> None:
    document = place.document()
    assert document["troubles"] == []
    assert {model["model"] for model in document["models"]} == {MODEL, "empty"}
    (endpoint,) = document["models"][0]["endpoints"] or document["models"][1]["endpoints"]
    assert endpoint["pod"] == endpoint["zone"] == endpoint["node"] == EVIL
    assert endpoint["load"] is None
    assert endpoint["last_error"] is None
    event = document["events"][0]
    assert (event["name"], event["model"], event["delay"]) == (EVIL, MODEL, None)
    totals = document["totals"]
    assert set(totals) == {"at", "requests", "errors", "first_byte_seconds"}
    assert totals["first_byte_seconds"] == [] or totals["first_byte_seconds"][-1][0] is None


def test_nothing_but_the_gateway_may_be_asked(place: Village) -> None:
    answer = place.gateway.get("/status", headers=KEY)
    policy = dict(
        part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for kind in ("script-src", "style-src"):
        assert policy[kind].startswith("'sha256-")
        assert "unsafe" not in policy[kind]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "<script>pwned" not in answer.text
    assert "{{7*7}}" in answer.text


@pytest.fixture(scope="module")
def open_tab() -> Iterator[OpenTab]:
    with browser() as opening:
        yield opening


@needs_chromium
def test_evil_names_are_shown_as_they_are_with_and_without_a_script(
    place: Village, open_tab: OpenTab
) -> None:
    live = open_tab(place.gateway, extra_http_headers=KEY)
    plain = open_tab(place.gateway, extra_http_headers=KEY, java_script_enabled=False)
    live.wait_until_live()
    # Rows made by the script, not those that came with the page.
    live.page.evaluate(
        "document.querySelectorAll('#models > *, #events > *').forEach((one) => one.remove())"
    )
    live.wait("() => document.querySelectorAll('#events > *').length > 2", "all is drawn again")
    for tab in (live, plain):
        assert tab.page.locator(".endpoints .pod span").all_text_contents() == [EVIL]
        assert tab.page.locator("h3 bdi").all_text_contents() == [MODEL, "empty"]
        assert tab.page.locator("img, tbody script").count() == 0
        assert tab.wrong == []
    for part in ("#models", "#events", "#requests th span", "#errors th span", "#overall"):
        assert live.text(part) == plain.text(part)
    assert "reload it" in plain.page.locator("noscript").inner_text()
    assert plain.page.locator(".chart").first.is_hidden()
    for tab in (live, plain):
        tab.page.context.close()


BUCKETS = [[0.005, 3], [0.01, 7], [0.1, 7], [2.5, 1000], [None, 1100]]
DELAYED = {"worker": None, "delay": 0.0185, "exact": False}
SAID: list[tuple[str, Callable[..., object], list[Any]]] = [
    *(("number", words.number, [value]) for value in (None, 0, 999.5, 1000.5, 12_345_678)),
    *(("percent", words.percent, [part]) for part in (None, 0, 0.125, 0.135, 1)),
    *(
        ("seconds", words.seconds, [value])
        for value in (None, 0, 0.0184, 0.9994, 0.9996, 1.25, 9.94, 9.96, 119.4, 119.9, 150, 7300)
    ),
    *(("quantile", words.quantile, [BUCKETS, part]) for part in (0, 0.5, 0.95, 1)),
    ("quantile", words.quantile, [[], 0.5]),
    ("clockTime", words.clock_time, [1_700_006_399.25, 1_700_006_400.0]),
    ("clockTime", words.clock_time, [1_700_006_400.25, 1_700_006_400.0]),
    ("delay", words.delay, [DELAYED, 2]),
    ("delay", words.delay, [{**DELAYED, "exact": True}, 2]),
    ("delay", words.delay, [{"worker": 3, "delay": None, "exact": False}, 2]),
    ("delay", words.delay, [{"worker": 3, "delay": None, "exact": False}, 1]),
    ("left", words.left, ["model", 1200]),
    ("left", words.left, ["model", 1]),
    ("left", words.left, ["model", 0]),
    ("states", words.states, [{"ready": 1200, "not_ready": 0, "set_aside": 1}]),
    ("states", words.states, [{"ready": 0}]),
    ("kind", words.kind, ["connect_timeout"]),
]


@needs_chromium
def test_the_script_puts_things_as_the_page_without_it_does(
    place: Village, open_tab: OpenTab
) -> None:
    tab = open_tab(place.gateway, extra_http_headers=KEY)
    for name, say, arguments in SAID:
        said = tab.page.evaluate(f"(given) => {name}(...given)", arguments)
        assert said == say(*arguments), (name, arguments)
    top = place.document() | {"troubles": [{"worker": 1, "reason": "x"}], "last_poll_error": "a_b"}
    assert tab.page.evaluate("summary", top) == words.summary(top)
    tab.page.context.close()


@pytest.mark.parametrize("path", ["/status", "/status/", "/status.json"])
def test_views_that_are_protected_ask_for_a_key(place: Village, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = place.gateway.get(path, headers=headers, allow_redirects=False)
        assert answer.status_code == 401
        assert "pwned" not in answer.text


def test_a_browser_without_a_key_is_told_what_to_do(place: Village) -> None:
    answer = place.gateway.get("/status", headers={"Accept": "text/html,*/*;q=0.8"})
    assert answer.status_code == 401
    assert answer.headers["x-gateway-error"] == "invalid_api_key"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "a browser sends none" in answer.text
    assert "pwned" not in answer.text


def test_the_root_leads_to_the_page_and_not_past_the_key(place: Village) -> None:
    answer = place.gateway.get("/", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "status")
    assert place.gateway.get("/").status_code == 401
    slash = place.gateway.get("/status/", headers=KEY)
    assert (slash.status_code, slash.url) == (200, f"{place.gateway.url}/status")
