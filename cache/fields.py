"""Single fields of a raw EndpointSlice, each read as the API type has it.

Optional ones become plain. `TypeError` tells of any other shape than the API type's.
"""

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_IPV4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")  # deprecated by RFC 4291 §2.5.5.1
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

_TRIGGER_ANNOTATION: Final = "endpoints.kubernetes.io/last-change-trigger-time"


class UnusableAddress(Exception):
    """The address is one that must never be a target."""


def mapping(value: Any, name: str = "") -> Mapping[str, Any]:
    """The object under `name`, or `value` itself; absent and null are empty."""
    if not isinstance(value, dict):
        raise TypeError("no object")
    if not name or value.get(name) is None:
        return {} if name else value
    return mapping(value[name])


def list_of(raw: Mapping[str, Any], name: str) -> list[Any]:
    """The list under `name`; absent and null are empty."""
    value = raw.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError(f"{name} is no list")
    return value


def name_of(raw: Mapping[str, Any], name: str) -> str | None:
    """The name under `name`; it goes into headers, so it must be what Kubernetes calls a name."""
    value = raw.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return value
    raise TypeError(f"{name} is no name")


def condition(conditions: Mapping[str, object], name: str, *, absent: bool) -> bool:
    """What the condition says; `absent` is what it means where it is absent or null."""
    value = conditions.get(name)
    if value is None:
        return absent
    if not isinstance(value, bool):
        raise TypeError(name)
    return value


def trigger_time(metadata: Mapping[str, Any]) -> str | None:
    """When the pod or Service changed that made the controller write the slice, as it says.

    Nothing is decided by it, so what is no text is as if it were absent. A write for any other
    reason, such as a pod's deletion, takes the annotation away.
    """
    annotations = metadata.get("annotations")
    value = annotations.get(_TRIGGER_ANNOTATION) if isinstance(annotations, dict) else None
    return value if isinstance(value, str) else None


def target_address(address: object, allow_loopback: bool) -> str:
    """The address in its one canonical form.

    Raises `UnusableAddress` for what must never be a target, `ValueError` and `TypeError` for
    what is no IP address.
    """
    if not isinstance(address, str):
        raise TypeError("no address")  # a number would pass for one
    canonical = _canonical_target(address, allow_loopback)
    if canonical is None:
        raise UnusableAddress(address)
    return canonical


@lru_cache(maxsize=65_536)
def _canonical_target(address: str, allow_loopback: bool) -> str | None:
    ip = ipaddress.ip_address(address)
    if _is_never_a_target(ip, allow_loopback):
        return None
    return str(ip)


def _is_never_a_target(ip: IPAddress, allow_loopback: bool) -> bool:
    # A zone is one node's own. What is IPv4 in disguise belongs into a slice of IPv4.
    if isinstance(ip, ipaddress.IPv6Address) and (ip.scope_id is not None or ip.ipv4_mapped):
        return True
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local:
        return True
    if ip.is_loopback:
        return not allow_loopback
    if isinstance(ip, ipaddress.IPv4Address):
        return False
    # What leads through a translator or a tunnel ends at the IPv4 address in it, so that is judged.
    # Loopback there is another machine's. A network's own translation prefix can't be known.
    within = _ipv4_behind(ip)
    return ip in _IPV4_COMPATIBLE or (within is not None and _is_never_a_target(within, False))


def _ipv4_behind(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to `ip` end at: NAT64 (RFC 6052), 6to4 or Teredo."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def choose_port(ports: list[Any], labelled: object, name: str) -> int | None:
    """The port to use, by the first rule that finds one; None leaves the slice unusable."""
    usable = [
        (port.get("name") or "", port["port"])
        for port in map(mapping, ports)
        if (port.get("protocol") or "TCP") == "TCP" and _is_port_number(port.get("port"))
    ]
    rules = (
        [number for its_name, number in usable if name and its_name == name],
        [number for _, number in usable if str(number) == str(labelled)],
        [number for _, number in usable if len(usable) == 1],
        [number for its_name, number in usable if its_name == "http"],
    )
    return next((found[0] for found in rules if found), None)


def _is_port_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65_536


def port_number(text: object) -> int | None:
    """The port that a label names; None where it names none, as if the label were absent."""
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()) or len(text) > 5:
        return None
    return int(text) if _is_port_number(int(text)) else None
