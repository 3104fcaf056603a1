"""One model's Service and its pods."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from uuid import uuid4

from simulator.controller import METRICS_PORT_LABEL, MODEL_LABEL, PORT_LABEL, Entry, SliceController
from simulator.fleet import Pod
from simulator.loop import BackgroundLoop
from simulator.pod import Engine, ModelPod
from simulator.registry import Registry


class SliceChange(NamedTuple):
    """One change of a pod's entry: when the API showed it (monotonic seconds), and what."""

    at: float
    pod: str
    what: str  # not ready, ready, terminating, removed


@dataclass(frozen=True, slots=True)
class Site:
    """What all models of a cluster share."""

    loop: BackgroundLoop
    registry: Registry
    history: list[SliceChange]
    draw_address: Callable[[bool], str]  # with a process or without; on the loop's thread
    tasks: set["asyncio.Task[None]"]
    lag: float  # seconds from a process' change to the slice's


def two_zones(index: int) -> str:
    """Pods spread over two zones, by turns."""
    return f"zone-{'ab'[index % 2]}"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How a model is deployed. `extra_ports` stand before the model's own in the slices.

    With a `metrics_port` pods serve `/metrics` on that port only, and a label says so.
    """

    name: str
    service: str
    port: int = 8000
    port_name: str = "http"
    label: bool = True
    publish_not_ready: bool = False
    engine: Engine = field(default_factory=Engine)
    processes: bool = True
    zone_of: Callable[[int], str] = two_zones
    extra_ports: Sequence[tuple[str, int]] = ()
    metrics_port: int | None = None


def service_name(model: str) -> str:
    """A name that a Service may have, for a model that may have any."""
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") or "model"


class Model:
    """A model's Service and pods. Public methods may be called from any thread."""

    def __init__(self, site: Site, spec: ModelSpec) -> None:
        self.spec = spec
        self.name, self.port = spec.name, spec.port
        self.loop, self.lag = site.loop, site.lag
        self._site = site
        self._pods: list[Pod] = []  # changed on the loop's thread only
        self._drawn = 0
        self._controller = self.loop.call(self._create_service)

    @property
    def pods(self) -> list[Pod]:
        """Its pods, oldest first, terminating ones included."""
        return list(self._pods)

    def add_pod(self, *, ready: bool = True) -> Pod:
        """Run one more pod; without `ready` it stays loading."""
        return self.add_pods(1, ready=ready)[0]

    def add_pods(self, count: int, *, ready: bool = True) -> list[Pod]:
        """Run `count` more pods; their entries appear together."""
        pods = self.loop.call(lambda: [self._create() for _ in range(count)])
        self.loop.run(self._run(pods, ready))
        return pods

    def create_pod(self) -> Pod:
        """Create a pod that is pending: no process, no entry. `Pod.start` moves it on."""
        return self.loop.call(self._create)

    def scale(self, count: int) -> None:
        """Have `count` pods that are not terminating: new ones run, the youngest go."""
        pods = [pod for pod in self.pods if not pod.entry.terminating]
        if len(pods) < count:
            self.add_pods(count - len(pods))
        for pod in pods[count:]:
            pod.terminate()

    def relabel(self, model: str | None) -> None:
        """Change the Service's model label, or with None remove its labels."""
        self.loop.call(self._controller.relabel, self._labels(model))

    def delete(self) -> None:
        """Delete the Service; its pods run on, in no slice."""
        self.loop.call(self._controller.delete)

    def show(self, pods: Sequence[Pod], what: str, *, triggered: bool = True) -> None:
        """Publish the pods' entries as they are now. On the loop's thread only."""
        at = self._controller.show([pod.entry for pod in pods], triggered=triggered)
        if at is None:
            return
        for pod in pods:
            pod.changed_at = at
            self._site.history.append(SliceChange(at, pod.name, what))

    def take_out(self, pod: Pod) -> float:
        """Remove the pod and its entry; returns when. On the loop's thread only."""
        self._pods.remove(pod)
        at = self._controller.remove([pod.name])
        self._site.history.append(SliceChange(at, pod.name, "removed"))
        return at

    def defer(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` run on the loop until it is done or the cluster ends."""
        self.loop.call(self._start_task, work)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._site.tasks.add(task)
        task.add_done_callback(self._site.tasks.discard)

    def _labels(self, model: str | None) -> dict[str, str]:
        if model is None:
            return {}
        labels = {MODEL_LABEL: model, PORT_LABEL: str(self.port)}
        if self.spec.metrics_port is not None:
            labels[METRICS_PORT_LABEL] = str(self.spec.metrics_port)
        return labels

    def _create_service(self) -> SliceController:
        return SliceController(
            self._site.registry,
            self.spec.service,
            self._labels(self.name if self.spec.label else None),
            [*self.spec.extra_ports, (self.spec.port_name, self.port)],
            publish_not_ready=self.spec.publish_not_ready,
        )

    def _create(self) -> Pod:
        index, self._drawn = self._drawn, self._drawn + 1
        name = f"{self.spec.service}-{index}"
        address = self._site.draw_address(self.spec.processes)
        zone = self.spec.zone_of(index)
        entry = Entry(name, str(uuid4()), address, f"node-{zone.removeprefix('zone-')}", zone)
        process = None
        if self.spec.processes:
            process = ModelPod(
                self.loop,
                name,
                address,
                self.port,
                self.name,
                settings=self.spec.engine,
                metrics_port=self.spec.metrics_port,
            )
        pod = Pod(self, entry, process)
        self._pods.append(pod)
        return pod

    async def _run(self, pods: Sequence[Pod], ready: bool) -> None:
        for process in [pod.process.process for pod in pods if pod.process]:
            await process.start()
            await process.load()
            if ready:
                await process.become_ready()
        for pod in pods:
            pod.entry = replace(pod.entry, passing=ready)
        self.show(pods, "ready" if ready else "not ready")
