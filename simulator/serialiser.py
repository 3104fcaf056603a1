"""EndpointSlices and refusals in the very bytes a real API server sends."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

API_VERSION = "discovery.k8s.io/v1"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
METADATA_ORDER = (
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
    "managedFields",
)


class Refusal(Exception):
    """An answer other than 200, with the `Status` object that explains it.

    `retry_after` is in seconds; `metadata` and `details` go into the Status.
    """

    def __init__(
        self,
        code: int,
        message: str,
        reason: str = "",
        *,
        details: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": dict(metadata or {}),
            "status": "Failure",
            "message": message,
        }
        if reason:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = dict(details)
        self.status["code"] = code

    def body(self) -> bytes:
        """The Status as the body of an answer."""
        return encode(self.status) + b"\n"


def encode(value: Any) -> bytes:
    """`value` as compact JSON, keys in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def timestamp() -> str:
    """Now, as Kubernetes writes it: UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def list_body(items: Sequence[bytes], metadata: Mapping[str, Any]) -> bytes:
    """An EndpointSliceList around items that are encoded already."""
    head = {"kind": "EndpointSliceList", "apiVersion": API_VERSION, "metadata": metadata}
    return encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}\n"


def event_line(kind: str, item: bytes) -> bytes:
    """One line of a watch: in events, unlike in lists, objects say what they are."""
    named = item
    if item.startswith(b'{"'):
        named = encode({"kind": "EndpointSlice", "apiVersion": API_VERSION})[:-1] + b"," + item[1:]
    return b'{"type":"' + kind.encode() + b'","object":' + named + b"}\n"


def bookmark_line(version: int, *, initial_events_end: bool = False) -> bytes:
    """A BOOKMARK; with `initial_events_end` the one after the current objects."""
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    if initial_events_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return event_line(
        "BOOKMARK",
        encode({"metadata": metadata, "addressType": "", "endpoints": None, "ports": None}),
    )


def error_line(refusal: Refusal) -> bytes:
    """A refusal told inside a watch that was already answered with 200."""
    return encode({"type": "ERROR", "object": refusal.status}) + b"\n"


def slice_content(
    metadata: Mapping[str, Any], raw: Mapping[str, Any], manager: str
) -> dict[str, Any]:
    """A stored EndpointSlice: fields in the server's order, empty lists as null."""
    content: dict[str, Any] = {
        "metadata": {},
        "addressType": raw.get("addressType", "IPv4"),
        "endpoints": raw.get("endpoints") or None,
        "ports": raw.get("ports") or None,
    }
    full = {
        **metadata,
        "managedFields": [
            {
                "manager": manager,
                "operation": "Update",
                "apiVersion": API_VERSION,
                "time": timestamp(),
                "fieldsType": "FieldsV1",
                "fieldsV1": _managed_fields(metadata, content),
            }
        ],
    }
    content["metadata"] = {name: full[name] for name in METADATA_ORDER if full.get(name)}
    return content


def _managed_fields(metadata: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    of_metadata: dict[str, Any] = {}
    for name in ("annotations", "labels"):
        if metadata.get(name):
            of_metadata[f"f:{name}"] = {".": {}, **{f"f:{key}": {} for key in metadata[name]}}
    if metadata.get("generateName"):
        of_metadata["f:generateName"] = {}
    if metadata.get("ownerReferences"):
        owners: dict[str, Any] = {
            f'k:{{"uid":"{owner["uid"]}"}}': {} for owner in metadata["ownerReferences"]
        }
        of_metadata["f:ownerReferences"] = {".": {}, **owners}
    stated = [name for name in ("addressType", "endpoints", "ports") if content[name]]
    fields: dict[str, Any] = {f"f:{name}": {} for name in stated}
    if of_metadata:
        fields["f:metadata"] = dict(sorted(of_metadata.items()))
    return dict(sorted(fields.items()))
