"""What an expression of Prometheus names: its metrics, and the labels it expects of them."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_STRING = r'"(?:[^"\\]|\\.)*"'
_SELECTOR = re.compile(rf"([a-zA-Z_:][\w:]*)\s*(\{{(?:[^{{}}\"]|{_STRING})*\}})?\s*(\()?")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_DURATION = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
_MATCHER = re.compile(rf"(\w+)\s*(?:=~|!~|!=|=)\s*({_STRING})")
_WORDS = {"and", "or", "unless", "bool", "by", "without", "on", "ignoring", "Inf", "NaN"}


class Selected(NamedTuple):
    """A metric, and the labels by which its series are selected."""

    metric: str
    labels: frozenset[str]


def selected(expression: str) -> Iterator[Selected]:
    """The metrics an expression reads."""
    rest = _DURATION.sub("", _GROUPING.sub("", expression))
    for name, matchers, calls in _SELECTOR.findall(rest):
        if not calls and name not in _WORDS:
            yield Selected(name, frozenset(label for label, _ in _MATCHER.findall(matchers)))


def grouped(expression: str) -> set[str]:
    """The labels that an expression groups or joins by."""
    lists = _GROUPING.findall(expression)
    return {label.strip() for found in lists for label in found.split(",") if label.strip()}


def values(expression: str, label: str) -> set[str]:
    """The values of a label that an expression selects by, alternatives one by one."""
    found = _MATCHER.findall(expression)
    return {value for name, text in found if name == label for value in text.strip('"').split("|")}
