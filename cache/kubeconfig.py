"""Which API server, which credentials, which namespace: the pod's own, else the kubeconfig's."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.config.incluster_config import InClusterConfigLoader
from kubernetes.config.kube_config import KubeConfigMerger

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_TOKEN = "BearerToken"  # noqa: S105 - the client's name for where it keeps it


class SourceUnavailable(Exception):
    """There is nothing to connect to; says what was looked for and where."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the way to the API server is described: a pod's service account, else a kubeconfig."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    service_account: Path = SERVICE_ACCOUNT

    def configure(self, configuration: client.Configuration) -> None:
        """Fill `configuration`, credentials included.

        Raises `SourceUnavailable` where neither a service account nor a kubeconfig is usable.
        """
        try:
            if self.in_cluster:
                InClusterConfigLoader(
                    token_filename=str(self.service_account / "token"),
                    cert_filename=str(self.service_account / "ca.crt"),
                    environ=self.environ,
                ).load_and_set(configuration)
            else:
                config.load_kube_config(
                    self.kubeconfig, client_configuration=configuration, persist_config=False
                )
                self._refuse_an_empty_token_file(configuration)
            trim_token(configuration)
        # The client does not check a kubeconfig's shape, and stumbles over it in many ways.
        except (
            config.ConfigException,
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
            yaml.YAMLError,
        ) as error:
            raise SourceUnavailable(self._complaint(error)) from error

    def namespace(self) -> str:
        """The pod's namespace, else that of the kubeconfig's current context, else `default`.

        Raises `SourceUnavailable` in a pod that can't tell. Call `configure` first: it says what
        is wrong with a kubeconfig.
        """
        if not self.in_cluster:
            _, active = config.list_kube_config_contexts(self.kubeconfig)
            return str(active["context"].get("namespace") or "default")
        path = self.service_account / "namespace"
        try:
            name = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise SourceUnavailable(
                f"no namespace: looked for GATEWAY_NAMESPACE and in {path}: {error}"
            ) from error
        return name or "default"

    @property
    def in_cluster(self) -> bool:
        """Whether this is a pod that was given a service account."""
        token = self.service_account / "token"
        return "KUBERNETES_SERVICE_HOST" in self.environ and token.exists()

    @property
    def kubeconfig(self) -> str:
        """Where the kubeconfig is looked for; several paths may be joined by colons."""
        home = self.environ.get("HOME") or Path.home()
        return self.environ.get("KUBECONFIG") or str(Path(home) / ".kube" / "config")

    def _refuse_an_empty_token_file(self, configuration: client.Configuration) -> None:
        """Raise `ConfigException` for one: the client would go on without any credentials."""
        if _TOKEN in configuration.api_key:
            return
        merged = KubeConfigMerger(self.kubeconfig).config
        _, active = config.list_kube_config_contexts(self.kubeconfig)
        user = merged["users"].get_with_name(active["context"].get("user"), safe=True)
        if user is not None and "tokenFile" in user["user"]:
            raise config.ConfigException("the token file is empty")

    def _complaint(self, error: Exception) -> str:
        where = self.service_account if self.in_cluster else self.kubeconfig
        reason = " ".join(str(error).split()) or type(error).__name__
        return (
            f"no access to Kubernetes: looked for a service account in {self.service_account} and "
            f"a kubeconfig at {self.kubeconfig} (KUBECONFIG); {where} can't be used: {reason}. "
            "GATEWAY_SOURCE=file:PATH reads EndpointSlices from a file instead"
        )


def trim_token(configuration: Any) -> None:  # its types do not know the hook
    """Take what no header can carry off the token, now and whenever the client reads it again.

    A file's final newline is usual, and the client passes it on. Raises `ConfigException` for a
    token that is none (RFC 6750, 2.1); its text appears in no message.
    """
    token = str(configuration.api_key.get(_TOKEN) or "").strip()
    if token:
        if token.lower() == "bearer":  # the scheme alone
            raise config.ConfigException("the token is blank")
        if not (token.isascii() and token.isprintable()):
            raise config.ConfigException("the token has characters that no token has")
        configuration.api_key[_TOKEN] = token
    read_again = configuration.refresh_api_key_hook
    if read_again is None:
        return

    def refresh(current: client.Configuration) -> None:
        try:
            read_again(current)  # which puts itself back as the hook
        except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise config.ConfigException(str(error)) from error  # a plugin may print anything
        trim_token(current)

    configuration.refresh_api_key_hook = refresh
