"""The EndpointSlice API as the gateway meets it, over real sockets."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cache.kubeconfig import Access
from cache.kubernetes import PAGE_LIMIT, KubernetesSource, Limits
from simulator.apiserver import TOKEN
from simulator.cluster import Cluster
from tests.kube_source import PATIENCE, SELECTOR, canned, failure_of, put, source_at
from tests.slices import recorded_items

BRISK = Limits(read=0.8, listing=1.6)
SourceFactory = Callable[..., KubernetesSource]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture
def connect(cluster: Cluster, tmp_path: Path) -> Iterator[SourceFactory]:
    """Make sources that read this cluster as a kubeconfig describes it."""
    with ExitStack() as running:

        def make(
            namespace: str = "", limits: Limits | None = None, **kubeconfig: Any
        ) -> KubernetesSource:
            path = cluster.kubeconfig(tmp_path / "kubeconfig", **kubeconfig)
            source = source_at(path, limits, namespace)
            running.callback(source.close)
            return source

        yield make


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[SourceFactory]:
    """Make a source whose API server gives one and the same answer to every request."""
    with ExitStack() as running:
        yield lambda *answer: running.enter_context(canned(tmp_path, BRISK, *answer))


def names(items: list[Any]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


def test_a_list_has_the_selected_slices_and_the_version_to_watch_from(
    cluster: Cluster, connect: SourceFactory
) -> None:
    put(cluster, "a")
    put(cluster, "b", labelled=False)
    listing = connect().list()
    assert names(listing.items) == ["a"]
    assert listing.resource_version == "1002"
    assert cluster.api.requests[0].query == {
        "labelSelector": SELECTOR,
        "limit": str(PAGE_LIMIT),
    }


def test_a_list_of_nothing_is_an_empty_list(connect: SourceFactory) -> None:
    assert connect().list().items == []


def test_recorded_slices_come_through_unchanged(cluster: Cluster, connect: SourceFactory) -> None:
    items = recorded_items("list-odd.json")
    for item in items:
        cluster.put_verbatim(item["metadata"]["name"], item)
    assert connect().list().items == items


def test_malformed_slices_come_through_for_the_parser_to_judge(
    cluster: Cluster, connect: SourceFactory
) -> None:
    odd = {"metadata": {"name": "a", "labels": {SELECTOR: "m"}}, "endpoints": {"not": "a list"}}
    cluster.put_verbatim("a", odd)
    assert connect().list().items == [odd]


def test_all_pages_make_one_list(cluster: Cluster, connect: SourceFactory) -> None:
    for number in range(PAGE_LIMIT + 1):
        put(cluster, f"s-{number:04}")
    listing = connect().list()
    assert len(set(names(listing.items))) == PAGE_LIMIT + 1
    assert [bool(r.query.get("continue")) for r in cluster.api.requests] == [False, True]


def test_a_list_that_expires_between_its_pages_begins_again(
    cluster: Cluster, connect: SourceFactory
) -> None:
    for number in range(PAGE_LIMIT + 1):
        put(cluster, f"s-{number:04}")
    source = connect()
    cluster.api.fault("expire-mid-pages", times=1)
    assert len(source.list().items) == PAGE_LIMIT + 1
    assert [bool(r.query.get("continue")) for r in cluster.api.requests] == [
        *(False, True),
        *(False, True),
    ]
    cluster.api.fault("expire-mid-pages")
    assert failure_of(source.list).kind == "expired"


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("refuse", "unreachable", "can't be reached"),
        ("hang", "timeout", "did not answer in time"),
        ("drip", "timeout", "took over 1.6 s"),
        ("401", "unauthorized", "401 Unauthorized: Unauthorized"),
        ("403", "forbidden", "is forbidden: User"),
        ("410", "expired", "expired 3 times"),
        ("429", "throttled", "Too many requests"),
        ("500", "server_error", "etcdserver: leader changed"),
        ("503", "server_error", "unable to handle the request"),
        ("garbage", "garbage", "is no JSON"),
        ("truncated", "unreachable", "IncompleteRead"),
    ],
)
def test_every_way_to_fail_has_its_kind_and_none_outlasts_its_limit(
    cluster: Cluster, connect: SourceFactory, fault: str, kind: str, message: str
) -> None:
    put(cluster, "a")
    source = connect(limits=BRISK)
    cluster.api.fault(fault)
    began = time.monotonic()
    error = failure_of(source.list)
    assert time.monotonic() - began < BRISK.listing + PATIENCE
    assert (error.kind, message in str(error)) == (kind, True), str(error)
    assert error.retry_after == (1.0 if fault in ("429", "503") else None)
    cluster.api.heal()
    assert names(source.list().items) == ["a"]


def test_a_silent_server_is_given_up_after_the_read_timeout_and_asked_once(
    cluster: Cluster, connect: SourceFactory
) -> None:
    source = connect(limits=Limits(read=0.2, listing=60.0))
    cluster.api.fault("hang")
    began = time.monotonic()
    assert failure_of(source.list).kind == "timeout"
    assert 0.2 <= time.monotonic() - began < 0.2 + PATIENCE
    assert len(cluster.api.requests) == 1  # nobody repeats it behind our back


@pytest.mark.parametrize(
    "answer",
    [
        [],
        "text",
        {},
        {"kind": "Status", "metadata": {}, "status": "Failure", "message": "no"},
        {"kind": "EndpointSliceList", "metadata": {}},
        {"kind": "EndpointSliceList", "metadata": None, "items": []},
        {"kind": "EndpointSliceList", "metadata": {}, "items": {}},
        {"kind": "EndpointSliceList", "metadata": {"resourceVersion": 5}, "items": []},
        {"kind": "EndpointSliceList", "metadata": {"continue": ["x"]}, "items": []},
    ],
)
def test_a_200_that_is_no_list_is_never_taken_for_an_empty_one(
    answering: SourceFactory, answer: object
) -> None:
    assert failure_of(answering(json.dumps(answer).encode()).list).kind == "garbage"


@pytest.mark.parametrize(
    ("body", "headers", "status", "kind"),
    [
        (b"\xff\xfe", "", 500, "server_error"),
        (b"[" * 100_000, "", 200, "garbage"),
        (b"text", "Content-Encoding: gzip\r\n", 200, "unreachable"),
        (b"", "Location: http://127.0.0.1:1/\r\n", 302, "refused"),
        (b"[]", "Retry-After: soon\r\n", 429, "throttled"),
        (b"", "", 404, "refused"),
    ],
)
def test_odd_answers_of_things_in_between_are_failures_like_others(
    answering: SourceFactory, body: bytes, headers: str, status: int, kind: str
) -> None:
    error = failure_of(answering(body, headers, status).list)
    assert (error.kind, error.retry_after) == (kind, None)


def test_items_null_is_how_an_api_server_says_none(
    answering: SourceFactory,
) -> None:
    document = {"kind": "EndpointSliceList", "metadata": {"resourceVersion": "5"}, "items": None}
    listing = answering(json.dumps(document).encode()).list()
    assert (listing.items, listing.resource_version) == ([], "5")


def test_pages_without_end_are_given_up(answering: SourceFactory) -> None:
    page = {"kind": "EndpointSliceList", "metadata": {"continue": "again"}, "items": []}
    error = failure_of(answering(json.dumps(page).encode()).list)
    assert (error.kind, str(error)) == ("timeout", "the API server took over 1.6 s")


def test_the_namespace_is_the_contexts_unless_it_is_chosen(connect: SourceFactory) -> None:
    assert connect(namespace="").namespace == "models"
    elsewhere = connect("elsewhere")
    assert elsewhere.namespace == "elsewhere"
    assert failure_of(elsewhere.list).kind == "forbidden"


def test_credentials_are_read_again_where_a_token_was_rotated(
    cluster: Cluster, connect: SourceFactory, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    source = connect(token_file=token)
    source.list()
    cluster.api.tokens.add("rotated")
    cluster.api.tokens.discard(TOKEN)
    assert failure_of(source.list).kind == "unauthorized"
    token.write_text("rotated\n")
    source.renew_credentials()
    assert source.list().items == []
    assert cluster.api.requests[-1].token == "rotated"


def test_credentials_that_can_not_be_read_again_leave_the_old_ones(
    connect: SourceFactory, tmp_path: Path
) -> None:
    source = connect()
    (tmp_path / "kubeconfig").write_text("{")
    error = failure_of(source.renew_credentials)
    assert error.kind == "unauthorized"
    assert str(tmp_path / "kubeconfig") in str(error)
    assert source.list().items == []


def test_a_configuration_that_is_missing_for_a_moment_is_one_failed_list(
    cluster: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    access = Access({"KUBECONFIG": str(path)}, tmp_path / "no-account")
    source = KubernetesSource("", SELECTOR, access=access)
    error = failure_of(source.list)
    assert error.kind == "unauthorized"
    assert f"a kubeconfig at {path}" in str(error)
    cluster.kubeconfig(path)
    assert source.list().items == []
    assert source.namespace == "models"
    source.close()
