"""Workers that have had their share of requests are replaced, and nobody notices."""

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.conftest import GatewayFactory
from tests.e2e.crowd import wait_until_moved, wires, workers
from tests.e2e.test_restarts import whole_stream, with_workers
from tests.harness import wait_for
from tests.wire import chat_body, exchange, post

STREAMS = 8
SHARE = 40


@pytest.mark.fault(22)
@pytest.mark.parametrize("count", [1, 2])
def test_streams_survive_workers_that_have_had_all_the_requests_they_may(
    cluster: Cluster, start_gateway: GatewayFactory, count: int
) -> None:
    cluster.model("llama", engine=Engine(tokens=150, token_seconds=0.02))
    cluster.model("short", engine=Engine(tokens=1))
    settings = {"workers": str(count), "GUNICORN_CMD_ARGS": f"--max-requests {SHARE}"}
    gateway = with_workers(start_gateway(**settings), count)
    before = set(workers(gateway))
    with wires(gateway.port, STREAMS) as clients:
        for client in clients:
            client.send(post(chat_body(stream=True)))
        begun = [(client, client.read_until(b"tok")) for client in clients]
        wait_until_moved(gateway, STREAMS)

        def replaced() -> bool:
            answer = exchange(gateway.port, post(chat_body("short")))
            assert (answer.status, answer.complete, answer.reset) == (200, True, False)
            return len(workers(gateway)) == count and not before & set(workers(gateway))

        wait_for(replaced, "there are others instead")
        answers = [client.read_to_the_end(seen) for client, seen in begun]
    assert all(whole_stream(answer, 150) for answer in answers)
    wait_for(lambda: gateway.in_flight() == 0, "nothing is in flight")
    streamed = gateway.metric("gateway_requests_total", model="llama", status="200")
    assert streamed == STREAMS, "each is accounted for, once"
