"""Kubernetes' official client works against the pretend cluster as against a real one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes
import pytest

from simulator.cluster import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        cluster.model("chat", 2)
        yield cluster


@contextmanager
def discovery_api(kubeconfig: Path) -> Iterator[Any]:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as client:
        yield kubernetes.client.DiscoveryV1Api(client)


@pytest.mark.parametrize("token_in_file", [False, True])
def test_it_lists_with_the_kubeconfig(
    cluster: Cluster, tmp_path: Path, token_in_file: bool
) -> None:
    token_file = tmp_path / "token" if token_in_file else None
    with discovery_api(cluster.kubeconfig(tmp_path / "kc", token_file=token_file)) as api:
        raw = api.list_namespaced_endpoint_slice(
            "models", label_selector="model.aibrix.ai/name=chat", limit=1, _preload_content=False
        )
        assert len(json.loads(raw.data)["items"][0]["endpoints"]) == 2
        (item,) = api.list_namespaced_endpoint_slice("models").items
        assert [endpoint.conditions.ready for endpoint in item.endpoints] == [True, True]


def test_it_reads_a_placeholder(cluster: Cluster, tmp_path: Path) -> None:
    cluster.model("empty", 0)
    with discovery_api(cluster.kubeconfig(tmp_path / "kc")) as api:
        selector = "model.aibrix.ai/name=empty"
        (item,) = api.list_namespaced_endpoint_slice("models", label_selector=selector).items
        assert item.endpoints is None


def test_it_is_refused_with_a_wrong_token(cluster: Cluster, tmp_path: Path) -> None:
    with discovery_api(cluster.kubeconfig(tmp_path / "kc", token="tampered")) as api:
        with pytest.raises(kubernetes.client.ApiException) as refused:
            api.list_namespaced_endpoint_slice("models")
        assert refused.value.status == 401


def test_it_watches(cluster: Cluster, tmp_path: Path) -> None:
    with discovery_api(cluster.kubeconfig(tmp_path / "kc")) as api:
        watch = kubernetes.watch.Watch()
        events = watch.stream(api.list_namespaced_endpoint_slice, "models", timeout_seconds=5)
        assert next(events)["type"] == "ADDED"
        cluster.pod("chat-1").fail_probe()
        event = next(events)
        assert event["type"] == "MODIFIED"
        ready = [endpoint.conditions.ready for endpoint in event["object"].endpoints]
        assert ready == [True, False]
        events.close()


def test_it_learns_that_its_version_expired(cluster: Cluster, tmp_path: Path) -> None:
    cluster.api.compact()
    with discovery_api(cluster.kubeconfig(tmp_path / "kc")) as api:
        events = kubernetes.watch.Watch().stream(
            api.list_namespaced_endpoint_slice,
            "models",
            resource_version="1",
            timeout_seconds=1,
        )
        with pytest.raises(kubernetes.client.ApiException) as expired:
            next(events)
        assert expired.value.status == 410
