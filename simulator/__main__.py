"""The simulator's command line: run a pretend cluster, and handle one that runs."""

import argparse
import http.client
import json
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from simulator.cluster import Cluster
from simulator.control import POD_ACTIONS

ADDRESS = "127.0.0.1"
PORT = 8001


class CommandError(Exception):
    """Something the user can put right; told in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except CommandError as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run a cluster until Ctrl-C or SIGTERM")
    serve.add_argument("--api-port", type=_port, default=PORT, metavar="N")
    serve.add_argument("--models", default="chat=2", metavar="NAME=PODS,...", type=_models)
    serve.add_argument("--kubeconfig", metavar="PATH", help="write a kubeconfig for it there")
    serve.set_defaults(run=_serve)

    remote = argparse.ArgumentParser(add_help=False)
    remote.add_argument("--api", default=f"http://{ADDRESS}:{PORT}", metavar="URL")

    pod = commands.add_parser("pod", parents=[remote], help="change one pod")
    pod.add_argument("name")
    pod.add_argument("action", choices=POD_ACTIONS)
    pod.set_defaults(run=_pod)

    scale = commands.add_parser("scale", parents=[remote], help="have N pods of a model")
    scale.add_argument("model")
    scale.add_argument("count", type=int, metavar="N")
    scale.set_defaults(run=_scale)

    pods = commands.add_parser("list", parents=[remote], help="list all pods")
    pods.set_defaults(run=_list)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _models(text: str) -> dict[str, int]:
    models = {}
    for part in text.split(","):
        name, separator, count = part.partition("=")
        if not name or (separator and not count.isdecimal()):
            raise argparse.ArgumentTypeError(f"{part!r} is not NAME=PODS")
        models[name] = int(count or 1)
    return models


def _serve(options: argparse.Namespace) -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with Cluster(api_address=ADDRESS, api_port=options.api_port) as cluster:
            for name, pods in options.models.items():
                cluster.model(name, pods)
            print(f"API of namespace {cluster.namespace} at {cluster.api.url}", flush=True)
            if options.kubeconfig:
                cluster.kubeconfig(options.kubeconfig)
                print(f"KUBECONFIG={options.kubeconfig}", flush=True)
            for model in cluster.models.values():
                for pod in model.pods:
                    print(f"{pod.name} at {pod.address}:{pod.port}", flush=True)
            stopped.wait()
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error


def _pod(options: argparse.Namespace) -> None:
    _print_pod(_ask(options.api, "POST", f"/pods/{quote(options.name)}/{options.action}"))


def _scale(options: argparse.Namespace) -> None:
    path = f"/models/{quote(options.model, safe='')}/scale?count={options.count}"
    _print_models(_ask(options.api, "POST", path))


def _list(options: argparse.Namespace) -> None:
    _print_models(_ask(options.api, "GET", ""))


def _ask(api: str, method: str, path: str) -> dict[str, Any]:
    """What the cluster at `api` answers. Raises `CommandError`."""
    connection = _connection(api)
    try:
        connection.request(method, f"/simulator{path}")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CommandError(f"no simulator answers at {api}: {error}") from error
    finally:
        connection.close()
    if "error" in answer:
        raise CommandError(answer["error"])
    return answer


def _connection(api: str) -> http.client.HTTPConnection:
    try:
        place = urlsplit(api)
        if place.scheme == "http" and place.hostname:
            return http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    except ValueError as error:
        raise CommandError(f"{api} is not the URL of a simulator: {error}") from error
    raise CommandError(f"{api} is not the URL of a simulator")


def _print_models(answer: dict[str, Any]) -> None:
    for model in answer["models"]:
        for pod in model["pods"]:
            _print_pod(pod)


def _print_pod(pod: dict[str, Any]) -> None:
    print(
        f"{pod['name']:24} {pod['address']:22} process {pod['process']:12} "
        f"slice {pod['slice']:12} {pod['requests']} requests"
    )


if __name__ == "__main__":
    sys.exit(main())
