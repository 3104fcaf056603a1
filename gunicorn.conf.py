"""The server: which worker, how many threads, and when the gateway's background work runs."""

import os
import shutil
import sys
import tempfile
from typing import Any

import logs
from cache.kubeconfig import SourceUnavailable
from settings import Settings, SettingsError

#: Threads beyond those that answer inference requests: probes and refusals never wait for them.
SPARE_THREADS = 8


def _settings() -> Settings:
    """Read the settings and try the source, so that a mistake ends the start with one line."""
    try:
        settings = Settings.from_environ(os.environ)
        if settings.source_file is None:
            from cache.kubernetes import KubernetesSource  # takes 0.3 s, and a file needs none

            KubernetesSource(settings.namespace, settings.selector)
    except (SettingsError, SourceUnavailable) as error:
        print(f"gateway: {error}", file=sys.stderr)
        sys.exit(2)
    return settings


_chosen = _settings()

# Every worker counts in files of this directory (`metrics.py`) and has its socket there.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="gateway-")

wsgi_app = "gateway:from_environ()"
bind = f"0.0.0.0:{_chosen.port}"
worker_class = "proxy.worker.GatewayWorker"
workers = _chosen.workers
threads = _chosen.threads + SPARE_THREADS
worker_connections = 2 * threads + 1000
backlog = 2048
keepalive = 75
timeout = 60
# The gateway ends what still runs when its grace is over; only then may the arbiter kill.
graceful_timeout = int(_chosen.grace_seconds) + 10
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - heartbeats
control_socket_disable = True
http_parser = "python"
# What a client says of itself is not believed: no trusted proxies.
forwarded_allow_ips = ""
limit_request_line = 8190
limit_request_fields = 100
logconfig_dict = logs.configuration(_chosen.log_level)
accesslog = None


def when_ready(server: Any) -> None:
    """Listening already: import what every worker needs, so that a new one is there at once."""
    import gateway

    server.log.debug("imported %s", gateway.__name__)


def post_worker_init(worker: Any) -> None:
    """Start the background work, after the fork: threads do not survive one."""
    worker.wsgi.gateway.start()


def child_exit(server: Any, worker: Any) -> None:
    """A worker is gone: what it had in flight is no longer."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Leave nothing behind."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
