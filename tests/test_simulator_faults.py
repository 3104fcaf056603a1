"""Each fault of the pretend API server, as a client meets it."""

import http.client
import json
import time
from collections.abc import Iterator

import pytest

from simulator.apiserver import TOKEN
from simulator.cluster import Cluster
from tests.kube_reader import SLICES, connect, get, until, watching


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        for name in ("a", "b"):
            cluster.put_slice({"metadata": {"name": name}})
        yield cluster


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("401", 401, "application/json"),
        ("403", 403, "application/json"),
        ("410", 410, "application/json"),
        ("429", 429, "text/plain"),
        ("500", 500, "application/json"),
        ("503", 503, "application/json"),
    ],
)
def test_a_status_is_answered_until_healed(
    cluster: Cluster, fault: str, status: int, kind: str
) -> None:
    cluster.api.fault(fault)
    answer = get(cluster.api)
    assert answer.status == status
    assert answer.headers["Content-Type"].startswith(kind)
    if kind == "application/json":
        assert answer.json["code"] == status
    assert get(cluster.api).status == status
    cluster.api.heal()
    assert get(cluster.api).status == 200


def test_overload_says_when_to_come_back(cluster: Cluster) -> None:
    cluster.api.fault("429")
    assert get(cluster.api).headers["Retry-After"] == "1"


def test_a_fault_hits_the_given_number_of_requests(cluster: Cluster) -> None:
    cluster.api.fault("500", times=2)
    assert [get(cluster.api).status for _ in range(3)] == [500, 500, 200]


def test_a_fault_hits_only_the_verb_it_is_meant_for(cluster: Cluster) -> None:
    cluster.api.fault("403", on="watch")
    assert get(cluster.api).status == 200
    assert get(cluster.api, "watch=1").status == 403
    cluster.api.heal()
    cluster.api.fault("503", on="list")
    assert get(cluster.api).status == 503
    assert get(cluster.api, "watch=1&timeoutSeconds=0").status == 200


def test_faults_that_make_no_sense_are_refused(cluster: Cluster) -> None:
    for kind, on, times in (
        ("flood", "all", None),
        ("500", "get", None),
        ("500", "all", 0),
        ("refuse", "all", 1),
    ):
        with pytest.raises(ValueError):
            cluster.api.fault(kind, on, times)


def test_a_server_that_is_gone_refuses_and_breaks_what_was_open(cluster: Cluster) -> None:
    idle = connect(cluster.api)
    idle.request("GET", SLICES, headers={"Authorization": f"Bearer {TOKEN}"})
    idle.getresponse().read()
    with watching(cluster.api, "") as watch:
        watch.line(), watch.line()
        cluster.api.fault("refuse")
        with pytest.raises(ConnectionResetError):
            watch.line()
    with pytest.raises(ConnectionRefusedError):
        get(cluster.api)
    with pytest.raises(ConnectionResetError):
        idle.sock.recv(1)
    idle.close()
    cluster.api.heal()
    assert get(cluster.api).names == ["a", "b"]


def test_a_hanging_server_accepts_and_never_answers(cluster: Cluster) -> None:
    cluster.api.fault("hang", times=1)
    with pytest.raises(TimeoutError):
        get(cluster.api, timeout=0.1)
    assert get(cluster.api).status == 200


def test_garbage_is_a_200_without_json(cluster: Cluster) -> None:
    cluster.api.fault("garbage")
    for query in ("", "watch=1"):
        answer = get(cluster.api, query)
        assert answer.status == 200
        with pytest.raises(json.JSONDecodeError):
            _ = answer.json


def test_a_truncated_answer_ends_in_the_middle_of_its_json(cluster: Cluster) -> None:
    cluster.api.fault("truncated")
    for query in ("", "watch=1"):
        with pytest.raises(http.client.IncompleteRead):
            get(cluster.api, query)


def test_a_dripping_answer_comes_a_byte_each_half_second(cluster: Cluster) -> None:
    cluster.api.fault("drip")
    connection = connect(cluster.api, timeout=2.0)
    connection.request("GET", SLICES, headers={"Authorization": f"Bearer {TOKEN}"})
    began = time.monotonic()
    assert connection.sock.recv(100) == b"H"
    assert connection.sock.recv(100) == b"T"
    assert 0.4 < time.monotonic() - began < 1.5
    connection.close()


def test_a_list_can_expire_between_its_pages(cluster: Cluster) -> None:
    cluster.api.fault("expire-mid-pages", times=1)
    first = get(cluster.api, "limit=1")
    token = first.json["metadata"]["continue"]
    assert get(cluster.api, f"limit=1&continue={token}").status == 410
    assert get(cluster.api, f"limit=1&continue={token}").names == ["b"]


def test_an_expired_watch_on_demand_takes_the_chosen_form(cluster: Cluster) -> None:
    cluster.api.fault("410", on="watch")
    with watching(cluster.api, "") as watch:
        assert watch.event()[1]["code"] == 410
        assert watch.line() == b""
    cluster.api.expired_watch = "http"
    assert get(cluster.api, "watch=1").status == 410


def test_frozen_watches_fall_silent_and_go_on_when_healed(cluster: Cluster) -> None:
    with watching(cluster.api, "timeoutSeconds=0.2", timeout=0.5) as frozen:
        frozen.line(), frozen.line()
        cluster.api.fault("freeze-watch")
        cluster.put_slice({"metadata": {"name": "c"}})
        with watching(cluster.api, "") as fresh:
            assert [fresh.event()[1]["metadata"]["name"] for _ in range(3)] == ["a", "b", "c"]
        with pytest.raises(TimeoutError):
            frozen.line()
    with watching(cluster.api, "", timeout=2.0) as thawing:
        for _ in range(3):
            thawing.line()
        cluster.api.fault("freeze-watch")
        cluster.put_slice({"metadata": {"name": "d"}})
        cluster.api.heal()
        assert thawing.event()[1]["metadata"]["name"] == "d"


def test_broken_watches_are_reset_and_can_be_opened_again(cluster: Cluster) -> None:
    with watching(cluster.api, "") as watch:
        watch.line(), watch.line()
        cluster.api.fault("break-watch")
        with pytest.raises(ConnectionResetError):
            watch.line()
    until(lambda: cluster.api.open_watches == 0)
    with watching(cluster.api, "") as watch:
        assert watch.event()[0] == "ADDED"
