"""Which API server, which credentials, which namespace: the pod's own, else the kubeconfig's."""

import os
from pathlib import Path

import yaml
from kubernetes import client, config

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class SourceUnavailable(Exception):
    """There is nothing to connect to; says what was looked for and where."""


def load_configuration(configuration: client.Configuration) -> None:
    """Fill `configuration`, credentials included.

    Raises `SourceUnavailable` where neither a service account nor a kubeconfig is usable.
    """
    try:
        if _in_cluster():
            config.load_incluster_config(configuration)
        else:
            config.load_kube_config(
                _kubeconfig(), client_configuration=configuration, persist_config=False
            )
    except (config.ConfigException, OSError, ValueError, TypeError, yaml.YAMLError) as error:
        where = SERVICE_ACCOUNT if _in_cluster() else _kubeconfig()
        reason = " ".join(str(error).split())
        raise SourceUnavailable(
            f"no access to Kubernetes: looked for a service account in {SERVICE_ACCOUNT} and a "
            f"kubeconfig at {_kubeconfig()} (KUBECONFIG); {where} can't be used: {reason}. "
            "GATEWAY_SOURCE=file:PATH reads EndpointSlices from a file instead"
        ) from error


def own_namespace() -> str:
    """The namespace of the pod, else of the kubeconfig's current context, else `default`."""
    if _in_cluster():
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or "default"
    _, active = config.list_kube_config_contexts(_kubeconfig())
    return str(active["context"].get("namespace") or "default")


def _in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists()


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
