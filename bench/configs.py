"""The configuration files of what is compared."""

import json
from pathlib import Path

NGINX = """\
{user}worker_processes 1;
worker_rlimit_nofile 16384;
daemon off;
pid nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 100000000;
    upstream model {{
        server 127.0.0.1:{upstream};
        keepalive 512;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""

FLOOR = """\
wsgi_app = "bench.floor:app"
pythonpath = {root!r}
bind = "127.0.0.1:{port}"
worker_class = "gthread"
workers = 1
threads = {threads}
worker_connections = {connections}
keepalive = 75
backlog = 2048
control_socket_disable = True
"""


def nginx(port: int, upstream: int, directory: Path, user: str | None) -> str:
    """One worker that streams, keeps its connections, and logs each request as the gateway does.

    `user` is who the worker runs as where the master is root: else it can't use `directory`.
    """
    (directory / "body").mkdir(exist_ok=True)
    return NGINX.format(
        port=port, upstream=upstream, user=f"user {user};\n" if user is not None else ""
    )


def floor(port: int, threads: int, root: Path) -> str:
    """Gunicorn's own threaded worker, with a thread for each stream."""
    return FLOOR.format(port=port, threads=threads, connections=2 * threads + 1000, root=str(root))


def slices(model: str, port: int) -> str:
    """The list of one EndpointSlice with one ready endpoint on the loopback address."""
    item = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{model}-1",
            "namespace": "models",
            "labels": {"kubernetes.io/service-name": model, "model.aibrix.ai/name": model},
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": ["127.0.0.1"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "namespace": "models", "name": f"{model}-0"},
            }
        ],
        "ports": [{"name": "http", "protocol": "TCP", "port": port}],
    }
    document = {"apiVersion": "v1", "kind": "List", "items": [item]}
    return json.dumps(document, indent=1)
