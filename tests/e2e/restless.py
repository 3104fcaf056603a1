"""A big cluster that never rests, as a process of its own: what it costs is not its watchers'.

It is told by lines of standard input when to change and when to rest, and says then what it did.
"""

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from simulator.cluster import Cluster
from simulator.controller import MODEL_LABEL
from simulator.model import Model

#: One slice of each model: the API allows a hundred endpoints in it.
PODS = 100


def main() -> None:
    """`KUBECONFIG MODELS RATE BUSY ADDRESS:PORT…`: the model `BUSY` has pods that answer."""
    kubeconfig, models, rate, busy, *pods = sys.argv[1:]
    os.nice(3)  # a real one would have CPUs of its own
    with Cluster() as cluster:
        for pod in pods:
            cluster.put_slice(slice_of(busy, pod, ready=True))
        idle = [
            cluster.model(f"idle-{number}", pods=PODS, processes=False)
            for number in range(int(models))
        ]
        cluster.kubeconfig(kubeconfig)
        changes = changes_of(cluster, idle, busy, pods)
        say(changes=0, ready=ready_in(idle))
        while sys.stdin.readline():
            done = change_until_told(changes, float(rate))
            say(changes=done, ready=ready_in(idle))


def changes_of(
    cluster: Cluster, idle: list[Model], busy: str, pods: list[str]
) -> Iterator[Callable[[], object]]:
    """Without an end: a pod of each model fails, leaves, and another comes with a new address.

    Between these the pods that answer take turns in failing their probes.
    """
    for pod in itertools.cycle(pods):
        yield lambda pod=pod: cluster.put_slice(slice_of(busy, pod, ready=False))  # type: ignore[misc]
        for model in idle:
            yield model.pods[0].fail_probe
        yield lambda pod=pod: cluster.put_slice(slice_of(busy, pod, ready=True))  # type: ignore[misc]
        for model in idle:
            yield model.pods[0].remove
        for model in idle:
            yield model.add_pod


def change_until_told(changes: Iterator[Callable[[], object]], rate: float) -> int:
    """Make so many changes a second until the next line of standard input; return how many."""
    told = threading.Event()

    def listen() -> None:
        sys.stdin.readline()
        told.set()

    threading.Thread(target=listen, daemon=True).start()
    begun = time.monotonic()
    for done in itertools.count():
        if told.wait(max(0.0, begun + done / rate - time.monotonic())):
            return done
        next(changes)()
    raise AssertionError


def slice_of(model: str, pod: str, *, ready: bool) -> dict[str, object]:
    """A slice with one endpoint."""
    address, _, port = pod.rpartition(":")
    return {
        "metadata": {"name": f"{model}-{port}", "labels": {MODEL_LABEL: model}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready, "serving": ready}}],
        "ports": [{"name": "http", "port": int(port)}],
    }


def ready_in(models: list[Model]) -> int:
    """How many pods of these models pass their probes."""
    return sum(pod.entry.passing for model in models for pod in model.pods)


def say(**answer: int) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
