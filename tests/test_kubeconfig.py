"""Where the way to the API server is found, and what is said where it is not."""

import json
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from cache.kubeconfig import Access, SourceUnavailable, trim_token
from cache.kubernetes import KubernetesSource
from simulator.kubeconfig import write_kubeconfig

IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """The files of a pod's service account."""
    directory = tmp_path / "serviceaccount"
    directory.mkdir()
    (directory / "token").write_text("pod-token\n")
    (directory / "ca.crt").write_text("certificate")
    (directory / "namespace").write_text("models\n")
    return directory


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    return write_kubeconfig(
        tmp_path / "kubeconfig", server="https://k8s.test:6443", namespace="team", token="user"
    )


def configured(access: Access) -> Any:
    configuration = client.Configuration()
    access.configure(configuration)
    return configuration


def authorization(configuration: Any) -> str:
    """What would be sent now; the client reads its token again where it wants to."""
    return str(configuration.get_api_key_with_prefix("BearerToken"))


def test_in_a_pod_the_service_account_is_used_even_beside_a_kubeconfig(
    account: Path, kubeconfig: Path
) -> None:
    access = Access(IN_CLUSTER | {"KUBECONFIG": str(kubeconfig)}, account)
    configuration = configured(access)
    assert configuration.host == "https://10.96.0.1:443"
    assert configuration.ssl_ca_cert == str(account / "ca.crt")
    assert authorization(configuration) == "bearer pod-token"
    assert access.namespace() == "models"


def test_elsewhere_the_kubeconfig_is_used(account: Path, kubeconfig: Path) -> None:
    access = Access({"KUBECONFIG": str(kubeconfig)}, account)
    configuration = configured(access)
    assert configuration.host == "https://k8s.test:6443"
    assert authorization(configuration) == "Bearer user"
    assert access.namespace() == "team"


def test_a_pod_without_a_token_may_use_a_kubeconfig(account: Path, kubeconfig: Path) -> None:
    (account / "token").unlink()
    access = Access(IN_CLUSTER | {"KUBECONFIG": str(kubeconfig)}, account)
    assert authorization(configured(access)) == "Bearer user"


def test_without_kubeconfig_the_one_at_home_is_used(tmp_path: Path, kubeconfig: Path) -> None:
    (tmp_path / ".kube").mkdir()
    kubeconfig.rename(tmp_path / ".kube" / "config")
    access = Access({"HOME": str(tmp_path)}, tmp_path)
    assert authorization(configured(access)) == "Bearer user"


def test_a_context_without_a_namespace_means_default(kubeconfig: Path, tmp_path: Path) -> None:
    document = json.loads(kubeconfig.read_text())
    del document["contexts"][0]["context"]["namespace"]
    kubeconfig.write_text(json.dumps(document))
    assert Access({"KUBECONFIG": str(kubeconfig)}, tmp_path).namespace() == "default"


def test_a_namespace_that_was_chosen_is_not_looked_for(account: Path) -> None:
    (account / "namespace").unlink()
    source = KubernetesSource("chosen", "", access=Access(IN_CLUSTER, account))
    source.connect()
    assert source.namespace == "chosen"


def test_a_pod_that_can_not_tell_its_namespace_says_where_it_looked(account: Path) -> None:
    (account / "namespace").unlink()
    with pytest.raises(SourceUnavailable) as caught:
        KubernetesSource("", "", access=Access(IN_CLUSTER, account)).connect()
    assert "GATEWAY_NAMESPACE" in str(caught.value)
    assert str(account / "namespace") in str(caught.value)


def test_a_missing_kubeconfig_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(SourceUnavailable) as caught:
        configured(Access({"KUBECONFIG": str(missing)}, tmp_path / "account"))
    message = str(caught.value)
    for part in ("service account", str(tmp_path / "account"), "kubeconfig", str(missing)):
        assert part in message
    assert "GATEWAY_SOURCE=file:PATH" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "5",
        "text",
        "{",
        "a: [",
        "clusters: 5",
        "{}",
        '{"current-context": "a"}',
        '{"current-context": "a", "contexts": [{"name": "a"}]}',
        '{"current-context": "a", "contexts": [{"name": "a", "context": 5}], "clusters": []}',
        '{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "c"}}],'
        ' "clusters": [{"name": "c"}]}',
        '{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "c"}}],'
        ' "clusters": [{"name": "c", "cluster": {"server": 5}}]}',
        '{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "c",'
        ' "user": "u"}}], "clusters": [{"name": "c", "cluster": {"server": "https://a"}}],'
        ' "users": [{"name": "u", "user": {"tokenFile": "/nowhere/token"}}]}',
    ],
)
def test_an_unusable_kubeconfig_is_one_line_that_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(SourceUnavailable) as caught:
        configured(Access({"KUBECONFIG": str(path)}, tmp_path))
    assert f"{path} can't be used: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["token", "ca.crt"])
@pytest.mark.parametrize("content", ["", None])
def test_a_service_account_that_lacks_something_says_so(
    account: Path, name: str, content: str | None
) -> None:
    path = account / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(SourceUnavailable, match=str(account)):
        configured(Access(IN_CLUSTER | {"KUBECONFIG": "/nowhere"}, account))


def test_a_token_file_may_end_in_a_newline(tmp_path: Path) -> None:
    path = write_kubeconfig(
        tmp_path / "kubeconfig",
        server="http://k8s.test",
        namespace="team",
        token="rotated\n",
        token_file=tmp_path / "token",
    )
    configuration = configured(Access({"KUBECONFIG": str(path)}, tmp_path))
    for _ in range(3):  # each look may go through the client's refreshing
        assert authorization(configuration) == "Bearer rotated"


@pytest.mark.parametrize("token", ["se\ncret", "se\x00cret", "secré"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(
    account: Path, token: str
) -> None:
    (account / "token").write_text(token)
    with pytest.raises(SourceUnavailable) as caught:
        configured(Access(IN_CLUSTER, account))
    assert "token" in str(caught.value)
    assert token not in str(caught.value)
    assert "cret" not in str(caught.value)


def test_a_token_that_can_not_be_read_again_is_the_clients_own_kind_of_error() -> None:
    def read_again(current: Any) -> None:
        current.api_key["BearerToken"] = "Bearer " + Path("/nowhere/token").read_text()

    configuration: Any = client.Configuration()
    configuration.refresh_api_key_hook = read_again
    trim_token(configuration)
    with pytest.raises(config.ConfigException, match="/nowhere/token"):
        authorization(configuration)
