"""A pretend cluster: the EndpointSlice API and model pods, driven from synchronous code."""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from simulator.apiserver import TOKEN, ApiServer
from simulator.control import Control
from simulator.fleet import GRACE_SECONDS, Order, Pod
from simulator.kubeconfig import write_kubeconfig
from simulator.loop import BackgroundLoop
from simulator.model import Model, ModelSpec, Site, SliceChange, service_name, two_zones
from simulator.pod import Engine
from simulator.registry import Registry

_RANDOM = random.SystemRandom()
_CLAIM_PORT = 8000
LAG_SECONDS = 0.004  # what a real controller takes at the median


class Cluster:
    """One namespace with an API server and models; a context manager that starts and stops it.

    Every cluster has addresses of its own in 127.64.0.0/10, so that several can run side by
    side. `lag` is the time in seconds from a pod's change to the slice's. `history` lists the
    changes of pods' entries as they became visible.
    """

    def __init__(
        self,
        namespace: str = "models",
        *,
        lag: float = LAG_SECONDS,
        api_address: str | None = None,
        api_port: int = 0,
    ) -> None:
        self.namespace = namespace
        self.history: list[SliceChange] = []
        self.models: dict[str, Model] = {}
        self._lag = lag
        self._api_address = api_address
        self._api_port = api_port
        self._addresses = addresses_with_processes()
        self._fictions = _addresses_without()

    def __enter__(self) -> Self:
        api_address = self._api_address or next(self._addresses)
        self._loop = BackgroundLoop()
        self._registry = Registry(self.namespace)
        self._tasks: set[asyncio.Task[None]] = set()
        self._site = Site(
            self._loop, self._registry, self.history, self._draw_address, self._tasks, self._lag
        )
        self._hands = ThreadPoolExecutor(thread_name_prefix="simulator")
        self.api = ApiServer(self._loop, self._registry, api_address, self._api_port)
        self.api.open_side_door(Control(self, self._hands).answer)
        try:
            self.api.start()
        except BaseException:
            self._stop_loop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call(self._cancel_tasks)
        for model in self.models.values():
            for pod in model.pods:
                if pod.process:
                    pod.process.kill()
        self.api.stop()
        self._stop_loop()

    def model(
        self,
        name: str,
        pods: int = 1,
        *,
        ready: bool = True,
        port: int = 8000,
        service: str | None = None,
        label: bool = True,
        publish_not_ready: bool = False,
        engine: Engine | None = None,
        processes: bool = True,
        port_name: str = "http",
        extra_ports: Mapping[str, int] | None = None,
        zone_of: Callable[[int], str] | None = None,
        metrics_port: int | None = None,
    ) -> Model:
        """Deploy a model behind a Service, with `pods` pods running; without `ready`, loading.

        Without `label` the Service has no model labels, without `processes` the pods are entries
        only. Raises `ValueError` when the Service's name (by default the model's) is taken.
        """
        spec = ModelSpec(
            name,
            service or service_name(name),
            port,
            port_name,
            label,
            publish_not_ready,
            engine or Engine(),
            processes,
            extra_ports=tuple((extra_ports or {}).items()),
            zone_of=zone_of or two_zones,
            metrics_port=metrics_port,
        )
        if spec.service in self.models:
            raise ValueError(f"there is a Service {spec.service} already")
        model = self.models[spec.service] = Model(self._site, spec)
        model.add_pods(pods, ready=ready)
        return model

    def pod(self, name: str) -> Pod:
        """The pod of that name. Raises `KeyError`."""
        for model in self.models.values():
            for pod in model.pods:
                if pod.name == name:
                    return pod
        raise KeyError(f"pod {name}")

    def rolling_update(
        self,
        model: Model,
        *,
        order: Order | Literal["random"] = "slice-first",
        gap: float = 0.0,
        surge: int = 1,
        load_seconds: float = 0.0,
        dies: bool = False,
        grace: float = GRACE_SECONDS,
    ) -> None:
        """Replace every pod as a Deployment with `maxUnavailable: 0` does; returns when done.

        `surge` new pods at a time load for `load_seconds` and become ready; only then as many
        old ones are terminated. With order `random` each pod draws which of slice and process
        is first, and by up to `gap` seconds. `dies`: old processes die of their SIGTERM.
        """
        old = [pod for pod in model.pods if not pod.entry.terminating]
        for first in range(0, len(old), surge):
            leaving = old[first : first + surge]
            fresh = [model.create_pod() for _ in leaving]
            for pod in fresh:
                pod.run(ready=False)
            time.sleep(load_seconds)
            for pod in fresh:
                pod.become_ready()
            for pod in leaving:
                pod.terminate(*_draw_order(order, gap), grace=grace, dies=dies)
        for pod in old:
            pod.wait_gone(grace + 5.0)

    def put_slice(self, raw: Mapping[str, Any]) -> None:
        """Create or replace a slice written by hand; the server fills in its own metadata."""
        self._loop.call(self._registry.put, raw)

    def put_verbatim(self, key: str, content: object) -> None:
        """Store anything at all as the slice `key`; lists and watches show it as it is."""
        self._loop.call(self._registry.put_verbatim, key, content)

    def delete_slice(self, name: str) -> None:
        """Delete a slice. Raises `KeyError` when there is none."""
        self._loop.call(self._registry.delete, name)

    def kubeconfig(
        self,
        path: str | Path,
        *,
        token: str = TOKEN,
        namespace: str | None = None,
        token_file: str | Path | None = None,
    ) -> Path:
        """Write a kubeconfig for this cluster, the token inside or in `token_file`."""
        return write_kubeconfig(
            path,
            server=self.api.url,
            namespace=namespace or self.namespace,
            token=token,
            token_file=token_file,
        )

    def _draw_address(self, process: bool) -> str:
        return next(self._addresses if process else self._fictions)

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _stop_loop(self) -> None:
        self._hands.shutdown(wait=True, cancel_futures=True)
        self._loop.stop()


def addresses_with_processes(rng: random.Random = _RANDOM) -> Generator[str, None, None]:
    """Loopback addresses in a /24 of their own, then in a next one.

    A socket at its last address keeps other clusters out, those of other processes too.
    """
    while True:
        prefix = f"127.{rng.randint(64, 127)}.{rng.randint(0, 255)}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as claim:
            try:
                claim.bind((f"{prefix}.255", _CLAIM_PORT))
            except OSError:
                continue  # another cluster has it
            yield from (f"{prefix}.{last}" for last in range(1, 255))


def _addresses_without() -> Iterator[str]:
    """Loopback addresses where nothing listens."""
    for number in range(1 << 22):
        yield f"127.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def _draw_order(order: Order | Literal["random"], gap: float) -> tuple[Order, float]:
    if order != "random":
        return order, gap
    return _RANDOM.choice(("slice-first", "process-first")), _RANDOM.uniform(0.0, gap)
