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
    """A metric, and the labels with the values by which its series are selected, one by one."""

    metric: str
    matchers: frozenset[tuple[str, str]]

    @property
    def labels(self) -> set[str]:
        """The labels alone."""
        return {label for label, _ in self.matchers}


def selected(expression: str) -> Iterator[Selected]:
    """The metrics an expression reads."""
    rest = _DURATION.sub("", _GROUPING.sub("", expression))
    for name, matchers, calls in _SELECTOR.findall(rest):
        if not calls and name not in _WORDS:
            named = _MATCHER.findall(matchers)
            alternatives = [(label, text.strip('"').split("|")) for label, text in named]
            pairs = frozenset((label, one) for label, texts in alternatives for one in texts)
            yield Selected(name, pairs)


def grouped(expression: str) -> set[str]:
    """The labels that an expression groups or joins by."""
    lists = _GROUPING.findall(expression)
    return {label.strip() for found in lists for label in found.split(",") if label.strip()}
