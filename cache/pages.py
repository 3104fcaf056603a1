"""A page of a list: JSON that is parsed item by item, so that other threads need not wait."""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


#: Seconds of work after which others get their turn, and how long they get it. A shorter sleep
#: would be over before they wake up, and whoever waits for the lock asks for it after 5 ms only.
_WORK_SECONDS = 0.001
_REST_SECONDS = 0.0001


class _Turns:
    """Lets other threads have the interpreter's lock now and then."""

    def __init__(self) -> None:
        self._rested = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._rested >= _WORK_SECONDS:
            time.sleep(_REST_SECONDS)
            self._rested = time.monotonic()


def parse_page(body: bytes, between: Callable[[], None] | None = None) -> Any:
    """What `json.loads` makes of `body`, in UTF-8 (RFC 8259 §8.1).

    `between` is called after each of the `items`. `json.loads` would hold the interpreter's lock
    for all of 500 slices, 100 ms in which no request of this worker moves.

    Raises `ValueError` or `RecursionError` for what is no JSON.
    """
    between = between or _Turns()
    text = _Text(body.decode("utf-8"))
    if text.takes("{"):
        document: Any = dict(_members(text, between))
    else:
        document = text.value()
    text.ends()
    return document


def _members(text: "_Text", between: Callable[[], None]) -> Iterator[tuple[str, Any]]:
    """Names and values of an object whose brace was taken."""
    for _ in _elements(text, "}"):
        name = text.value()
        if not isinstance(name, str):
            raise text.error("expected a name")
        text.expects(":")
        if name == "items" and text.takes("["):
            yield name, [_item(text, between) for _ in _elements(text, "]")]
        else:
            yield name, text.value()


def _item(text: "_Text", between: Callable[[], None]) -> Any:
    item = text.value()
    between()
    return item


def _elements(text: "_Text", end: str) -> Iterator[None]:
    """Stop before each element, for the caller to take it, until `end` was taken."""
    if text.takes(end):
        return
    yield
    while not text.takes(end):
        text.expects(",")
        yield


class _Text:
    """JSON, and how far it has been read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def value(self) -> Any:
        """Take a value."""
        self._skip_space()
        value, self._at = _DECODER.raw_decode(self._text, self._at)
        return value

    def takes(self, mark: str) -> bool:
        """Take `mark` if it is next."""
        self._skip_space()
        found = self._text.startswith(mark, self._at)
        self._at += found
        return found

    def expects(self, mark: str) -> None:
        """Take `mark`, which must be next."""
        if not self.takes(mark):
            raise self.error(f"expected {mark!r}")

    def ends(self) -> None:
        """Nothing may be left."""
        self._skip_space()
        if self._at != len(self._text):
            raise self.error("there is more after the end")

    def error(self, what: str) -> ValueError:
        """Say what is wrong at this place."""
        return json.JSONDecodeError(what, self._text, self._at)

    def _skip_space(self) -> None:
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
