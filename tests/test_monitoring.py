"""The manifests for monitoring and autoscaling render, find the gateway, and fit its base."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from settings import Settings
from tests import dashboard, kustomize, promtool
from tests.promql import selected
from tests.test_manifests import GATEWAY, RELEASES, ROOT, by_kubectl, manifest, manifests

MONITORING = ROOT / "k8s" / "monitoring"
AUTOSCALING = ROOT / "k8s" / "autoscaling"
FOLDERS = pytest.mark.parametrize(
    "folder", [MONITORING, AUTOSCALING], ids=lambda folder: folder.name
)
SCRAPED = "gateway_in_flight"


def autoscaler() -> Any:
    return manifest(AUTOSCALING, "HorizontalPodAutoscaler")["spec"]


def adapter_rule() -> Any:
    values = yaml.safe_load((AUTOSCALING / "prometheus-adapter-values.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    return rule


# Rendering


@FOLDERS
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_our_renderer_agrees_with_kubectl_on_them(folder: Path) -> None:
    def key(m: kustomize.Manifest) -> tuple[str, str]:
        return m["kind"], m["metadata"]["name"]

    assert sorted(kustomize.render(folder), key=key) == sorted(by_kubectl(folder), key=key)


@pytest.mark.parametrize(
    "line",
    [
        "configMapGenerator: [{name: a, files: [a.yaml]}]",
        "configMapGenerator: [{name: a, literals: [a=b], options: {disableNameSuffixHash: true}}]",
        "patches: [{target: {kind: Service, name: a}, patch: '[{op: add, path: /a, value: 1}]'}]",
        "patches: [{path: a.yaml}]",
    ],
)
def test_our_renderer_refuses_generators_and_patches_that_it_does_not_know(
    line: str, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("{apiVersion: v1, kind: Service, metadata: {name: a}}")
    (tmp_path / "kustomization.yaml").write_text(f"namespace: n\nresources: [a.yaml]\n{line}\n")
    with pytest.raises(kustomize.Unsupported):
        kustomize.render(tmp_path)


@FOLDERS
def test_everything_of_them_is_in_the_namespace_of_the_gateway(folder: Path) -> None:
    assert {m["metadata"]["namespace"] for m in manifests(folder)} == {"models"}


@FOLDERS
@pytest.mark.parametrize("release", RELEASES)
def test_every_object_of_kubernetes_fits_the_published_schema(folder: Path, release: str) -> None:
    known = [m for m in manifests(folder) if m["apiVersion"] != "monitoring.coreos.com/v1"]
    assert known
    for found in known:
        kubernetes_validate.validate(found, release, strict=True)


# Monitoring


def test_the_operator_s_objects_have_the_fields_that_it_knows() -> None:
    for kind, fields in (
        ("ServiceMonitor", {"selector", "endpoints"}),
        ("PrometheusRule", {"groups"}),
    ):
        found = manifest(MONITORING, kind)
        assert found.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert found["apiVersion"] == "monitoring.coreos.com/v1"
        assert found["spec"].keys() == fields
    (endpoint,) = manifest(MONITORING, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint.keys() == {"port", "path", "interval", "scrapeTimeout", "relabelings"}
    (relabeling,) = endpoint["relabelings"]
    assert relabeling.keys() == {"action", "sourceLabels", "regex"}


def test_prometheus_finds_the_gateway_s_pods_behind_its_service() -> None:
    spec = manifest(MONITORING, "ServiceMonitor")["spec"]
    service = manifest(GATEWAY, "Service")
    wanted = spec["selector"]["matchLabels"]
    assert wanted
    assert wanted.items() <= service["metadata"]["labels"].items()
    (endpoint,) = spec["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    annotations = manifest(GATEWAY, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert endpoint["path"] == annotations["prometheus.io/path"]


def test_the_rules_are_those_that_are_proved() -> None:
    assert manifest(MONITORING, "PrometheusRule")["spec"]["groups"] == promtool.groups()


def test_no_window_is_too_short_for_the_interval_of_scrapes() -> None:
    (endpoint,) = manifest(MONITORING, "ServiceMonitor")["spec"]["endpoints"]
    interval = int(endpoint["interval"].removesuffix("s"))
    assert 0 < int(endpoint["scrapeTimeout"].removesuffix("s")) <= interval
    expressions = " ".join(rule["expr"] for rule in promtool.rules())
    assert "s]" not in expressions
    minutes = [int(found) for found in re.findall(r"\[(\d+)m\]", expressions)]
    assert min(minutes) * 60 >= 4 * interval


def test_grafana_finds_the_dashboard() -> None:
    config = manifest(MONITORING, "ConfigMap")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    (text,) = config["data"].values()
    assert json.loads(text) == dashboard.DASHBOARD
    # What kubectl writes into the annotation of an applied object may not be larger.
    assert len(json.dumps(config)) < 262_144


def test_where_promtool_is_missing_one_line_says_so() -> None:
    command = [sys.executable, "-m", "pytest", "tests/test_dashboard.py"]
    ran = subprocess.run(command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True)
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("SKIPPED")]
    assert line.endswith("promtool is not installed (Debian's package prometheus)")


# Traces


def test_the_example_that_lets_spans_out_is_a_rule_when_it_is_uncommented() -> None:
    lines = (GATEWAY / "networkpolicy.yaml").read_text().splitlines()
    begins = max(number for number, line in enumerate(lines) if line.startswith("    # - "))
    text = "\n".join(lines[:begins] + [line.replace("# ", "", 1) for line in lines[begins:]])
    policy = yaml.safe_load(text)
    policy["metadata"]["namespace"] = "models"
    kubernetes_validate.validate(policy, RELEASES[-1], strict=True)
    *shipped, example = policy["spec"]["egress"]
    assert shipped == manifest(GATEWAY, "NetworkPolicy")["spec"]["egress"]
    ((peer,), ports) = example["to"], example["ports"]
    assert peer["namespaceSelector"]["matchLabels"].keys() == {"kubernetes.io/metadata.name"}
    assert ports == [{"protocol": "TCP", "port": 4318}]


def test_whoever_reads_of_traces_learns_of_the_rule_they_need() -> None:
    traces = (ROOT / "docs" / "operations.md").read_text().partition("\n## Traces\n")[2]
    assert "k8s/base/networkpolicy.yaml" in traces
    guide = (ROOT / "docs" / "getting-started.md").read_text()
    (item,) = [line for line in guide.splitlines() if "(operations.md#traces)" in line]
    assert "NetworkPolicy" in item


# Autoscaling


def test_the_autoscaler_scales_the_gateway_which_names_no_count_of_its_own() -> None:
    deployment = manifest(AUTOSCALING, "Deployment")
    assert autoscaler()["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]


def test_apart_from_the_count_the_base_is_as_it_was() -> None:
    base = manifests(GATEWAY)
    del next(m for m in base if m["kind"] == "Deployment")["spec"]["replicas"]
    scaled = [m for m in manifests(AUTOSCALING) if m["kind"] != "HorizontalPodAutoscaler"]
    assert sorted(scaled, key=str) == sorted(base, key=str)


def test_one_gateway_may_always_fail() -> None:
    assert 2 <= autoscaler()["minReplicas"] < autoscaler()["maxReplicas"]
    assert autoscaler()["minReplicas"] == manifest(GATEWAY, "Deployment")["spec"]["replicas"]


def test_there_are_more_gateways_before_one_has_to_refuse() -> None:
    (pods,) = [m["pods"] for m in autoscaler()["metrics"] if m["type"] == "Pods"]
    assert pods["target"]["type"] == "AverageValue"
    assert 0 < int(pods["target"]["averageValue"]) <= Settings().threads / 2


def test_the_cpu_s_target_has_a_request_that_it_is_a_part_of() -> None:
    (resource,) = [m["resource"] for m in autoscaler()["metrics"] if m["type"] == "Resource"]
    (container,) = manifest(AUTOSCALING, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert resource["name"] in container["resources"]["requests"]


def test_a_gateway_leaves_only_when_the_one_before_it_is_gone() -> None:
    grace = manifest(GATEWAY, "Deployment")["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]
    down = autoscaler()["behavior"]["scaleDown"]
    (policy,) = down["policies"]
    assert (policy["type"], policy["value"]) == ("Pods", 1)
    assert policy["periodSeconds"] >= grace
    assert down["stabilizationWindowSeconds"] >= grace


def test_the_adapter_serves_the_metric_that_the_autoscaler_asks_for() -> None:
    (pods,) = [m["pods"] for m in autoscaler()["metrics"] if m["type"] == "Pods"]
    (asked,) = selected(adapter_rule()["seriesQuery"])
    assert pods["metric"] == {"name": asked.metric} == {"name": SCRAPED}
    assert asked.labels == adapter_rule()["resources"]["overrides"].keys() == {"namespace", "pod"}


def test_the_adapter_gives_one_number_a_pod_whatever_its_models(tmp_path: Path) -> None:
    query = adapter_rule()["metricsQuery"]
    for template, value in (
        ("<<.GroupBy>>", "pod"),
        ("<<.Series>>", SCRAPED),
        ("<<.LabelMatchers>>", 'namespace="models",pod=~"gw-1|gw-2"'),
    ):
        query = query.replace(template, value)
    series = {
        promtool.series_of(SCRAPED, "gw-1", model="llama"): "3x20",
        promtool.series_of(SCRAPED, "gw-1", model="qwen"): "4x20",
        promtool.series_of(SCRAPED, "gw-2", model="unknown"): "0x20",
        promtool.series_of(SCRAPED, "gw-3", model="llama"): "9x20",
    }
    promtool.evaluate(query, series, {'{pod="gw-1"}': 7, '{pod="gw-2"}': 0}, tmp_path)


def test_prometheus_understands_how_the_adapter_finds_the_metric(tmp_path: Path) -> None:
    promtool.check({"series": adapter_rule()["seriesQuery"]}, tmp_path)
