"""The manifests render, are valid, and keep what they promise."""

import json
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from settings import Settings
from tests import kustomize

ROOT = Path(__file__).parent.parent
GATEWAY = ROOT / "k8s" / "base"
MODEL = ROOT / "k8s" / "example-model"
FOLDERS = pytest.mark.parametrize("folder", [GATEWAY, MODEL], ids=lambda folder: folder.name)
# The first release with the `sleep` hook on by default, the one where it is stable, the newest.
RELEASES = ["1.30", "1.34", kubernetes_validate.latest_version()]
# Seconds to spare between the last thing a pod may do at its end and SIGKILL.
MARGIN = 10
VOLUMES_OF_RESTRICTED_PODS = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def by_kubectl(folder: Path) -> list[kustomize.Manifest]:
    command = ["kubectl", "kustomize", str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    return list(yaml.safe_load_all(output))


@cache
def rendered(folder: Path) -> str:
    render = by_kubectl if shutil.which("kubectl") else kustomize.render
    return json.dumps(render(folder))


def manifests(folder: Path) -> list[kustomize.Manifest]:
    found: list[kustomize.Manifest] = json.loads(rendered(folder))
    return found


def manifest(folder: Path, kind: str) -> Any:
    (found,) = [m for m in manifests(folder) if m["kind"] == kind]
    return found


def pod_template(folder: Path) -> Any:
    return manifest(folder, "Deployment")["spec"]["template"]


def pod(folder: Path) -> Any:
    return pod_template(folder)["spec"]


def container(folder: Path) -> Any:
    (only,) = pod(folder)["containers"]
    return only


def environment(folder: Path) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container(folder).get("env", [])}


def matches(selector: dict[str, str], folder: Path) -> bool:
    return bool(selector) and selector.items() <= pod_template(folder)["metadata"]["labels"].items()


# Rendering


@FOLDERS
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_our_renderer_agrees_with_kubectl(folder: Path) -> None:
    def key(m: kustomize.Manifest) -> tuple[str, str]:
        return m["kind"], m["metadata"]["name"]

    assert sorted(kustomize.render(folder), key=key) == sorted(by_kubectl(folder), key=key)


@pytest.mark.parametrize("line", ["namePrefix: a-", "labels: [{includeSelectors: true}]"])
def test_our_renderer_refuses_what_it_does_not_know(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{apiVersion: v1, kind: Service, metadata: {name: a}}")
    (tmp_path / "kustomization.yaml").write_text(f"namespace: n\nresources: [a.yaml]\n{line}\n")
    with pytest.raises(kustomize.Unsupported):
        kustomize.render(tmp_path)


@FOLDERS
@pytest.mark.parametrize("release", RELEASES)
def test_every_object_fits_the_published_schema(folder: Path, release: str) -> None:
    for found in manifests(folder):
        kubernetes_validate.validate(found, release, strict=True)


@FOLDERS
def test_everything_is_in_the_namespace_of_the_models(folder: Path) -> None:
    assert {m["metadata"]["namespace"] for m in manifests(folder)} == {"models"}


@FOLDERS
def test_images_have_a_fixed_tag(folder: Path) -> None:
    _, _, tag = container(folder)["image"].partition(":")
    assert tag not in ("", "latest")


def test_the_gateways_image_has_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert container(GATEWAY)["image"].endswith(f":{version}")


# How the parts find each other


@FOLDERS
def test_the_deployment_and_the_service_select_the_pods(folder: Path) -> None:
    assert matches(manifest(folder, "Deployment")["spec"]["selector"]["matchLabels"], folder)
    assert matches(manifest(folder, "Service")["spec"]["selector"], folder)


def test_the_two_selectors_do_not_take_each_others_pods() -> None:
    assert not matches(manifest(GATEWAY, "Service")["spec"]["selector"], MODEL)
    assert not matches(manifest(MODEL, "Service")["spec"]["selector"], GATEWAY)


@FOLDERS
def test_the_services_target_port_is_a_port_of_the_container(folder: Path) -> None:
    names = {port["name"] for port in container(folder)["ports"]}
    assert {port["targetPort"] for port in manifest(folder, "Service")["spec"]["ports"]} <= names


def test_the_disruption_budget_and_the_network_policy_select_the_gateway() -> None:
    for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        selector = manifest(GATEWAY, kind)["spec"][field]["matchLabels"]
        assert matches(selector, GATEWAY)
        assert not matches(selector, MODEL)


def test_the_gateways_pods_spread_by_their_own_labels() -> None:
    for constraint in pod(GATEWAY)["topologySpreadConstraints"]:
        assert matches(constraint["labelSelector"]["matchLabels"], GATEWAY)
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"


# The gateway


def test_the_gateway_may_list_and_watch_endpointslices_and_nothing_else() -> None:
    slices = {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["list", "watch"],
    }
    assert manifest(GATEWAY, "Role")["rules"] == [slices]
    assert not [m for m in manifests(GATEWAY) if m["kind"].startswith("ClusterRole")]


def test_the_right_is_bound_to_the_account_of_the_pods() -> None:
    account = manifest(GATEWAY, "ServiceAccount")
    binding = manifest(GATEWAY, "RoleBinding")
    assert binding["roleRef"]["name"] == manifest(GATEWAY, "Role")["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert subject == {
        "kind": "ServiceAccount",
        "name": pod(GATEWAY)["serviceAccountName"],
        "namespace": "models",
    }
    assert account["metadata"]["name"] == subject["name"]
    assert account["automountServiceAccountToken"] is False
    assert pod(GATEWAY)["automountServiceAccountToken"] is True
    assert pod(MODEL)["automountServiceAccountToken"] is False


def test_the_pod_outlives_its_pause_and_the_gateways_grace() -> None:
    pause = container(GATEWAY)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = Settings.from_environ(environment(GATEWAY)).grace_seconds
    assert "GATEWAY_GRACE_SECONDS" in environment(GATEWAY)
    assert pause >= 5
    assert pod(GATEWAY)["terminationGracePeriodSeconds"] >= pause + grace + MARGIN


def test_every_variable_is_a_setting_and_has_a_valid_value() -> None:
    text = (ROOT / "settings.py").read_text()
    for name in environment(GATEWAY):
        assert f'"{name}"' in text
    Settings.from_environ(environment(GATEWAY))


def test_the_port_is_the_same_everywhere() -> None:
    (port,) = [p["containerPort"] for p in container(GATEWAY)["ports"]]
    assert port == Settings.from_environ(environment(GATEWAY)).port
    assert pod_template(GATEWAY)["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    (rule,) = manifest(GATEWAY, "NetworkPolicy")["spec"]["ingress"]
    assert [p["port"] for p in rule["ports"]] == [port]


def test_the_probes_ask_the_paths_made_for_them() -> None:
    paths = {
        probe: container(GATEWAY)[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    expected = {"startupProbe": "/livez", "readinessProbe": "/healthz", "livenessProbe": "/livez"}
    assert paths == expected


def test_an_update_never_takes_a_ready_gateway_away_first() -> None:
    spec = manifest(GATEWAY, "Deployment")["spec"]
    assert spec["replicas"] >= 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["minReadySeconds"] > 0


def test_the_gateways_pod_meets_the_restricted_pod_security_standard() -> None:
    spec = pod(GATEWAY)
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["securityContext"].keys() <= {"runAsNonRoot", "seccompProfile"}
    for volume in spec["volumes"]:
        assert volume.keys() - {"name"} <= VOLUMES_OF_RESTRICTED_PODS
    assert container(GATEWAY)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not [port for port in container(GATEWAY)["ports"] if "hostPort" in port]


def test_the_only_writable_folder_is_in_memory_and_bounded() -> None:
    (mount,) = container(GATEWAY)["volumeMounts"]
    (volume,) = pod(GATEWAY)["volumes"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/tmp")
    assert volume["emptyDir"]["medium"] == "Memory"
    assert "sizeLimit" in volume["emptyDir"]


@FOLDERS
def test_services_nearby_put_nothing_into_the_environment(folder: Path) -> None:
    assert pod(folder)["enableServiceLinks"] is False


def test_the_gateway_can_reach_models_and_api_server_and_dns_and_nothing_else() -> None:
    models, api_server, dns = manifest(GATEWAY, "NetworkPolicy")["spec"]["egress"]
    assert models == {"to": [{"podSelector": {}}], "ports": [{"protocol": "TCP"}]}
    assert api_server.keys() == {"ports"}
    assert [p["port"] for p in api_server["ports"]] == [443, 6443]
    assert {p["port"] for p in dns["ports"]} == {53}
    assert manifest(GATEWAY, "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_the_gateway_is_no_model_itself() -> None:
    assert "model.aibrix.ai/name" not in manifest(GATEWAY, "Service")["metadata"]["labels"]


# The example model


def test_the_models_service_carries_the_name_that_the_engine_serves() -> None:
    labels = manifest(MODEL, "Service")["metadata"]["labels"]
    arguments = container(MODEL)["args"]
    served = arguments[arguments.index("--served-model-name") + 1]
    assert labels["model.aibrix.ai/name"] == served


def test_the_models_service_carries_the_port_that_the_engine_listens_on() -> None:
    port = manifest(MODEL, "Service")["metadata"]["labels"]["model.aibrix.ai/port"]
    arguments = container(MODEL)["args"]
    assert port == arguments[arguments.index("--port") + 1]
    assert port in [str(p["containerPort"]) for p in container(MODEL)["ports"]]


def test_the_engine_is_ready_when_it_says_so_and_has_time_to_load() -> None:
    startup, readiness = container(MODEL)["startupProbe"], container(MODEL)["readinessProbe"]
    assert startup["httpGet"]["path"] == readiness["httpGet"]["path"] == "/health"
    loading = startup["periodSeconds"] * startup["failureThreshold"]
    assert loading >= 1800
    assert manifest(MODEL, "Deployment")["spec"]["progressDeadlineSeconds"] > loading


def test_the_engine_finishes_its_answers_before_it_gets_the_signal() -> None:
    pause = container(MODEL)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 60
    assert pod(MODEL)["terminationGracePeriodSeconds"] >= pause + MARGIN


def test_the_engine_gets_a_gpu() -> None:
    assert container(MODEL)["resources"]["limits"]["nvidia.com/gpu"] == 1
