"""Pods of the pretend cluster live and die in Kubernetes' order, and its slices say so."""

import http.client
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from simulator.cluster import Cluster, addresses_with_processes
from simulator.fleet import Order, Pod
from simulator.pod import Engine
from tests.kube_reader import ON_MODELS, get, until, watching

RECORDED = Path(__file__).parent / "data" / "kubernetes"
READY, NOT_READY, DRAINING = (True, True, False), (False, False, False), (False, True, True)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def conditions(cluster: Cluster) -> dict[str, tuple[bool, bool, bool]]:
    """What the API says of each pod: ready, serving, terminating."""
    return {
        endpoint["targetRef"]["name"]: tuple(endpoint["conditions"].values())
        for item in get(cluster.api).json["items"]
        for endpoint in item["endpoints"] or []
    }


def shape(value: Any) -> Any:
    """The keys of a value in their order, and the types at its leaves."""
    if isinstance(value, dict):
        return [(re.sub('"uid":".*"', "uid", key), shape(each)) for key, each in value.items()]
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value)


def recorded_item(name: str) -> Any:
    return json.loads((RECORDED / name).read_text())["items"][0]


def test_a_placeholder_has_the_shape_of_a_recorded_one(cluster: Cluster) -> None:
    cluster.model("llama-8b", 0)
    (item,) = get(cluster.api).json["items"]
    assert shape(item) == shape(recorded_item("list-placeholder.json"))
    assert (item["endpoints"], item["ports"]) == (None, None)


def test_a_slice_with_pods_has_the_shape_of_a_recorded_one(cluster: Cluster) -> None:
    model = cluster.model("llama-8b", 3, port_name="serve", extra_ports={"metrics": 8080})
    model.create_pod()
    model.pods[1].fail_probe()
    assert model.pods[2].process is not None
    model.pods[2].process.behave("stall-before-head=30")
    with busy(model.pods[2]):
        model.pods[2].terminate()
        (item,) = get(cluster.api).json["items"]
    recorded = recorded_item("list-four-states.json")
    assert shape(item) == shape(recorded)
    assert item["ports"] == recorded["ports"]
    for mine, theirs in zip(item["endpoints"], recorded["endpoints"], strict=True):
        assert mine["conditions"] == theirs["conditions"]
        assert (mine["nodeName"], mine["zone"]) == (theirs["nodeName"], theirs["zone"])


class busy:  # noqa: N801 - it reads as a word
    """Keeps a request running on a pod, so that a polite process outlives its SIGTERM."""

    def __init__(self, pod: Pod) -> None:
        assert pod.process is not None
        self._process = pod.process
        self._connection = http.client.HTTPConnection(pod.address, pod.port, timeout=5)

    def __enter__(self) -> None:
        body = json.dumps({"model": "m", "messages": []})
        self._connection.request("POST", "/v1/chat/completions", body)
        until(lambda: self._process.active == 1)

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def test_publishing_not_ready_addresses_says_ready_of_all(cluster: Cluster) -> None:
    model = cluster.model("qwen", 3, publish_not_ready=True, processes=False)
    model.pods[1].fail_probe()
    model.pods[2].terminate()
    recorded = recorded_item("list-publish-not-ready.json")["endpoints"]
    expected = [tuple(endpoint["conditions"].values()) for endpoint in recorded]
    assert list(conditions(cluster).values()) == expected


def test_a_pod_appears_with_its_process_and_turns_ready_after_it(cluster: Cluster) -> None:
    model = cluster.model("chat", 0)
    pod = model.create_pod()
    assert pod.process is not None
    assert (pod.condition, conditions(cluster)) == ("pending", {})
    pod.start()
    pod.load()
    assert (pod.process.state, conditions(cluster)) == ("loading", {pod.name: NOT_READY})
    pod.become_ready()
    assert (pod.process.state, conditions(cluster)) == ("ready", {pod.name: READY})
    pod.fail_probe()
    assert (pod.process.state, conditions(cluster)) == ("ready", {pod.name: NOT_READY})
    assert [change.what for change in cluster.history] == ["not ready", "ready", "not ready"]
    assert cluster.history[-1].at == pod.changed_at


@pytest.mark.parametrize("order", ["slice-first", "process-first", "together"])
def test_a_terminating_pod_stays_in_the_slice_until_its_process_is_gone(
    cluster: Cluster, order: Order
) -> None:
    (pod,) = cluster.model("chat", 1).pods
    assert pod.process is not None
    pod.process.behave("stall-before-head=30")
    with busy(pod):
        pod.terminate(order)
        assert pod.process.state == "terminating"
        assert conditions(cluster) == {pod.name: DRAINING}
    pod.wait_gone()
    assert conditions(cluster) == {}
    assert [change.what for change in cluster.history] == ["ready", "terminating", "removed"]


def test_the_gap_lies_between_the_slice_and_the_process(cluster: Cluster) -> None:
    first, second = cluster.model("chat", 2, engine=Engine(dies_at_sigterm=True)).pods
    for pod, order in ((first, "slice-first"), (second, "process-first")):
        ended = threading.Thread(target=pod.terminate, args=(order, 0.1))
        ended.start()
        assert pod.process is not None
        if order == "slice-first":
            until(lambda pod=pod: conditions(cluster)[pod.name] == DRAINING)  # type: ignore[misc]
            assert pod.process.state == "ready"
        else:
            until(lambda process=pod.process: process.state == "gone")  # type: ignore[misc]
            assert conditions(cluster)[pod.name] == READY
        ended.join()
        pod.wait_gone()


def test_after_the_grace_a_process_that_stays_is_killed(cluster: Cluster) -> None:
    (pod,) = cluster.model("chat", 1, engine=Engine(refuses_when_terminating=False)).pods
    pod.terminate(grace=0.1, wait_gone=True)
    assert pod.process is not None
    assert (pod.process.state, conditions(cluster)) == ("gone", {})


def test_a_crash_is_noticed_when_asked_for(cluster: Cluster) -> None:
    now, later, never = cluster.model("chat", 3).pods
    now.crash()
    later.crash(notice=0.05)
    never.crash(notice=None)
    assert conditions(cluster) == {now.name: NOT_READY, later.name: READY, never.name: READY}
    until(lambda: conditions(cluster)[later.name] == NOT_READY)
    now.run()
    assert conditions(cluster) == {now.name: READY, later.name: NOT_READY, never.name: READY}


def test_a_removed_pod_is_gone_at_once(cluster: Cluster) -> None:
    model = cluster.model("chat", 2)
    pod = model.pods[0]
    pod.remove()
    assert (pod.condition, model.pods) == ("gone", [model.pods[0]])
    assert list(conditions(cluster)) == ["chat-1"]
    with pytest.raises(RuntimeError):
        pod.start()


def test_scaling_keeps_the_oldest_and_ends_in_a_placeholder(cluster: Cluster) -> None:
    model = cluster.model("chat", 1)
    model.scale(3)
    assert list(conditions(cluster)) == ["chat-0", "chat-1", "chat-2"]
    model.scale(1)
    until(lambda: list(conditions(cluster)) == ["chat-0"])
    model.scale(0)
    until(lambda: conditions(cluster) == {})
    (item,) = get(cluster.api).json["items"]
    assert item["endpoints"] is None


@pytest.mark.parametrize("dies", [True, False])
def test_a_rolling_update_never_has_fewer_ready_pods(cluster: Cluster, dies: bool) -> None:
    model = cluster.model("chat", 3)
    old = {pod.name for pod in model.pods}
    cluster.rolling_update(model, order="random", gap=0.02, load_seconds=0.02, dies=dies)
    ready = set(old)
    for _, pod, what in cluster.history[len(old) :]:
        ready = ready | {pod} if what == "ready" else ready - {pod}
        assert len(ready) >= len(old)
    assert len(model.pods) == 3
    assert not old & set(conditions(cluster))
    assert set(conditions(cluster).values()) == {READY}


def test_121_pods_are_slices_of_100_and_21(cluster: Cluster) -> None:
    model = cluster.model("mistral", 121, processes=False)
    items = get(cluster.api).json["items"]
    assert sorted(len(item["endpoints"]) for item in items) == [21, 100]
    assert len(conditions(cluster)) == 121
    for pod in model.pods[100:]:
        pod.remove()
    assert [len(item["endpoints"]) for item in get(cluster.api).json["items"]] == [100]


def test_10_000_entries_are_listed_and_changed_quickly(cluster: Cluster) -> None:
    model = cluster.model("big", 10_000, processes=False)
    began = time.monotonic()
    assert len(conditions(cluster)) == 10_000
    model.pods[5000].fail_probe()
    assert time.monotonic() - began < 2.0
    assert len({pod.address for pod in model.pods}) == 10_000


def test_relabelling_and_deleting_a_service_show_in_a_watch(cluster: Cluster) -> None:
    model = cluster.model("chat", 1, service="chat-service")
    with watching(cluster.api, ON_MODELS) as watch:
        assert watch.event()[0] == "ADDED"
        model.relabel("chat-v2")
        kind, content = watch.event()
        assert (kind, content["metadata"]["labels"]["model.aibrix.ai/name"]) == (
            "MODIFIED",
            "chat-v2",
        )
        model.relabel(None)
        assert watch.event()[0] == "DELETED"
        model.relabel("chat")
        assert watch.event()[0] == "ADDED"
        model.delete()
        assert watch.event()[0] == "DELETED"


def test_the_change_is_visible_when_the_call_returns(cluster: Cluster) -> None:
    (pod,) = cluster.model("chat", 1).pods
    before = time.monotonic()
    pod.fail_probe()
    assert before < pod.changed_at < time.monotonic()
    assert conditions(cluster) == {pod.name: NOT_READY}


def test_leaving_the_cluster_leaves_nothing_behind() -> None:
    before = threading.active_count()
    with ExitStack() as readers:
        with Cluster() as cluster:
            (pod,) = cluster.model("chat", 1).pods
            watch = readers.enter_context(watching(cluster.api))
            watch.line()
            pod.terminate(grace=30)
        with pytest.raises(ConnectionResetError):
            list(watch.response)
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        get(cluster.api)
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(pod.address, pod.port).connect()


def test_no_two_clusters_have_the_same_addresses() -> None:
    twins = [addresses_with_processes(random.Random(7)) for _ in range(2)]
    first, second = (next(addresses) for addresses in twins)
    assert first != second
    for addresses in twins:
        addresses.close()
