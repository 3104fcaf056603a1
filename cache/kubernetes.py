"""EndpointSlices from the Kubernetes API.

The official client supplies configuration, credentials and TLS. Its typed deserialiser is not
used: it rejects a whole list for one bad item. Nor are its defaults: no timeout, and retries that
urllib3 makes behind one's back.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from kubernetes import client, config

from cache.kubeconfig import SourceUnavailable, load_configuration, own_namespace
from cache.source import Event, Listing, SourceError, items_of

#: Seconds until the API server must have accepted a connection, and between two reads.
REQUEST_TIMEOUT = (2.0, 5.0)
#: Seconds one page may take altogether: a server that drips bytes never trips the read timeout.
PAGE_SECONDS = 10.0
#: Slices a page.
PAGE_LIMIT = 500
#: Bytes one page may have; 500 full slices have about 15 MB.
MAX_PAGE_BYTES = 64 * 2**20
#: How often an expired list is begun again before the poll counts as failed.
LIST_RESTARTS = 3

_KINDS = {401: "unauthorized", 403: "forbidden", 410: "expired", 429: "throttled"}


class KubernetesSource:
    """The EndpointSlice API of one namespace, through the official client's configuration.

    `namespace` empty means the pod's own, else the kubeconfig context's, else `default`.
    Raises `SourceUnavailable` where neither a service account nor a kubeconfig is found.
    """

    def __init__(
        self, namespace: str, selector: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._selector = selector
        self._clock = clock
        self._api = self._connect()
        self.namespace = namespace or own_namespace()

    def _connect(self) -> Any:  # typed, but not for what `_preload_content=False` returns
        configuration = client.Configuration()
        load_configuration(configuration)
        # urllib3 would retry three times behind our back, each with the full timeout.
        configuration.retries = False
        return client.DiscoveryV1Api(client.ApiClient(configuration))

    def renew_credentials(self) -> None:
        """Load the configuration afresh, token included; keep the old one if that fails."""
        try:
            self._api = self._connect()
        except SourceUnavailable as error:
            raise SourceError("unauthorized", str(error)) from error

    def list(self) -> Listing:
        """Read all pages of one list; a 410 between two pages begins it again."""
        for _ in range(LIST_RESTARTS):
            try:
                return self._list_pages()
            except SourceError as error:
                if error.kind != "expired":
                    raise
        raise SourceError("expired", f"the list expired {LIST_RESTARTS} times between its pages")

    def _list_pages(self) -> Listing:
        items: list[object] = []
        token: str | None = None
        while True:
            page = self._page(token)
            metadata = page.get("metadata") or {}
            items += items_of(page)
            token = metadata.get("continue") or None
            if token is None:
                return Listing(items, metadata.get("resourceVersion"))

    def _page(self, token: str | None) -> dict[str, Any]:
        options = {"limit": PAGE_LIMIT} | ({"_continue": token} if token else {})
        response = self._request(REQUEST_TIMEOUT, **options)
        try:
            body = self._read_page(response)
        finally:
            response.release_conn()
        try:
            page = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise SourceError("garbage", f"the API server's answer is no JSON: {error}") from error
        if not isinstance(page, dict) or not isinstance(page.get("metadata"), dict):
            raise SourceError("garbage", "the API server's answer is no EndpointSliceList")
        return page

    def _read_page(self, response: urllib3.HTTPResponse) -> bytes:
        deadline = self._clock() + PAGE_SECONDS
        body = bytearray()
        with _network_errors():
            for part in response.stream(65_536):
                body += part
                if self._clock() > deadline or len(body) > MAX_PAGE_BYTES:
                    response.close()
                    raise SourceError("timeout", f"a page took over {PAGE_SECONDS:.0f} s or 64 MB")
        return bytes(body)

    def watch(self, resource_version: str, seconds: float) -> Iterator[Event]:
        """Yield changes as they come; ends quietly when the time is over, also on a silent server.

        An `ERROR` event inside the 200 (an expired resourceVersion) raises like a status would.
        """
        asked = max(1, round(seconds))  # the API takes whole seconds only
        ends = seconds if seconds < 1 else asked + 0.5
        deadline = self._clock() + ends
        response = self._request(
            (REQUEST_TIMEOUT[0], ends),
            watch=True,
            allow_watch_bookmarks=True,
            resource_version=resource_version,
            timeout_seconds=asked,
        )
        try:
            with _network_errors():
                for line in _lines(response):
                    yield _event(line)
                    if self._clock() > deadline:
                        return
        except SourceError as error:
            if error.kind != "timeout":
                raise
        finally:
            response.close()

    def _request(self, timeout: tuple[float, float], **options: Any) -> urllib3.HTTPResponse:
        with _network_errors():
            try:
                response: urllib3.HTTPResponse = self._api.list_namespaced_endpoint_slice(
                    self.namespace,
                    label_selector=self._selector,
                    _preload_content=False,
                    _request_timeout=timeout,
                    **options,
                )
            except client.ApiException as error:
                raise _refusal(error) from error
        return response


class _network_errors:  # noqa: N801 - reads as the statement it is
    """Turns what the client's transport raises into `SourceError`s."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        """Name the kind of a transport failure; anything else passes."""
        if isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError)):
            raise SourceError("timeout", f"the API server did not answer in time: {error}")
        if isinstance(error, (urllib3.exceptions.HTTPError, OSError)):
            raise SourceError("unreachable", f"the API server can't be reached: {error}")
        if isinstance(error, config.ConfigException):
            raise SourceError("unauthorized", f"the token can't be read: {error}")


def _refusal(error: client.ApiException) -> SourceError:
    status = int(error.status or 0)
    if status >= 500 or status == 0:  # 0: TLS failed
        kind = "server_error" if status else "unreachable"
    else:
        kind = _KINDS.get(status, "refused")
    headers = error.headers or {}
    seconds = str(headers.get("Retry-After", ""))
    return SourceError(
        kind,
        f"the API server answered {status} {error.reason}: {_message(error.body)}",
        float(seconds) if seconds.isascii() and seconds.isdigit() else None,
    )


def _message(body: object) -> str:
    """The sentence in a `Status` object, else the beginning of whatever came."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        status = json.loads(text)
        return str(status["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text[:200].strip()


def _lines(response: urllib3.HTTPResponse) -> Iterator[bytes]:
    """Complete lines as soon as they are complete; half a line at the end is dropped."""
    pending = b""
    for part in response.stream(65_536):
        *lines, pending = (pending + part).split(b"\n")
        if len(pending) > MAX_PAGE_BYTES:
            raise SourceError("garbage", "a watch event has no end")
        yield from (line for line in lines if line)


def _event(line: bytes) -> Event:
    try:
        event = json.loads(line)
        kind, item = event["type"], event["object"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError("garbage", f"a watch event is no event: {error}") from error
    if kind == "ERROR":
        status = item if isinstance(item, dict) else {}
        reason = _KINDS.get(status.get("code", 0), "server_error")
        raise SourceError(reason, str(status.get("message", "the watch failed")))
    return Event(kind, item)
