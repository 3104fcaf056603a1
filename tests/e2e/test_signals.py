"""The signals that end a gateway at once, as the page on operations says."""

import signal

import pytest
import requests

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.e2e.test_pod_life import events
from tests.harness import PATIENCE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=lambda one: one.name)
def test_a_signal_to_end_now_waits_for_no_grace_and_breaks_streams_visibly(
    cluster: Cluster, start_gateway: GatewayFactory, number: signal.Signals
) -> None:
    cluster.model("llama", engine=Engine(tokens=100_000, token_seconds=0.05))
    gateway = start_gateway(grace_seconds="600").ready()
    told: list[str] = []
    with gateway.chat(stream=True) as stream:
        arriving = events(stream)
        told.append(next(arriving))

        gateway.process.send_signal(number)
        with pytest.raises(requests.RequestException):  # it is cut short, not ended
            told.extend(arriving)

    assert "[DONE]" not in told
    assert gateway.process.wait(PATIENCE) == 0
