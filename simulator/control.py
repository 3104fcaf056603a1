"""The side door: a running cluster is looked at and handled over HTTP, below /simulator."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from simulator.apicall import ApiCall
from simulator.fleet import Pod

if TYPE_CHECKING:
    from simulator.cluster import Cluster
    from simulator.model import Model


def _start(pod: Pod) -> None:
    pod.start()
    pod.load()


POD_ACTIONS: dict[str, Callable[[Pod], None]] = {
    "start": _start,
    "ready": Pod.become_ready,
    "fail": Pod.fail_probe,
    "terminate": Pod.terminate,
    "crash": Pod.crash,
}


class Control:
    """Does what requests below /simulator ask of a cluster.

    `GET /simulator` describes it; `POST /simulator/pods/NAME/ACTION` and
    `POST /simulator/models/NAME/scale?count=N` change it. The answer is JSON, with `error` in
    it where something was refused. The work is done by `hands`: it waits for the loop.
    """

    def __init__(self, cluster: "Cluster", hands: ThreadPoolExecutor) -> None:
        self._cluster = cluster
        self._hands = hands

    async def answer(self, call: ApiCall) -> None:
        """Answer one request."""
        loop = asyncio.get_running_loop()
        try:
            done = await loop.run_in_executor(self._hands, self._do, call)
        except KeyError as unknown:
            await call.answer_json({"error": f"there is no {unknown.args[0]}"}, 404)
        except (ValueError, RuntimeError) as refused:
            await call.answer_json({"error": str(refused)}, 400)
        else:
            await call.answer_json(done)

    def _do(self, call: ApiCall) -> dict[str, Any]:
        match call.request.method, call.request.path.strip("/").split("/"):
            case "GET", ["simulator"]:
                return self._describe()
            case "POST", ["simulator", "pods", name, action] if action in POD_ACTIONS:
                pod = self._cluster.pod(name)
                POD_ACTIONS[action](pod)
                return _describe_pod(pod)
            case "POST", ["simulator", "models", name, "scale"]:
                count = call.query.get("count", "")
                if not count.isdecimal():
                    raise ValueError(f"count is {count!r}, it must be a number from 0")
                self._model(name).scale(int(count))
                return self._describe()
        raise KeyError(f"{call.request.method} {call.request.path}")

    def _model(self, name: str) -> "Model":
        for model in self._cluster.models.values():
            if name in (model.name, model.spec.service):
                return model
        raise KeyError(f"model {name}")

    def _describe(self) -> dict[str, Any]:
        models = [
            {"name": model.name, "pods": [_describe_pod(pod) for pod in model.pods]}
            for model in self._cluster.models.values()
        ]
        return {"namespace": self._cluster.namespace, "models": models}


def _describe_pod(pod: Pod) -> dict[str, Any]:
    return {
        "name": pod.name,
        "address": f"{pod.address}:{pod.port}",
        "process": pod.process.state if pod.process else "none",
        "slice": pod.condition,
        "requests": len(pod.process.requests) if pod.process else 0,
    }
