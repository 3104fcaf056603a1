"""Neither a slice nor a request leads the gateway where it must not go."""

import contextlib
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from simulator.cluster import Cluster
from simulator.pod import Engine
from tests.e2e.expect import OVERLOADED, Expected, check_error
from tests.e2e.hostile import reaching_the_pod
from tests.e2e.place import Place, environment_of, place, process_of
from tests.harness import GatewayProcess, gateway_process, wait_for
from tests.wire import CHAT, chat_body, exchange, post

SKIPPED = "gateway_discovery_skipped_total"


class Trap:
    """What listens on loopback, where nobody must connect: on one port of 127.0.0.1 and ::1."""

    def __init__(self) -> None:
        self._listeners = [socket.create_server(("127.0.0.1", 0))]
        self.port = int(self._listeners[0].getsockname()[1])
        with contextlib.suppress(OSError):  # there may be no IPv6
            self._listeners.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()

    @property
    def sprung(self) -> bool:
        """Whether somebody has connected since this was asked last."""
        sprung = select.select(self._listeners, [], [], 0)[0]
        for listener in sprung:
            listener.accept()[0].close()
        return bool(sprung)


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    with Trap() as trap:
        with socket.create_connection(("0.0.0.0", trap.port)):
            wait_for(lambda: trap.sprung, "it can be sprung")
        yield trap


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("hostile-slices")) as here:
        here.deploy("llama", engine=Engine(tokens=2, token_seconds=0.001))
        yield here


def put_slice(
    cluster: Cluster, name: str, port: int, *addresses: str, model: str = "llama"
) -> None:
    """A slice of a model beside those of its Service."""
    cluster.put_slice(
        {
            "metadata": {"name": name, "labels": {"model.aibrix.ai/name": model}},
            "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
            "endpoints": [
                {"addresses": [address], "conditions": {"ready": True}} for address in addresses
            ],
            "ports": [{"name": "http", "protocol": "TCP", "port": port}],
        }
    )


def skipped(gateway: GatewayProcess) -> float:
    return gateway.metric(SKIPPED, reason="address")


#: Addresses that are nobody's, many's or this machine's; and IPv6 behind which such a one is.
NEVER = [
    *("0.0.0.0", "::", "224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"),
    *("169.254.169.254", "169.254.0.1", "fe80::1", "fe80::a9fe:a9fe", "fe80::1%lo"),
    *("::ffff:169.254.169.254", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:0.0.0.0"),
    *("::169.254.169.254", "::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::127.0.0.1"),
    *("64:ff9b::e000:1", "2002:a9fe:a9fe::1", "2002:7f00:1::1", "2001:0:a00:1::5601:5601"),
]


@pytest.mark.fault(28)
@pytest.mark.parametrize("address", NEVER)
def test_a_slice_that_names_such_an_address_is_skipped_and_the_good_one_serves(
    here: Place, trap: Trap, address: str
) -> None:
    pod = here.cluster.models["llama"].pods[0]
    before = skipped(here.gateway)
    put_slice(here.cluster, "evil", trap.port, address)
    wait_for(lambda: skipped(here.gateway) > before, "it is skipped")
    assert here.gateway.endpoints("llama") == {pod.name: "ready"}
    with reaching_the_pod(here, 3):
        answers = [here.exchange(post()) for _ in range(3)]
    assert {(answer.status, answer.value("target-pod")) for answer in answers} == {(200, pod.name)}
    assert skipped(here.gateway) == before + 1
    assert not trap.sprung
    here.cluster.delete_slice("evil")


@pytest.mark.fault(28)
def test_a_model_with_no_other_address_has_no_endpoint(here: Place, trap: Trap) -> None:
    before = skipped(here.gateway)
    of_4 = [address for address in NEVER if ":" not in address]
    of_6 = [address for address in NEVER if ":" in address]
    put_slice(here.cluster, "evil-4", trap.port, *of_4, model="evil")
    put_slice(here.cluster, "evil-6", trap.port, *of_6, model="evil")
    wait_for(lambda: skipped(here.gateway) == before + len(NEVER), "all are skipped")
    check_error(
        here.exchange(post(chat_body("evil"))),
        Expected(503, "no_ready_endpoints", OVERLOADED, says="model 'evil': 0 endpoints"),
        retry_after=1,
    )
    assert not trap.sprung
    here.cluster.delete_slice("evil-4")
    here.cluster.delete_slice("evil-6")


@pytest.mark.fault(28)
def test_loopback_is_skipped_unless_it_is_allowed(trap: Trap, tmp_path: Path) -> None:
    """The pods of these tests live there: to a gateway that is not told so they do not exist."""
    with Cluster() as cluster:
        pod = process_of(cluster.model("llama").pods[0])
        put_slice(cluster, "loopback-4", trap.port, "127.0.0.1", "127.255.0.1", model="lo")
        put_slice(cluster, "loopback-6", trap.port, "::1", model="lo")
        environment = environment_of(cluster, tmp_path, allow_loopback="false")
        with gateway_process(tmp_path, **environment) as strict:
            strict.ready()
            assert skipped(strict) >= 4, "the pod of llama and these three"
            for model in ("llama", "lo"):
                answer = exchange(strict.port, post(chat_body(model)))
                says = f"model '{model}': 0 endpoints"
                expected = Expected(503, "no_ready_endpoints", OVERLOADED, says=says)
                check_error(answer, expected, retry_after=1)
        assert not pod.requests
    assert not trap.sprung


def requests_that_name(other: str) -> dict[str, bytes]:
    """Requests in each part of which another target stands."""
    url = f"http://{other}/"
    parameters: dict[str, Any] = dict.fromkeys(("url", "base_url", "endpoint", "upstream"), url)
    parameters |= {"target-pod": other, "proxies": {"http": url}, "metadata": {"host": other}}
    fields = [
        *("Host: {}", "X-Forwarded-Host: {}", "Forwarded: host={}", "X-Host: {}", "Proxy: {url}"),
        *("X-Original-Host: {}", "X-Original-URL: {url}", "X-Rewrite-URL: {url}", "target-pod: {}"),
        *("X-Envoy-Original-Dst-Host: {}", "x-gateway-destination-endpoint: {}", "Via: 1.1 {}"),
        *(
            "Location: {url}",
            "Destination: {url}",
            "Referer: {url}",
            "Origin: {url}",
            "Alt-Used: {}",
        ),
        *("X-Forwarded-Server: {}", "X-Real-IP: {}", "HTTP_PROXY: {url}", "HTTP_HOST: {}"),
    ]
    targets = [
        *("http://{}/chat", "https://{}/chat", "/chat?url={url}", "/chat?{url}", "/chat?host={}"),
        *("//{}/chat", "/{url}/chat", "/chat@{}", "/chat/../../{url}", "/chat%0d%0aHost:%20{}"),
        *("http://gateway.test@{}/chat", "http://gateway.test:80#@{}/chat", "{}/chat", "{}"),
        *("http://gateway.test\\@{}/chat", "http://{}#@gateway.test/chat", "x://{}/chat", "{url}"),
    ]
    return {
        "body": post(chat_body(**parameters)),
        "model": post(chat_body(url)),
        **{line: post(None, line.format(other, url=url)) for line in fields},
        **{
            target: post(target=target.format(other, url=url).replace("/chat", CHAT))
            for target in targets
        },
    }


@pytest.mark.fault(28)
@pytest.mark.parametrize("part", requests_that_name("other.test"))
def test_nothing_in_a_request_moves_its_target(here: Place, trap: Trap, part: str) -> None:
    requests = requests_that_name(f"127.0.0.1:{trap.port}")
    pod = process_of(here.cluster.models["llama"].pods[0])
    before = len(pod.requests)
    answer = here.exchange(requests[part])
    assert answer.status in (200, 400, 404, 405)
    assert len(pod.requests) == before + (answer.status == 200)
    if answer.status == 200:
        assert answer.value("target-pod") == here.cluster.models["llama"].pods[0].name
        assert pod.requests[-1].target.startswith(CHAT)
    assert not trap.sprung
