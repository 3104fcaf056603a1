"""A gateway starts: what it says before it knows anything, and what it refuses to start with."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy.worker import RELAY_SECONDS, VERY_FIRST_LIST_SECONDS
from simulator.cluster import Cluster
from tests.e2e.conftest import GatewayFactory
from tests.harness import ROOT, GatewayProcess, free_port, wait_for


def run_to_its_end(environment: dict[str, str], home: Path) -> subprocess.CompletedProcess[str]:
    """A gateway that is expected not to start."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "gunicorn")],
        cwd=ROOT,
        env={"HOME": str(home), "TMPDIR": str(home), "PORT": str(free_port()), **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "http", "a whole number from 1 to 65535"),
        ("GATEWAY_POLL_SECONDS", "often", "a number of seconds from 0.1 to 3600"),
        ("GATEWAY_CACHE_TTL", "nan", "a number of seconds from 1 to 86400"),
        ("GATEWAY_WATCH", "perhaps", "true or false"),
        ("GATEWAY_RETRIES", "-1", "a whole number from 0 to 10"),
        ("GATEWAY_RETRY_AFTER", "0", "a whole number from 1 to 60"),
        ("GATEWAY_STRATEGY", "best", "least-request"),
        ("GATEWAY_SOURCE", "consul:8500", "'kubernetes' or 'file:PATH'"),
        ("GATEWAY_EXTRA_PATHS", "v1/x", "starting with '/'"),
        ("GATEWAY_LOG_LEVEL", "loud", "debug, info, warning, error"),
        ("GATEWAY_WORKERS", "0", "a whole number from 1 to 64"),
        ("GATEWAY_THREADS", "1e3", "a whole number from 1 to 4096"),
        ("GATEWAY_NICENESS", "-5", "a whole number from 0 to 19"),
        ("GATEWAY_GRACE_SECONDS", "inf", "a number of seconds from 0"),
    ],
)
def test_a_bad_setting_ends_the_start_with_one_line_and_status_2(
    tmp_path: Path, name: str, value: str, allowed: str
) -> None:
    ended = run_to_its_end({name: value}, tmp_path)
    assert ended.returncode == 2
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert name in line
    assert repr(value) in line
    assert allowed in line
    assert list(tmp_path.iterdir()) == []


def test_a_missing_kubeconfig_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "config"
    ended = run_to_its_end({"KUBECONFIG": str(missing)}, tmp_path)
    assert ended.returncode == 2
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert str(missing) in line
    assert "KUBECONFIG" in line
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in line
    assert list(tmp_path.iterdir()) == []


def test_without_any_configuration_the_usual_place_is_named(tmp_path: Path) -> None:
    ended = run_to_its_end({}, tmp_path)
    assert ended.returncode == 2
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert str(tmp_path / ".kube" / "config") in line


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "kind: Config", "clusters: 3\ncurrent-context: x"]
)
def test_an_unusable_kubeconfig_is_named(tmp_path: Path, content: str) -> None:
    broken = tmp_path / "config"
    broken.write_text(content)
    ended = run_to_its_end({"KUBECONFIG": str(broken)}, tmp_path)
    assert ended.returncode == 2
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert str(broken) in line


def test_a_port_that_is_taken_leaves_nothing_behind(
    gateway: GatewayProcess, cluster: Cluster, tmp_path: Path
) -> None:
    home = tmp_path / "second"
    home.mkdir()
    config = cluster.kubeconfig(tmp_path / "again")
    environment = {"PORT": str(gateway.port), "KUBECONFIG": str(config)}
    ended = run_to_its_end(environment, home)
    assert ended.returncode != 0
    assert "Connection in use" in ended.stdout
    assert list(home.iterdir()) == []
    assert gateway.get("/healthz").status_code == 200


def test_what_kubernetes_injects_for_a_service_named_gateway_is_no_setting(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama")
    gateway = start_gateway(
        GATEWAY_PORT="tcp://10.0.0.1:80",
        GATEWAY_PORT_80_TCP="tcp://10.0.0.1:80",
        GATEWAY_PORT_80_TCP_ADDR="10.0.0.1",
        GATEWAY_SERVICE_HOST="10.0.0.1",
        GATEWAY_SERVICE_PORT="80",
        GATEWAY_SERVICE_PORT_HTTP="80",
    ).ready()
    assert gateway.chat().status_code == 200


def test_an_empty_variable_counts_as_absent(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama")
    gateway = start_gateway(service="", port_name="", retries="", strategy=" ").ready()
    assert gateway.chat().status_code == 200


@pytest.mark.fault(1, 2, 3, 4)
@pytest.mark.parametrize("fault", ["refuse", "hang", "401", "403", "500"])
def test_before_the_first_list_nothing_is_called_unknown(
    cluster: Cluster, start_gateway: GatewayFactory, fault: str
) -> None:
    cluster.model("llama")
    cluster.api.fault(fault)
    gateway = start_gateway()  # it listens at once, and soon answers

    health = gateway.get("/healthz", timeout=1 + VERY_FIRST_LIST_SECONDS + RELAY_SECONDS)
    assert health.status_code == 503
    assert health.json()["status"] == "not ready"
    assert "no list of EndpointSlices has succeeded yet" in health.json()["reason"]
    assert health.json()["snapshot_age_seconds"] is None
    assert gateway.metric("gateway_snapshot_age_seconds") == float("inf")
    assert gateway.get("/livez").status_code == 200
    for answer in (
        gateway.chat(),
        gateway.chat("never-heard-of"),
        gateway.get("/v1/models"),
        gateway.get("/v1/models/llama"),
    ):
        assert answer.status_code == 503
        assert answer.headers["x-gateway-error"] == "endpoints_unknown"
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["x-should-retry"] == "true"

    cluster.api.heal()
    gateway.ready()
    assert gateway.chat().status_code == 200
    assert gateway.chat("never-heard-of").status_code == 404


def soon_ready(start_gateway: GatewayFactory, limit: float) -> GatewayProcess:
    """A gateway that was ready within `limit` seconds: one of three, where others are at work."""
    took: list[float] = []
    while len(took) < 3:
        gateway = start_gateway(poll_seconds="60")
        listening = time.monotonic()
        wait_for(lambda g=gateway: g.get("/healthz").status_code == 200, "the first list")  # type: ignore[misc]
        took.append(time.monotonic() - listening)
        if took[-1] < limit:
            return gateway
    raise AssertionError(f"none was ready within {limit:g} s: {took}")


def test_the_first_list_succeeds_within_a_second_of_listening(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    cluster.model("llama")
    assert soon_ready(start_gateway, 1.0).chat().status_code == 200


@pytest.mark.parametrize(("fault", "times"), [("403", 3), ("401", 1), ("garbage", 1)])
def test_an_api_server_that_is_only_starting_delays_the_first_list_but_little(
    cluster: Cluster, start_gateway: GatewayFactory, fault: str, times: int
) -> None:
    cluster.model("llama")

    def start(**settings: str) -> GatewayProcess:
        cluster.api.fault(fault, on="list", times=times)
        return start_gateway(**settings)

    soon_ready(start, 3.0)


def test_a_namespace_it_may_not_read_is_named_in_the_log(
    cluster: Cluster, start_gateway: GatewayFactory
) -> None:
    gateway = start_gateway(namespace="somebody-elses")
    wait_for(lambda: gateway.metric("gateway_polls_total", result="forbidden"), "it is refused")
    assert gateway.get("/healthz").json()["last_poll_error"] == "forbidden"
    assert 'in the namespace \\"somebody-elses\\"' in gateway.logs()
