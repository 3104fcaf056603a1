"""A cluster, and gateways in front of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from simulator.cluster import Cluster
from tests.harness import GatewayProcess, gateway_process

GatewayFactory = Callable[..., GatewayProcess]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture
def start_gateway(cluster: Cluster, tmp_path: Path) -> Iterator[GatewayFactory]:
    """Start gateways that read this cluster; settings by name, such as `poll_seconds="0.5"`.

    Upper case names an environment variable as it is, such as `KUBECONFIG=""`.
    """
    with ExitStack() as running:

        def start(**settings: str) -> GatewayProcess:
            kubeconfig = cluster.kubeconfig(tmp_path / "kubeconfig")
            environment = {
                "KUBECONFIG": str(kubeconfig),
                "GATEWAY_ALLOW_LOOPBACK": "true",
                "GATEWAY_THREADS": "64",
                "GATEWAY_GRACE_SECONDS": "10",
                **{
                    name if name.isupper() else f"GATEWAY_{name.upper()}": value
                    for name, value in settings.items()
                },
            }
            return running.enter_context(gateway_process(tmp_path, **environment)).listening()

        yield start


@pytest.fixture
def gateway(start_gateway: GatewayFactory) -> GatewayProcess:
    """A gateway with the default settings, ready."""
    return start_gateway().ready()
