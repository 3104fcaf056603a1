"""The server: which worker, how many threads, and when the gateway's background work runs."""

import atexit
import contextlib
import fcntl
import gc
import glob
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import logs
from cache.kubeconfig import SourceUnavailable
from settings import Settings, SettingsError

#: Threads beyond those that inference requests may take: refusals never wait for them.
SPARE_THREADS = 8


def _settings(*, try_source: bool) -> Settings:
    """Read the settings and try the source, so that a mistake ends the start with one line."""
    try:
        settings = Settings.from_environ(os.environ)
        if try_source and settings.source_file is None:
            from cache.kubernetes import KubernetesSource  # takes 0.3 s, and a file needs none

            KubernetesSource(settings.namespace, settings.selector).connect()
    except (SettingsError, SourceUnavailable) as error:
        print(f"gateway: {error}", file=sys.stderr)
        sys.exit(2)
    return settings


def _remove_directory(path: str, owner: int) -> None:
    """Leave nothing behind, however the start or the end went."""
    if os.getpid() == owner:  # a worker inherits this, and ends before the arbiter
        shutil.rmtree(path, ignore_errors=True)


def _most_connections() -> int:
    """As many clients as there are file descriptors for, with one more each for its endpoint.

    An eighth is left to connections that idle, and what the gateway itself needs. Of those that
    there may be the worker keeps some for saying that there are no more.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(1, (most - most // 8 - min(100, most // 2)) // 2)


def _open_standard_streams() -> None:
    """Put what takes everything in the place of standard streams that are closed.

    Else a socket would get such a number, and `sys.stdout` be None.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it is the first free number
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - open until the end
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - the same


_open_standard_streams()

# Every worker counts in files of this directory (`metrics.py`) and has its socket there. It is
# always our own, because it is removed at the end; a reload, which reads this file again, keeps it.
_prefix = f"gateway-{os.getpid()}-"
_directory_prefix = os.path.join(tempfile.gettempdir(), _prefix)
_reloading = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "").startswith(_directory_prefix)
# A token that is missing at this moment must not end a gateway that runs.
_chosen = _settings(try_source=not _reloading)
if not _reloading:
    # A container that was killed left its own behind, under the same process id.
    for _left in glob.glob(f"{_directory_prefix}*"):
        shutil.rmtree(_left, ignore_errors=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=_prefix)
    atexit.register(_remove_directory, os.environ["PROMETHEUS_MULTIPROC_DIR"], os.getpid())

wsgi_app = "gateway:from_environ()"
bind = f"0.0.0.0:{_chosen.port}"
worker_class = "proxy.worker.GatewayWorker"
workers = _chosen.workers
threads = _chosen.threads + SPARE_THREADS
worker_connections = _most_connections()
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
logs.keep_no_origins()
logconfig_dict = logs.configuration(_chosen.log_level)
accesslog = None


def when_ready(server: Any) -> None:
    """Listening already: import what every worker needs, so that a new one is there at once."""
    import gunicorn.arbiter
    from prometheus_client.multiprocess import mark_process_dead

    import gateway
    from tracing.environment import prepare

    server.log.debug("imported %s", gateway.__name__)
    prepare(os.environ)
    # Its patience with workers that stop goes by `time.time`: a jump would kill what still runs.
    gunicorn.arbiter.time = SimpleNamespace(
        time=time.monotonic, monotonic=time.monotonic, sleep=time.sleep
    )
    mark_process_dead(os.getpid())  # the arbiter has gauges too now, but nothing to say with them


def _enlarge_descriptor_table() -> None:
    """Let the kernel's table of this process's descriptors be as large as it may get.

    It doubles as it fills. Once there are threads, whoever opens the descriptor that is one too
    many waits until no core can look at the former table (`expand_fdtable` in Linux' fs/file.c):
    4 to 18 ms for the whole loop at 64, 128, 256 … descriptors. Here there are none yet.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # If that number is taken, the table is as large already; if the kernel has no memory for such
    # a table, it grows as ever.
    with contextlib.suppress(OSError):
        os.close(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, most - 1))


def post_fork(server: Any, worker: Any) -> None:
    """In the worker, first thing: where signals land at first, descriptors, where it counts."""
    from metrics import make_files

    worker.early_signals = server.SIG_QUEUE
    _enlarge_descriptor_table()
    make_files(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))


def post_worker_init(worker: Any) -> None:
    """Start the background work, after the fork: threads do not survive one."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logs.LineWriter):
            handler.start()
    worker.wsgi.gateway.start()
    gc.collect()
    gc.freeze()


def worker_exit(server: Any, worker: Any) -> None:
    """In the worker, at its end: its peers need not ask it any more."""
    if worker.wsgi is not None:
        worker.wsgi.gateway.stop()
    for handler in logging.getLogger().handlers:
        handler.flush()


def child_exit(server: Any, worker: Any) -> None:
    """A worker is gone: what it had in flight is no longer."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)
