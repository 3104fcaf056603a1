"""Lists of slices made from bytes, since bytes that are changed at random are seldom JSON."""

from typing import Any, Final

from cache.slices import MODEL_LABEL, PORT_LABEL, SERVICE_LABEL

_NAMES: Final[tuple[Any, ...]] = ("p-0", None, "p-1", "", "a\r\nb: c", 5, [])
_FLAGS = (True, False, None, 1, 0, "true")
_ADDRESSES: Final[tuple[Any, ...]] = (
    *("10.0.0.1", "10.0.0.2", "fd00::1", "FD00:0::1", "127.0.0.1", "::1", "0.0.0.0", "::"),  # noqa: S104 - never to be used
    *("169.254.169.254", "fe80::1", "fe80::1%eth0", "224.0.0.1", "ff02::1", "::ffff:10.0.0.1"),
    *("64:ff9b::a9fe:a9fe", "2002:7f00:1::1", "pod.example", "", None, 167772161, {}),
)
_PORTS = (
    {"name": "http", "port": 8000, "protocol": "TCP"},
    {"port": 80},
    {"name": "metrics", "port": 9090, "protocol": None},
    {"name": "http", "port": 53, "protocol": "UDP"},
    {"name": ["http"], "port": 8000.0},
    {"port": True},
    None,
)


class Choices:
    """What an input's bytes choose, one byte after the other; behind its end always the first."""

    def __init__(self, data: bytes) -> None:
        self._left = iter(data)

    def of(self, *options: Any) -> Any:
        """One of `options`."""
        return options[self.number(len(options))]

    def number(self, below: int) -> int:
        """A number from 0 on."""
        return next(self._left, 0) % below


def made_list(choices: Choices) -> list[Any]:
    """A list of a few slices, most of which are nearly right."""
    return [choices.of(_slice, _slice, _slice, _oddity)(choices) for _ in range(choices.number(5))]


def _slice(choices: Choices) -> dict[str, Any]:
    labels = {
        MODEL_LABEL: choices.of("m", "n", "", None, "a\nb"),
        PORT_LABEL: choices.of("8000", "80", None, 9090, []),
        SERVICE_LABEL: choices.of("m", "n"),
    }
    return {
        "metadata": {
            "name": choices.of("a", "b", "c", "d", "", None),
            "namespace": choices.of("models", "other", None, 5),
            "labels": choices.of(labels, labels, labels, None, []),
        },
        "addressType": choices.of("IPv4", "IPv6", "FQDN", None),
        "ports": choices.of([choices.of(*_PORTS) for _ in range(choices.number(4))], None, {}),
        "endpoints": choices.of([_entry(choices) for _ in range(choices.number(4))], None, "x"),
    }


def _entry(choices: Choices) -> Any:
    conditions = {
        name: choices.of(*_FLAGS)
        for name in ("ready", "serving", "terminating")
        if choices.of(True, False)
    }
    return {
        "addresses": [choices.of(*_ADDRESSES) for _ in range(1 + choices.number(2))],
        "conditions": choices.of(conditions, None, []),
        "targetRef": {"kind": choices.of("Pod", "Node", None), "name": choices.of(*_NAMES)},
        "zone": choices.of(*_NAMES),
        "nodeName": choices.of(*_NAMES),
    }


def _oddity(choices: Choices) -> Any:
    return choices.of(None, {}, [], 5, {"metadata": None}, {"metadata": {"name": "a"}}, "slice")
