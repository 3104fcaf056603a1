"""Kubeconfig files that Kubernetes' own clients read."""

import json
from pathlib import Path


def write_kubeconfig(
    path: str | Path,
    *,
    server: str,
    namespace: str,
    token: str,
    token_file: str | Path | None = None,
) -> Path:
    """Write a kubeconfig for `server` and return its path.

    With `token_file` the token goes there and the kubeconfig points to it, as in a pod.
    """
    user = {"token": token}
    if token_file is not None:
        Path(token_file).write_text(token)  # a final newline would reach the header
        user = {"tokenFile": str(Path(token_file).resolve())}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "simulator",
        "clusters": [{"name": "simulator", "cluster": {"server": server}}],
        "users": [{"name": "simulator", "user": user}],
        "contexts": [
            {
                "name": "simulator",
                "context": {"cluster": "simulator", "user": "simulator", "namespace": namespace},
            }
        ],
    }
    # JSON is YAML too, and needs no library here
    Path(path).write_text(json.dumps(config, indent=2) + "\n")
    return Path(path)
