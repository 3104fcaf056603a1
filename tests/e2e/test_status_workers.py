"""Every worker shows the same, whatever names the cluster makes up, and with a key where asked."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from itertools import cycle, pairwise
from typing import Any

import pytest

from tests.e2e.crowd import worker_of
from tests.e2e.village import EVIL, KEY, MODEL, Village, village
from tests.harness import PATIENCE, wait_for


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    with village(tmp_path_factory.mktemp("v")) as running:
        yield running


@contextmanager
def both_workers(place: Village) -> Iterator[Iterator[dict[str, Any]]]:
    """What each of the two answers, one after the other, on a connection to each."""
    asked: dict[int | None, HTTPConnection] = {}

    def answers() -> Iterator[dict[str, Any]]:
        for connection in cycle(asked.values()):
            connection.request("GET", "/status.json", headers=KEY)
            yield json.loads(connection.getresponse().read())

    with ExitStack() as opened:
        while len(asked) < 2:
            connection = HTTPConnection("127.0.0.1", place.gateway.port, timeout=PATIENCE)
            opened.callback(connection.close)
            connection.connect()
            port = connection.sock.getsockname()[1]
            worker = wait_for(lambda port=port: worker_of(place.gateway, port), "it is accepted")  # type: ignore[misc]
            asked.setdefault(worker, connection)
        yield answers()


def test_whichever_worker_is_asked_no_state_comes_back(place: Village) -> None:
    """Each reads the file at times of its own, so two of them disagree for moments."""
    seen = ["not_ready"]
    with both_workers(place) as documents:
        lengths = [len(next(documents)["events"])]
        for conditions in ({"ready": True}, {"ready": True, "terminating": True}):
            place.show(**conditions)
            wanted = "terminating" if "terminating" in conditions else "ready"
            while seen[-60:] != [wanted] * 60 and len(seen) < 3000:
                document = next(documents)
                (pool,) = [one for one in document["models"] if one["model"] == MODEL]
                seen.append(pool["endpoints"][0]["state"])
                lengths.append(len(document["events"]))
    changes = [after for one, after in pairwise(seen) if one != after]
    assert changes == ["ready", "terminating"]
    assert lengths == sorted(lengths)
    assert lengths[-1] == lengths[0] + 2


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
