"""What `kubectl kustomize` does with the folders under k8s/, for machines without kubectl.

It knows the fields and kinds that those folders use, and refuses every other: a manifest that it
would render wrongly is an error, not a surprise. Where kubectl is present, a test compares the two.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

KINDS_WITH_TEMPLATE = {"Deployment"}
# All of these live in a namespace; a cluster-wide kind would need other treatment.
KINDS = KINDS_WITH_TEMPLATE | {
    "HorizontalPodAutoscaler",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PrometheusRule",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
    "ServiceMonitor",
}


class Unsupported(Exception):
    """A kustomization or a manifest uses something that this renderer does not know."""


def render(folder: Path) -> list[Manifest]:
    """Return the objects that `kubectl apply -k folder` would send.

    Raises `Unsupported` for any field or kind beyond those in use.
    """
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    known = {"apiVersion", "kind", "namespace", "resources", "labels", "images"}
    known |= {"configMapGenerator", "patches"}
    _refuse_others(kustomization, known, "kustomization")
    manifests = [m for name in kustomization["resources"] for m in _read(folder / name)]
    for generator in kustomization.get("configMapGenerator", []):
        manifests.append(_config_map(folder, generator))
    for patch in kustomization.get("patches", []):
        _patch(manifests, patch)
    for manifest in manifests:
        manifest["metadata"]["namespace"] = kustomization["namespace"]
        for labels in kustomization.get("labels", []):
            _add_labels(manifest, labels)
        for image in kustomization.get("images", []):
            _set_image(manifest, image)
    _set_namespace_of_subjects(manifests)
    return manifests


def _read(path: Path) -> list[Manifest]:
    if (path / "kustomization.yaml").is_file():
        return render(path)
    if not path.is_file():
        raise Unsupported(f"resource {path} is not a file")
    manifests: list[Manifest] = [m for m in yaml.safe_load_all(path.read_text()) if m]
    for manifest in manifests:
        if manifest["kind"] not in KINDS:
            raise Unsupported(f"kind {manifest['kind']} in {path}")
    return manifests


def _config_map(folder: Path, generator: Mapping[str, Any]) -> Manifest:
    _refuse_others(generator, {"name", "files", "options"}, "configMapGenerator")
    options = generator.get("options", {})
    _refuse_others(options, {"disableNameSuffixHash", "labels"}, "options of configMapGenerator")
    if not options.get("disableNameSuffixHash"):
        raise Unsupported("a name with a hash")
    named = (file.partition("=") for file in generator["files"])
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": generator["name"], "labels": dict(options.get("labels", {}))},
        "data": {key: (folder / (path or key)).read_text() for key, _, path in named},
    }


def _patch(manifests: list[Manifest], patch: Mapping[str, Any]) -> None:
    _refuse_others(patch, {"target", "patch"}, "patches")
    _refuse_others(patch["target"], {"kind", "name"}, "target of patches")
    targets = [
        manifest
        for manifest in manifests
        if (manifest["kind"], manifest["metadata"]["name"])
        == (patch["target"]["kind"], patch["target"]["name"])
    ]
    for operation in yaml.safe_load(patch["patch"]):
        if operation["op"] != "remove":
            raise Unsupported(f"patches: {operation['op']}")
        *parents, last = operation["path"].strip("/").split("/")
        for target in targets:
            for name in parents:
                target = target[name]
            del target[last]


def _add_labels(manifest: Manifest, labels: Mapping[str, Any]) -> None:
    _refuse_others(labels, {"pairs", "includeTemplates"}, "labels")
    owners = [manifest]
    if labels.get("includeTemplates") and manifest["kind"] in KINDS_WITH_TEMPLATE:
        owners.append(manifest["spec"]["template"])
    for owner in owners:
        owner.setdefault("metadata", {}).setdefault("labels", {}).update(labels["pairs"])


def _set_image(manifest: Manifest, image: Mapping[str, str]) -> None:
    _refuse_others(image, {"name", "newName", "newTag"}, "images")
    for container in _containers(manifest):
        name, _, tag = container["image"].partition(":")
        if name == image["name"]:
            tag = image.get("newTag", tag)
            container["image"] = ":".join(filter(None, [image.get("newName", name), tag]))


def _containers(manifest: Manifest) -> Iterator[dict[str, Any]]:
    if manifest["kind"] in KINDS_WITH_TEMPLATE:
        pod = manifest["spec"]["template"]["spec"]
        yield from pod.get("initContainers", [])
        yield from pod["containers"]


def _set_namespace_of_subjects(manifests: list[Manifest]) -> None:
    accounts = {
        manifest["metadata"]["name"]: manifest["metadata"]["namespace"]
        for manifest in manifests
        if manifest["kind"] == "ServiceAccount"
    }
    for manifest in manifests:
        for subject in manifest.get("subjects", []):
            if subject["kind"] == "ServiceAccount" and subject["name"] in accounts:
                subject["namespace"] = accounts[subject["name"]]


def _refuse_others(fields: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := set(fields) - known:
        raise Unsupported(f"{where}: {', '.join(sorted(unknown))}")
