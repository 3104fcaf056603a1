"""Model pods: what each state of their life looks like from a socket."""

import http.client
import time

import pytest

from simulator.pod import ModelPod
from tests.podclient import (
    MakePod,
    ask,
    begin,
    connect,
    eventually,
    new_pod,
    read_to_the_end,
)


def health(pod: ModelPod) -> int:
    return ask(pod, "/health", "GET")[0]


class TestLife:
    def test_a_starting_pod_refuses_connections(self, pod: ModelPod) -> None:
        pod.kill()
        pod.start()
        assert pod.state == "starting"
        with pytest.raises(ConnectionRefusedError):
            health(pod)

    def test_a_loading_pod_answers_503_to_everything(self) -> None:
        with new_pod() as pod:
            pod.start()
            pod.load()
            assert (pod.state, health(pod), ask(pod)[0]) == ("loading", 503, 503)
            assert [request.state for request in pod.requests] == ["loading"]
            pod.become_ready()
            assert (pod.state, health(pod), ask(pod)[0]) == ("ready", 200, 200)

    def test_a_failing_probe_does_not_stop_the_api(self, pod: ModelPod) -> None:
        pod.fail_probe()
        assert (pod.state, health(pod), ask(pod)[0]) == ("ready", 503, 200)
        pod.become_ready()
        assert health(pod) == 200

    def test_a_terminating_pod_finishes_its_requests_and_is_gone(self, make_pod: MakePod) -> None:
        pod = make_pod(token_seconds=0.02, tokens=10)
        idle = connect(pod)
        running = begin(pod)
        eventually(lambda: pod.connections == 2)
        pod.sigterm()
        assert (pod.state, pod.active) == ("terminating", 1)
        assert read_to_the_end(idle) == b""
        with pytest.raises(ConnectionRefusedError):
            ask(pod)
        assert read_to_the_end(running).endswith(b"0\r\n\r\n")
        pod.wait_gone()
        assert (pod.state, pod.active, pod.connections) == ("gone", 0, 0)
        assert pod.closed_early == []

    def test_a_terminating_pod_without_requests_is_gone_at_once(self, pod: ModelPod) -> None:
        pod.sigterm()
        pod.wait_gone(1.0)

    def test_a_lingering_pod_stays_until_it_is_killed(self, pod: ModelPod) -> None:
        pod.sigterm(linger=True)
        assert pod.state == "terminating"
        with pytest.raises(ConnectionRefusedError):
            ask(pod)
        pod.kill()
        pod.wait_gone(1.0)

    def test_some_engines_accept_while_terminating(self, make_pod: MakePod) -> None:
        pod = make_pod(refuses_when_terminating=False)
        pod.sigterm()
        assert ask(pod)[0] == 200
        assert pod.requests[-1].state == "terminating"

    def test_some_engines_die_at_sigterm(self, make_pod: MakePod) -> None:
        pod = make_pod(dies_at_sigterm=True, token_seconds=0.1)
        running = begin(pod)
        pod.sigterm()
        assert pod.state == "gone"
        with pytest.raises(ConnectionResetError):
            read_to_the_end(running)

    def test_a_killed_pod_resets_every_connection(self, make_pod: MakePod) -> None:
        pod = make_pod(token_seconds=0.1)
        idle = connect(pod)
        running = begin(pod)
        eventually(lambda: pod.connections == 2)
        pod.kill()
        for client in (idle, running):
            with pytest.raises(ConnectionResetError):
                read_to_the_end(client)
        with pytest.raises(ConnectionRefusedError):
            ask(pod)
        assert (pod.connections, pod.active, pod.closed_early) == (0, 0, [])

    def test_a_crashed_pod_can_start_again_on_its_port(self, pod: ModelPod) -> None:
        port = pod.port
        pod.crash()
        pod.start()
        pod.become_ready()
        assert (pod.port, ask(pod)[0]) == (port, 200)

    def test_a_step_out_of_order_is_refused(self, pod: ModelPod) -> None:
        with pytest.raises(RuntimeError, match="is ready"):
            pod.start()
        pod.kill()
        with pytest.raises(RuntimeError, match="is gone"):
            pod.become_ready()


class TestConnections:
    def test_requests_share_a_connection_until_it_has_been_idle(self, make_pod: MakePod) -> None:
        pod = make_pod(keep_alive_seconds=0.1)
        connection = http.client.HTTPConnection(pod.address, pod.port, timeout=3)
        for _ in range(3):
            connection.request("POST", "/v1/completions", "{}")
            connection.getresponse().read()
        assert (pod.accepted, len(pod.requests)) == (1, 3)
        eventually(lambda: pod.connections == 0)
        connection.close()

    @pytest.mark.parametrize("stream", [True, False])
    def test_a_client_that_leaves_early_is_noticed(self, make_pod: MakePod, stream: bool) -> None:
        pod = make_pod(token_seconds=1.0)
        client = begin(pod, stream=stream)
        assert pod.active == 1
        left = time.monotonic()
        client.close()
        eventually(lambda: pod.closed_early)
        assert 0 <= pod.closed_early[0] - left < 0.5
        eventually(lambda: (pod.active, pod.connections) == (0, 0))

    def test_a_client_that_has_its_answer_may_leave(self, pod: ModelPod) -> None:
        ask(pod, stream=True)
        eventually(lambda: pod.connections == 0)
        assert pod.closed_early == []

    def test_a_client_that_does_not_read_stops_the_engine(self, make_pod: MakePod) -> None:
        pod = make_pod(token_seconds=0.0)
        client = begin(pod, max_tokens=10_000_000)
        assert client.recv(10)
        client.close()
        eventually(lambda: pod.closed_early)

    def test_nonsense_is_a_bad_request(self, pod: ModelPod) -> None:
        client = connect(pod)
        client.sendall(b"nonsense\r\n\r\n")
        assert read_to_the_end(client).startswith(b"HTTP/1.1 400 ")
