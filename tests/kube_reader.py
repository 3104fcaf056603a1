"""Reads an EndpointSlice API over plain sockets, for tests that look at bytes."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from simulator.apiserver import TOKEN, ApiServer

SLICES = "/apis/discovery.k8s.io/v1/namespaces/models/endpointslices"
ON_MODELS = "labelSelector=model.aibrix.ai/name"


@dataclass(frozen=True)
class Answer:
    """One answer, read in full."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.json["items"]]


def connect(api: ApiServer, timeout: float = 5.0) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(api.address, api.port, timeout=timeout)


def get(
    api: ApiServer,
    query: str = "",
    *,
    token: str | None = TOKEN,
    path: str = SLICES,
    method: str = "GET",
    timeout: float = 5.0,
) -> Answer:
    """One request on a connection of its own."""
    connection = connect(api, timeout)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        target = path + ("?" + quote(query, safe="=&%/!,()") if query else "")
        connection.request(method, target, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class OpenWatch:
    """A watch in progress."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response = response

    def line(self) -> bytes:
        """The next line as it came; empty at a clean end."""
        return self.response.readline()

    def event(self) -> tuple[str, Any]:
        """The next event: its type and object."""
        event = json.loads(self.line())
        return event["type"], event["object"]


@contextmanager
def watching(
    api: ApiServer, query: str = ON_MODELS, *, timeout: float = 5.0
) -> Iterator[OpenWatch]:
    """An open watch; `timeout` is how long reading one line may take."""
    connection = connect(api, timeout)
    try:
        target = f"{SLICES}?watch=1&{quote(query, safe='=&%/!,()')}"
        connection.request("GET", target, headers={"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        with response:
            yield OpenWatch(response)
    finally:
        connection.close()


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until `condition` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.002)
