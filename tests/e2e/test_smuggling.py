"""No client gets a request past the gateway that hides in another, or behind it."""

import json
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_tls import CERTIFICATE
from tests.harness import GatewayProcess, gateway_process, wait_for
from tests.mutations import mutations
from tests.recorder import Recorder
from tests.slices import entry, raw_slice
from tests.smuggler import Attack, Verdict, attack_all, judge
from tests.strict_http import End, read_strictly
from tests.wire import Wire

#: The least there are, so that none get lost unnoticed.
MUTATIONS = 4000
#: Under TLS each takes two handshakes: so many times fewer are enough there.
FEWER_UNDER_TLS = 7
Figure = Callable[[str, object], None]


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    recorder: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("smuggling")
    with gateway_process(directory, **environment(directory, recorder)) as running:
        yield running.ready()


def environment(directory: Path, recorder: Recorder) -> dict[str, str]:
    """One Service alone, so that a body is forwarded whatever is in it."""
    a_slice = raw_slice(
        entry("127.0.0.1", "recorder", ready=True),
        ports=({"name": "http", "port": recorder.port, "protocol": "TCP"},),
        labels={"kubernetes.io/service-name": "recorder"},
    )
    source = directory / "slices.json"
    source.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [a_slice]}))
    return {
        "GATEWAY_SOURCE": f"file:{source}",
        "GATEWAY_SERVICE": "recorder",
        "GATEWAY_SCRAPE_SECONDS": "0",  # the recorder expects the clients' requests alone
    }


def check(verdict: Verdict, attacks: list[Attack]) -> Counter[int]:
    """Nothing is wrong, and the attack reached what it aims at; how often one came upstream."""
    assert not verdict.faults, "\n".join(verdict.faults[:20])
    times = Counter(len(seen) for seen in verdict.forwarded.values())
    assert sum(attack.refused for attack in attacks) > len(attacks) / 2
    assert times[1] > len(attacks) / 50
    assert times[2] > len(attacks) / 50
    return times


@pytest.mark.fault(26)
def test_no_request_gets_to_a_pod_that_a_strict_reader_does_not_see(
    gateway: GatewayProcess, recorder: Recorder, record_property: Figure
) -> None:
    sent = mutations()
    assert len(sent) >= MUTATIONS

    attacks = attack_all(lambda: Wire(gateway.port), sent)

    verdict = judge(recorder, attacks)
    times = check(verdict, attacks)
    record_property("row 26: mutations sent", len(sent))
    record_property("row 26: refused", sum(attack.refused for attack in attacks))
    record_property("row 26: forwarded once", times[1])
    record_property("row 26: forwarded as the two requests in line that they are", times[2])
    record_property("row 26: extra requests seen upstream", verdict.extra)
    told = Counter(answer.code for attack in attacks for answer in attack.answers)
    counted = gateway.counted("gateway_errors_total", "code")
    assert counted["bad_request"] == told["bad_request"] > 0
    assert gateway.get("/healthz").status_code == 200


class SecureWire(Wire):
    """A connection under TLS."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port)
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")


@pytest.mark.fault(26)
def test_nor_does_one_under_tls(tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    tls = ("--certfile", str(CERTIFICATE), "--keyfile", str(CERTIFICATE))
    with (
        Recorder() as recorder,
        gateway_process(tmp_path, *tls, **environment(tmp_path, recorder)) as gateway,
    ):
        gateway.listening()

        def connect() -> Wire:
            return SecureWire(gateway.port, context)

        wait_for(lambda: is_healthy(connect()), "the gateway is ready")
        # One half of a connection can't end here, as with what is incomplete it would.
        some = [one for one in mutations() if read_strictly(one.raw).end is not End.INCOMPLETE]
        attacks = attack_all(connect, some[::FEWER_UNDER_TLS])
        check(judge(recorder, attacks), attacks)


def is_healthy(client: Wire) -> bool:
    with client:
        client.send(b"GET /healthz HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n")
        return client.read_to_the_end().status == 200
