"""A cluster with a gateway in front of it, for tests that share one: starting it takes a second."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from simulator.fleet import Pod
from simulator.model import Model
from simulator.pod import Engine, ModelPod, SeenRequest
from tests.harness import GatewayProcess, gateway_process, wait_for
from tests.wire import RawAnswer, exchange

#: A module's place twice: its gateway moves streams in the relay, and in its workers' threads.
on_both_paths = pytest.fixture(scope="module", params=["true", "false"], ids=["relay", "plain"])


def process_of(pod: Pod) -> ModelPod:
    """The process in a pod; these tests have none without."""
    assert pod.process is not None
    return pod.process


@dataclass(frozen=True)
class Place:
    """A cluster and a gateway. Every model in it has its own name, so that tests share nothing."""

    cluster: Cluster
    gateway: GatewayProcess

    def deploy(
        self, name: str, pods: int = 1, *, ready: bool = True, engine: Engine | None = None
    ) -> Model:
        """A new model whose pods the gateway knows."""
        model = self.cluster.model(name, pods=pods, ready=ready, engine=engine)
        state = "ready" if ready else "not_ready"
        self.wait_for_states(name, {pod.name: state for pod in model.pods})
        return model

    def wait_for_states(self, model: str, states: dict[str, str]) -> None:
        wait_for(lambda: self.gateway.endpoints(model) == states, f"{model} is {states}")

    def exchange(self, request: bytes) -> RawAnswer:
        return exchange(self.gateway.port, request)

    def wait_until_idle(self) -> None:
        wait_for(lambda: self.gateway.in_flight() == 0, "nothing is in flight")


def seen_by(*pods: Pod) -> list[SeenRequest]:
    """Requests that reached the pods, in their order."""
    return sorted((r for pod in pods for r in process_of(pod).requests), key=lambda r: r.at)


def bytes_left_unread(pod: Pod) -> int:
    """What the gateway has received from the pod and not taken yet, as the kernel tells it."""
    address = bytes(reversed(socket.inet_aton(pod.address))).hex().upper()
    remote = f"{address}:{pod.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(fields[4].partition(":")[2], 16) for fields in lines if fields[2] == remote)


def environment_of(cluster: Cluster, directory: Path, **settings: str) -> dict[str, str]:
    """What a gateway in front of `cluster` needs; settings by name, such as `retries="0"`."""
    return {
        "KUBECONFIG": str(cluster.kubeconfig(directory / "kubeconfig")),
        "GATEWAY_ALLOW_LOOPBACK": "true",
        "GATEWAY_THREADS": "64",
        "GATEWAY_HOLD_REQUESTS": "32",
        "GATEWAY_GRACE_SECONDS": "10",
        **{f"GATEWAY_{name.upper()}": value for name, value in settings.items()},
    }


@contextmanager
def place(
    directory: Path, *, environment: dict[str, str] | None = None, **settings: str
) -> Iterator[Place]:
    """A cluster and a ready gateway; `environment` is what is no setting of the gateway's."""
    with Cluster() as cluster:
        variables = environment_of(cluster, directory, **settings) | (environment or {})
        with gateway_process(directory, **variables) as gateway:
            yield Place(cluster, gateway.ready())
