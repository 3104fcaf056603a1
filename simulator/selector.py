"""Label selectors as the API server reads them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from simulator.serialiser import Refusal

_TOKEN = re.compile(r"\s*(==|!=|[=!,()]|[^\s=!,()]+)")
_SYMBOLS = frozenset({"==", "!=", "=", "!", ",", "(", ")"})


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label; `values` is None where only presence counts."""

    key: str
    negated: bool
    values: frozenset[str] | None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` meet it; a label that is absent differs from every value."""
        if self.values is None:
            met = self.key in labels
        else:
            met = self.key in labels and labels[self.key] in self.values
        return met is not self.negated


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements of a selector; none of them selects everything."""

    requirements: tuple[Requirement, ...]

    @classmethod
    def parse(cls, text: str) -> "Selector":
        """Read a selector; raises `Refusal` (400) as the server answers a bad one."""
        return cls(tuple(_Parser(text).requirements())) if text.strip() else cls(())

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with these labels is selected; unreadable labels always are."""
        return labels is None or all(each.matches(labels) for each in self.requirements)


class _Parser:
    """Recursive descent over the tokens of one selector."""

    def __init__(self, text: str) -> None:
        self._tokens = [match[1] for match in _TOKEN.finditer(text)]

    def requirements(self) -> list[Requirement]:
        found = [self._requirement()]
        while self._tokens:
            self._expect(",")
            found.append(self._requirement())
        return found

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._tokens.pop(0)
            return Requirement(self._identifier(), True, None)
        key = self._identifier()
        operator = self._peek()
        if operator in ("", ","):
            return Requirement(key, False, None)
        self._tokens.pop(0)
        if operator in ("=", "==", "!="):
            return Requirement(key, operator == "!=", frozenset({self._value()}))
        if operator in ("in", "notin"):
            return Requirement(key, operator == "notin", self._value_set())
        raise _unexpected(operator, "in, notin, =, ==, !=, gt, lt")

    def _value(self) -> str:
        return "" if self._peek() in ("", ",") else self._identifier()

    def _value_set(self) -> frozenset[str]:
        self._expect("(")
        values = {self._identifier()}
        while self._peek() == ",":
            self._tokens.pop(0)
            values.add(self._identifier())
        self._expect(")")
        return frozenset(values)

    def _identifier(self) -> str:
        token = self._peek()
        if not token or token in _SYMBOLS:
            raise _unexpected(token, "identifier")
        return self._tokens.pop(0)

    def _expect(self, symbol: str) -> None:
        if self._peek() != symbol:
            raise _unexpected(self._peek(), f"'{symbol}'")
        self._tokens.pop(0)

    def _peek(self) -> str:
        return self._tokens[0] if self._tokens else ""


def _unexpected(found: str, expected: str) -> Refusal:
    message = f"unable to parse requirement: found '{found}', expected: {expected}"
    return Refusal(400, message, "BadRequest")
