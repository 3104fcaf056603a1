"""The pretend API server says what the recorded real one said, byte for byte where it can."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.apiserver import TOKEN, ApiServer
from simulator.loop import BackgroundLoop
from simulator.registry import Registry
from tests.kube_reader import ON_MODELS, SLICES, connect, get, until, watching

RECORDED = Path(__file__).parent / "data" / "kubernetes"
LISTS = sorted(path.name for path in RECORDED.glob("list-*.json"))
ERRORS = json.loads((RECORDED / "errors.json").read_text())


def recorded_watch() -> list[str]:
    records = map(json.loads, (RECORDED / "watch-lifecycle.jsonl").read_text().splitlines())
    return [record["line"] for record in records if "line" in record]


class Server:
    """An API server and its store, without pods."""

    def __init__(self) -> None:
        self.loop = BackgroundLoop()
        self.registry = Registry("models")
        self.api = ApiServer(self.loop, self.registry)
        self.api.start()

    def restore(self, *names: str) -> None:
        lists = [json.loads((RECORDED / name).read_text()) for name in names]
        items = [item for each in lists for item in each["items"]]
        version = int(lists[0]["metadata"]["resourceVersion"])
        self.loop.call(self.registry.restore, items, version)

    def put(self, name: str, **labels: str) -> None:
        self.loop.call(self.registry.put, {"metadata": {"name": name, "labels": labels}})

    def delete(self, name: str) -> None:
        self.loop.call(self.registry.delete, name)

    def stop(self) -> None:
        self.api.stop()
        self.loop.stop()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def test_lists_are_the_recorded_ones_byte_for_byte(server: Server) -> None:
    assert LISTS
    for name in LISTS:
        server.restore(name)
        assert get(server.api).body.strip() == (RECORDED / name).read_bytes().strip(), name


def test_pages_are_the_recorded_ones_continue_token_included(server: Server) -> None:
    server.restore("page-1-of-2.json", "page-2-of-2.json")
    first = get(server.api, f"limit=1&{ON_MODELS}")
    assert first.body.strip() == (RECORDED / "page-1-of-2.json").read_bytes().strip()
    token = first.json["metadata"]["continue"]
    second = get(server.api, f"limit=1&{ON_MODELS}&continue={token}")
    assert second.body.strip() == (RECORDED / "page-2-of-2.json").read_bytes().strip()


def test_a_watch_tells_the_recorded_events_byte_for_byte(server: Server) -> None:
    lines = [line for line in recorded_watch() if '"BOOKMARK"' not in line]
    with watching(server.api) as watch:
        for line in lines:
            event = json.loads(line)
            content = {key: event["object"][key] for key in list(event["object"])[2:]}
            key, version = content["metadata"]["name"], int(content["metadata"]["resourceVersion"])
            if event["type"] == "DELETED":
                server.loop.call(server.registry.delete, key, version)
            else:
                server.loop.call(server.registry.put_verbatim, key, content, version)
            assert watch.line().decode().strip() == line.strip()


def test_bookmarks_look_like_the_recorded_ones(server: Server) -> None:
    recorded = [json.loads(line) for line in recorded_watch() if '"BOOKMARK"' in line]
    of_start, periodic = recorded[:2]
    server.api.bookmark_seconds = 0.05
    with watching(server.api, "allowWatchBookmarks=true&sendInitialEvents=true") as watch:
        for expected in (of_start, periodic):
            expected["object"]["metadata"]["resourceVersion"] = str(server.registry.version)
            assert json.dumps(json.loads(watch.line())) == json.dumps(expected)


@pytest.mark.parametrize("error", ERRORS, ids=[error["what"] for error in ERRORS])
def test_refusals_are_the_recorded_ones(server: Server, error: dict[str, Any]) -> None:
    server.loop.call(server.registry.restore, [], 1025 if "expired" in error["what"] else 1551)
    if "no rights" in error["what"]:
        server.api.forbid("list")
        server.api.forbid("watch")
    path, _, query = error["request"].partition("?")
    token = {"bad token": "tampered", "no token": None}.get(error["what"], TOKEN)
    answer = get(server.api, query, token=token, path=path)
    body = answer.body.decode().replace("system:serviceaccount:models:gateway", "static-nobody")
    assert (answer.status, body) == (error["status"], error["body"])
    for name, value in error["headers"].items():
        assert answer.headers[name] == value


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", ["a", "b", "c"]),
        ("tier", ["a", "b"]),
        ("!tier", ["c"]),
        ("tier=gold", ["a"]),
        ("tier==gold", ["a"]),
        ("tier!=gold", ["b", "c"]),
        ("tier in (gold, tin)", ["a", "b"]),
        ("tier notin (gold)", ["b", "c"]),
        ("tier,zone=x", ["b"]),
        ("tier in (gold,tin),!zone", ["a"]),
        ("zone=", []),
    ],
)
def test_label_selectors_select(server: Server, selector: str, expected: list[str]) -> None:
    server.put("a", tier="gold")
    server.put("b", tier="tin", zone="x")
    server.put("c")
    assert get(server.api, f"labelSelector={selector}").names == expected


def test_pages_show_one_snapshot_whatever_happens_meanwhile(server: Server) -> None:
    for name in "abc":
        server.put(name)
    first = get(server.api, "limit=1")
    assert first.json["metadata"]["remainingItemCount"] == 2
    server.delete("b")
    server.put("d")
    rest = get(server.api, f"limit=9&continue={first.json['metadata']['continue']}")
    assert rest.names == ["b", "c"]
    assert rest.json["metadata"] == {"resourceVersion": first.json["metadata"]["resourceVersion"]}
    assert get(server.api).names == ["a", "c", "d"]


def test_an_expired_continue_token_is_410_and_its_fresh_token_goes_on(server: Server) -> None:
    for name in "abc":
        server.put(name)
    token = get(server.api, "limit=1").json["metadata"]["continue"]
    server.delete("b")
    server.api.compact()
    refused = get(server.api, f"limit=1&continue={token}")
    assert (refused.status, refused.json["reason"]) == (410, "Expired")
    fresh = refused.json["metadata"]["continue"]
    assert get(server.api, f"continue={fresh}").names == ["c"]


def test_limit_is_ignored_when_any_version_will_do(server: Server) -> None:
    for name in "abc":
        server.put(name)
    assert get(server.api, "limit=1&resourceVersion=0").names == ["a", "b", "c"]


def test_a_watch_without_a_version_begins_with_what_is_there(server: Server) -> None:
    server.put("a")
    with watching(server.api, "") as watch:
        assert watch.event()[1]["metadata"]["name"] == "a"
        server.put("b")
        kind, content = watch.event()
        assert (kind, content["metadata"]["name"]) == ("ADDED", "b")


def test_a_watch_from_a_version_misses_and_repeats_nothing(server: Server) -> None:
    server.put("a")
    version = get(server.api).json["metadata"]["resourceVersion"]
    server.put("a", tier="gold")
    server.delete("a")
    with watching(server.api, f"resourceVersion={version}") as watch:
        assert [watch.event()[0] for _ in range(2)] == ["MODIFIED", "DELETED"]


def test_leaving_the_selection_is_a_deletion_with_the_old_labels(server: Server) -> None:
    server.put("a", tier="gold")
    with watching(server.api, "labelSelector=tier") as watch:
        assert watch.event()[0] == "ADDED"
        server.put("a")
        kind, content = watch.event()
        assert (kind, content["metadata"]["labels"]) == ("DELETED", {"tier": "gold"})
        assert content["metadata"]["resourceVersion"] == str(server.registry.version)
        server.put("a", tier="tin")
        assert watch.event()[0] == "ADDED"


def test_a_watch_ends_cleanly_after_its_timeout_and_the_connection_goes_on(server: Server) -> None:
    connection = connect(server.api)
    for _ in range(2):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        connection.request("GET", f"{SLICES}?watch=true&timeoutSeconds=0.05", headers=headers)
        assert connection.getresponse().read() == b""
    connection.close()


def test_an_expired_watch_is_an_error_event_or_http_410_as_chosen(server: Server) -> None:
    server.put("a")
    server.api.compact()
    with watching(server.api, "resourceVersion=1") as watch:
        kind, status = watch.event()
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
        assert watch.line() == b""
    server.api.expired_watch = "http"
    refused = get(server.api, "watch=1&resourceVersion=1")
    assert (refused.status, refused.json["code"]) == (410, 410)


def test_an_open_watch_outlives_its_token_and_its_right(server: Server) -> None:
    with watching(server.api, "") as watch:
        server.api.tokens.clear()
        server.api.forbid("watch")
        server.put("a")
        assert watch.event()[0] == "ADDED"
    assert get(server.api, "watch=1").status == 401
    server.api.tokens.add(TOKEN)
    assert get(server.api, "watch=1").status == 403
    assert get(server.api).status == 200
    server.api.allow("watch")
    assert get(server.api, "watch=1&timeoutSeconds=0").status == 200


@pytest.mark.parametrize(
    ("path", "method", "words"),
    [
        ("/apis/discovery.k8s.io/v1/namespaces/other/endpointslices", "GET", "cannot list"),
        ("/apis/discovery.k8s.io/v1/namespaces/models/endpointslices/a", "GET", "cannot get"),
        ("/apis/discovery.k8s.io/v1/endpointslices", "GET", "at the cluster scope"),
        ("/apis/discovery.k8s.io/v1/namespaces/models/endpointslices", "POST", "cannot create"),
    ],
)
def test_the_role_grants_list_and_watch_in_one_namespace_only(
    server: Server, path: str, method: str, words: str
) -> None:
    answer = get(server.api, path=path, method=method)
    assert answer.status == 403
    assert words in answer.json["message"]


def test_malformed_objects_are_shown_as_they_are(server: Server) -> None:
    odd: list[object] = [{"metadata": None}, "not an object", {"metadata": {"labels": 7}}]
    for number, content in enumerate(odd):
        server.loop.call(server.registry.put_verbatim, f"odd-{number}", content)
    assert get(server.api, ON_MODELS).json["items"] == odd


def test_requests_are_logged_with_verb_query_and_token(server: Server) -> None:
    get(server.api, "limit=5")
    with watching(server.api, "labelSelector=tier"):
        until(lambda: server.api.open_watches == 1)
    until(lambda: server.api.open_watches == 0)
    listed, watched = server.api.requests
    assert (listed.verb, listed.query, listed.token) == ("list", {"limit": "5"}, TOKEN)
    assert (watched.verb, watched.query["labelSelector"]) == ("watch", "tier")
    assert listed.at < watched.at
