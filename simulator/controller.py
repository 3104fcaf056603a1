"""The EndpointSlice controller: pods' conditions become entries of a Service's slices."""

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from simulator.registry import Registry
from simulator.serialiser import TRIGGER_TIME, timestamp

MODEL_LABEL = "model.aibrix.ai/name"
PORT_LABEL = "model.aibrix.ai/port"
METRICS_PORT_LABEL = "model.aibrix.ai/metric-port"
PER_SLICE = 100
_NAME_CHARACTERS = "bcdfghjklmnpqrstvwxz2456789"
_RANDOM = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Entry:
    """What the controller knows of one pod; `passing` is its readiness probe's verdict."""

    pod: str
    uid: str
    address: str
    node: str
    zone: str
    passing: bool = False
    terminating: bool = False

    def content(self, namespace: str, *, publish_not_ready: bool) -> dict[str, Any]:
        """It as an endpoint of a slice."""
        ready = publish_not_ready or (self.passing and not self.terminating)
        return {
            "addresses": [self.address],
            "conditions": {
                "ready": ready,
                "serving": self.passing,
                "terminating": self.terminating,
            },
            "targetRef": {
                "kind": "Pod",
                "namespace": namespace,
                "name": self.pod,
                "uid": self.uid,
            },
            "nodeName": self.node,
            "zone": self.zone,
        }


@dataclass(slots=True, eq=False)
class _Slice:
    name: str
    entries: dict[str, Entry] = field(default_factory=dict)  # by pod, oldest first


class SliceController:
    """Keeps the slices of one Service. Used on the loop's thread only."""

    def __init__(
        self,
        registry: Registry,
        service: str,
        labels: Mapping[str, str],
        ports: Sequence[tuple[str, int]],
        *,
        publish_not_ready: bool = False,
    ) -> None:
        self._registry = registry
        self._service = service
        self._uid = str(uuid4())
        self._labels = dict(labels)
        self._ports = [{"name": name, "protocol": "TCP", "port": port} for name, port in ports]
        self._publish_not_ready = publish_not_ready
        self._slices = [self._new_slice()]
        self._put(self._slices[0], triggered=True)

    def show(self, entries: Iterable[Entry], *, triggered: bool = True) -> float | None:
        """Add or change entries; returns the monotonic time they became visible.

        None when there was nothing to change.

        `triggered` is whether a pod's condition moved, which real slices tell in an annotation.
        """
        changed = {}
        for entry in entries:
            home = self._home_of(entry.pod)
            if home.entries.get(entry.pod) != entry:
                home.entries[entry.pod] = entry
                changed[home.name] = home
        return self._write(changed.values(), triggered=triggered) if changed else None

    def remove(self, pods: Iterable[str]) -> float:
        """Remove entries; returns the monotonic time at which they were gone."""
        changed = {}
        for pod in pods:
            for each in self._slices:
                if each.entries.pop(pod, None):
                    changed[each.name] = each
        return self._write(changed.values(), triggered=False)

    def relabel(self, labels: Mapping[str, str]) -> None:
        """Give the Service, and so its slices, other labels."""
        self._labels = dict(labels)
        self._write(list(self._slices), triggered=False)

    def delete(self) -> None:
        """Delete the Service and with it every slice."""
        for each in self._slices:
            self._registry.delete(each.name)
        self._slices = []

    def _home_of(self, pod: str) -> _Slice:
        for each in self._slices:
            if pod in each.entries:
                return each
        for each in self._slices:
            if len(each.entries) < PER_SLICE:
                return each
        self._slices.append(self._new_slice())
        return self._slices[-1]

    def _write(self, changed: Iterable[_Slice], *, triggered: bool) -> float:
        for each in changed:
            # one slice always stays: the empty placeholder of a Service without pods
            if each.entries or len(self._slices) == 1:
                self._put(each, triggered=triggered)
            else:
                self._slices.remove(each)
                self._registry.delete(each.name)
        return time.monotonic()

    def _new_slice(self) -> _Slice:
        return _Slice(f"{self._service}-{''.join(_RANDOM.choices(_NAME_CHARACTERS, k=5))}")

    def _put(self, each: _Slice, *, triggered: bool) -> None:
        namespace, publish = self._registry.namespace, self._publish_not_ready
        owner = {
            "apiVersion": "v1",
            "kind": "Service",
            "name": self._service,
            "uid": self._uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        metadata = {
            "name": each.name,
            "generateName": f"{self._service}-",
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": self._service,
                **({"service.kubernetes.io/headless": ""} if publish else {}),
                **self._labels,
            },
            "annotations": {TRIGGER_TIME: timestamp()} if triggered else None,
            "ownerReferences": [owner],
        }
        raw = {
            "metadata": metadata,
            "addressType": "IPv4",
            "endpoints": [
                entry.content(namespace, publish_not_ready=publish)
                for entry in each.entries.values()
            ],
            "ports": self._ports if each.entries else None,
        }
        self._registry.put(raw, manager="kube-controller-manager")
