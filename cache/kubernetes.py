"""EndpointSlices from the Kubernetes API.

The official client supplies configuration, credentials and TLS. Its typed deserialiser is not
used: it rejects a whole list for one bad item. Nor are its defaults: no timeout, and retries that
urllib3 makes behind one's back.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import urllib3
from kubernetes import client, config

from cache.cutoff import Cutoff, announce_sockets
from cache.kubeconfig import Access, SourceUnavailable
from cache.pages import parse_page
from cache.source import EVENT_KINDS, Event, Listing, SourceError, items_of

#: Slices a page.
PAGE_LIMIT = 500
#: Bytes one page may have; 500 full slices have about 15 MB.
MAX_PAGE_BYTES = 64 * 2**20
#: How often an expired list is begun again before the poll counts as failed.
LIST_RESTARTS = 3

_KINDS = {401: "unauthorized", 403: "forbidden", 410: "expired", 429: "throttled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long, in seconds, the API server may take.

    `connect` and `read` (the silence between two bytes) bound each request, `listing` all pages of
    a list together, `silence` the time without a byte in a watch: bookmarks come each minute, so
    more of it means that the connection is dead.
    """

    connect: float = 2.0
    read: float = 5.0
    listing: float = 30.0
    silence: float = 90.0


class KubernetesSource:
    """The EndpointSlice API of one namespace, through the official client's configuration.

    `namespace` empty means the pod's own, else the kubeconfig context's, else `default`. Not
    thread-safe: it belongs to the poller. It connects when it is first asked, so that credentials
    that are missing for a moment are one failed list, not a worker that can't start.
    """

    def __init__(
        self,
        namespace: str,
        selector: str,
        *,
        access: Access | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.namespace = namespace
        self._selector = selector
        self._access = access or Access()
        self._limits = limits or Limits()
        self._cutoff = Cutoff(0.0)
        self._client: client.ApiClient | None = None

    @property
    def longest_list(self) -> float:
        """Seconds that all pages of a list may take together."""
        return self._limits.listing

    def connect(self) -> None:
        """Read configuration, credentials and namespace; nothing is sent yet.

        Raises `SourceUnavailable` where neither a service account nor a kubeconfig is usable; what
        was read before stays in use.
        """
        connected = self._new_client()
        self.namespace = self.namespace or self._access.namespace()
        self.close()
        self._client = connected

    def _new_client(self) -> client.ApiClient:
        configuration = client.Configuration()
        self._access.configure(configuration)
        # urllib3 would retry three times behind our back, each with the full timeout.
        configuration.retries = False
        api_client = client.ApiClient(configuration)
        announce_sockets(api_client.rest_client.pool_manager, lambda used: self._cutoff.uses(used))
        return api_client

    def renew_credentials(self) -> None:
        """Load the configuration afresh, token included; keep the old one if that fails."""
        try:
            self.connect()
        except SourceUnavailable as error:
            raise SourceError("unauthorized", str(error)) from error

    def close(self) -> None:
        """Close idle connections; the next call opens new ones."""
        if self._client is not None:
            self._client.rest_client.close()

    def list(self) -> Listing:
        """Read all pages of one list; a 410 between two pages begins it again."""
        with Cutoff(self._limits.listing) as self._cutoff:
            for _ in range(LIST_RESTARTS):
                try:
                    return self._list_pages()
                except SourceError as error:
                    if error.kind != "expired":
                        raise
        raise SourceError("expired", f"the list expired {LIST_RESTARTS} times between its pages")

    def _list_pages(self) -> Listing:
        items: list[object] = []
        token = ""
        while True:
            page = self._page(token)
            metadata = page["metadata"]
            items += items_of(page)
            token = _text(metadata, "continue")
            if not token:
                return Listing(items, _text(metadata, "resourceVersion") or None)

    def _page(self, token: str) -> dict[str, Any]:
        options = {"limit": PAGE_LIMIT} | ({"_continue": token} if token else {})
        response = self._request(self._limits.read, **options)
        try:
            body = self._read_page(response)
        finally:
            response.close()  # which keeps the connection if all has been read
        try:
            page = parse_page(body)
        except (ValueError, RecursionError) as error:
            raise SourceError("garbage", f"the API server's answer is no JSON: {error}") from error
        if not _is_list(page):
            raise SourceError("garbage", "the API server's answer is no EndpointSliceList")
        return page  # type: ignore[no-any-return]

    def _read_page(self, response: urllib3.HTTPResponse) -> bytes:
        body = bytearray()
        with _transport_errors(self._cutoff):
            for part in response.stream(65_536):
                body += part
                if len(body) > MAX_PAGE_BYTES:
                    raise SourceError("garbage", f"a page has over {MAX_PAGE_BYTES >> 20} MB")
        if self._cutoff.reached:
            raise _too_slow(self._cutoff)  # an end that was ours is no end of a page
        return bytes(body)

    def watch(self, resource_version: str, seconds: float) -> Iterator[Event]:
        """Yield changes as they come; ends quietly when the time is over, also on a silent server.

        An `ERROR` event inside the 200 (an expired resourceVersion) raises like a status would.
        """
        asked = max(1, round(seconds))  # the API takes whole seconds only
        ends = seconds if seconds < 1 else asked + 0.5
        with Cutoff(ends) as self._cutoff:
            response = self._request(
                min(ends, self._limits.silence),
                watch=True,
                allow_watch_bookmarks=True,
                resource_version=resource_version,
                timeout_seconds=asked,
            )
            try:
                with _transport_errors(self._cutoff):
                    yield from map(_event, _lines(response))
            except SourceError as error:
                if error.kind != "timeout" and not self._cutoff.reached:
                    raise
            finally:
                response.close()

    def _request(self, read_timeout: float, **options: Any) -> urllib3.HTTPResponse:
        if self._client is None:
            self.renew_credentials()
        api: Any = client.DiscoveryV1Api(self._client)  # its types know nothing of raw answers
        with _transport_errors(self._cutoff):
            try:
                response: urllib3.HTTPResponse = api.list_namespaced_endpoint_slice(
                    self.namespace,
                    label_selector=self._selector,
                    _preload_content=False,
                    _request_timeout=(self._limits.connect, read_timeout),
                    **options,
                )
            except client.ApiException as error:
                raise _refusal(error) from error
        return response


class _transport_errors:  # noqa: N801 - reads as the statement it is
    """Turns what the client's transport raises into `SourceError`s."""

    def __init__(self, cutoff: Cutoff) -> None:
        self._cutoff = cutoff

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        """Name the kind of a transport failure; anything else passes."""
        failed = isinstance(error, (urllib3.exceptions.HTTPError, OSError, SourceError))
        if failed and self._cutoff.reached:
            raise _too_slow(self._cutoff) from error
        # urllib3 derives "refused" from its timeout on connect.
        refused = isinstance(error, urllib3.exceptions.NewConnectionError)
        if isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError)) and not refused:
            raise SourceError("timeout", f"the API server did not answer in time: {error}")
        if isinstance(error, (urllib3.exceptions.HTTPError, OSError)):
            raise SourceError("unreachable", f"the API server can't be reached: {error}")
        if isinstance(error, config.ConfigException):
            raise SourceError("unauthorized", f"the token can't be read: {error}")


def _too_slow(cutoff: Cutoff) -> SourceError:
    return SourceError("timeout", f"the API server took over {cutoff.seconds:g} s")


def _is_list(page: object) -> bool:
    """Whether it is what was asked for: a proxy's or a failing server's 200 is not "no slices"."""
    return (
        isinstance(page, dict)
        and page.get("kind") == "EndpointSliceList"
        and isinstance(page.get("metadata"), dict)
        and "items" in page
    )


def _text(metadata: dict[str, Any], name: str) -> str:
    value = metadata.get(name) or ""
    if not isinstance(value, str):
        raise SourceError("garbage", f"the list's {name} is no text")
    return value


def _refusal(error: client.ApiException) -> SourceError:
    status = int(error.status or 0)
    if not status:
        reason = " ".join(str(error.reason).split())
        return SourceError("unreachable", f"no TLS with the API server: {reason}")
    kind = "server_error" if status >= 500 else _KINDS.get(status, "refused")
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
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise SourceError("garbage", f"a watch event is no event: {error}") from error
    if kind == "ERROR":
        status = item if isinstance(item, dict) else {}
        code = status.get("code")
        reason = _KINDS.get(code, "server_error") if isinstance(code, int) else "server_error"
        raise SourceError(reason, str(status.get("message", "the watch failed")))
    if kind not in EVENT_KINDS:
        raise SourceError("garbage", f"a watch event is of no known type: {str(kind)[:50]!r}")
    return Event(kind, item)
