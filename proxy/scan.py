"""The model that a large JSON object names, found without building what else it says.

`json` builds everything, which takes twenty times the memory for empty lists, and lets no other
thread run for seconds. Here each step looks at no more than a window of the text. What is valid is
the same. It is slower for prompts of usual size.
"""

import codecs
import json
import re
from typing import Final

#: Bytes that one step looks at: a millisecond or two, and large enough to hold many messages.
WINDOW_BYTES: Final = 32_768
#: Objects and lists within each other; some parsers take no more.
MOST_NESTED: Final = 900
#: Steps, of some three microseconds. What is no prompt but a riddle takes more, for minutes.
MOST_STEPS: Final = 300_000

_SPACE: Final = rb"[ \t\n\r]*+"
_PLAIN: Final = rb'[^"\\\x00-\x1f]*+'
_ESCAPE: Final = rb'\\(?=["\\/bfnrt]|u[0-9a-fA-F]{4}).'
_CHARACTERS: Final = _PLAIN + rb"(?:" + _ESCAPE + _PLAIN + rb")*+"
_ATOM: Final = rb"(?:true|false|null|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+)"
_SCALAR: Final = rb'(?:"' + _CHARACTERS + rb'"|' + _ATOM + rb")"
#: A key that reads `model`, or may do so once its escapes are replaced, is looked at by itself.
_OTHER_KEY: Final = rb'"(?!model")' + _PLAIN + rb'"'


def _member(value: bytes) -> bytes:
    return _OTHER_KEY + _SPACE + rb":" + _SPACE + value


def _holding(value: bytes) -> bytes:
    """An object or a list of such values."""

    def listed(item: bytes) -> bytes:
        return _SPACE + rb"(?:" + item + _SPACE + rb"(?:," + _SPACE + item + _SPACE + rb")*+)?+"

    return rb"(?:\{" + listed(_member(value)) + rb"\}|\[" + listed(value) + rb"\])"


#: What is taken in one step: most messages are objects that hold lists of objects.
_FLAT: Final = rb"(?:" + _SCALAR + rb"|" + _holding(_SCALAR) + rb")"
_VALUE: Final = rb"(?:" + _SCALAR + rb"|" + _holding(_FLAT) + rb")"
_VALUES: Final = re.compile(rb"(?:" + _SPACE + _VALUE + _SPACE + rb",)*+")
_MEMBERS: Final = re.compile(rb"(?:" + _SPACE + _member(_VALUE) + _SPACE + rb",)*+")
_SPACES: Final = re.compile(_SPACE)
_TEXT: Final = re.compile(_CHARACTERS)
_ATOMS: Final = re.compile(_ATOM)
#: The longest way to write `"model"`.
_LONGEST_KEY: Final = 32
_NO_NAME: Final = 0
#: How an object ends, and how a list.
_END: Final = (b"}", b"]")
#: How a JSON text begins that is no object.
_OTHER_BEGINNINGS: Final = tuple(bytes([byte]) for byte in b'["-0123456789tfn')
_SPACE_BYTES: Final = frozenset((b" ", b"\t", b"\n", b"\r"))
_CONTROLS: Final = bytes(range(32))
#: Bytes of what a window may cut through: an escape.
_LONGEST_PART: Final = 6


class NotAnObject(ValueError):
    """The text is JSON of another kind, as far as its beginning says."""


def model_in(body: bytes, window: int = WINDOW_BYTES) -> object:
    """The value of `model` in the object that `body` is: a string, or something that is none.

    None where there is none. Raises `NotAnObject`, and `ValueError` for what is no JSON, for an
    object that names a model twice, and for one that is nested too deeply.
    """
    _check_utf8(body, window)
    return _Scan(body, window).run()


def _check_utf8(body: bytes, window: int) -> None:
    if body.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), window):
        decoder.decode(body[start : start + window])
    decoder.decode(b"", final=True)


class _Scan:
    """One walk through a text, from left to right."""

    def __init__(self, body: bytes, window: int) -> None:
        self._body = body
        self._window = window
        self._at = 0
        self._open: list[bool | None] = []  # of each object whether it has named one; of lists None
        self._model: object = None

    def run(self) -> object:
        """Walk, and return the model."""
        self._skip_spaces()
        if self._here() in _OTHER_BEGINNINGS:
            raise NotAnObject
        if self._here() != b"{":
            self._fail("a value")
        self._enter(b"{")
        entered = True
        for _ in range(MOST_STEPS):
            if not self._open:
                break
            entered = self._item(first=entered)
        else:
            raise ValueError("it has too many parts within parts")
        if self._at < len(self._body):
            self._fail("the end")
        return self._model

    def _item(self, *, first: bool) -> bool:
        """Take values that others follow, and one more; whether that was entered, and goes on."""
        named = self._open[-1]
        pattern = _VALUES if named is None else _MEMBERS
        run = pattern.match(self._body, self._at, self._at + self._window)
        if run is not None and run.end() > self._at:
            self._at = run.end()
            first = False
        self._skip_spaces()
        if first and self._here() == _END[named is None]:
            self._leave()
            return False
        is_model = named is not None and self._key() and len(self._open) == 1
        begin, here = self._at, self._here()
        if here in (b"{", b"["):
            self._enter(here)
        else:
            self._scalar(here)
        if is_model:
            self._model = self._value(begin)
        if here in (b"{", b"["):
            return True
        self._end()
        return False

    def _key(self) -> bool:
        """Take a key and its colon; whether it reads `model`."""
        begin = self._at
        if self._here() != b'"':
            self._fail("a key")
        self._string()
        raw = self._body[begin : min(self._at, begin + _LONGEST_KEY + 1)]
        is_model = len(raw) <= _LONGEST_KEY and json.loads(raw.decode()) == "model"
        if is_model:
            if self._open[-1]:
                raise ValueError("the key 'model' is there twice")
            self._open[-1] = True
        self._skip_spaces()
        if self._here() != b":":
            self._fail("a colon")
        self._at += 1
        self._skip_spaces()
        return is_model

    def _value(self, begin: int) -> object:
        """What was taken since `begin` says, as far as it may be a model's name."""
        raw = self._body[begin : self._at]
        if raw.startswith(b'"'):
            return json.loads(raw.decode()) if b"\\" in raw else raw[1:-1].decode()
        return None if raw == b"null" else _NO_NAME

    def _end(self) -> None:
        """Take the ends of all that ends here, and the comma before what follows."""
        while self._open:
            self._skip_spaces()
            here = self._here()
            if here == b",":
                self._at += 1
                return
            if here != _END[self._open[-1] is None]:
                self._fail("a comma or an end")
            self._open.pop()
            self._at += 1
        self._skip_spaces()

    def _enter(self, bracket: bytes) -> None:
        if len(self._open) >= MOST_NESTED:
            raise ValueError("it is nested too deeply")
        self._open.append(False if bracket == b"{" else None)
        self._at += 1

    def _leave(self) -> None:
        self._open.pop()
        self._at += 1
        self._end()

    def _scalar(self, here: bytes) -> None:
        if here == b'"':
            self._string()
            return
        atom = _ATOMS.match(self._body, self._at)
        if atom is None:
            self._fail("a value")
        else:
            self._at = atom.end()

    def _string(self) -> None:
        self._at += 1
        self._pass_plain()
        self._pass(_TEXT)
        if self._here() != b'"':
            self._fail("the end of a string")
        self._at += 1

    def _pass_plain(self) -> None:
        """Take whole windows of text without escapes, an image for one: ten times as fast."""
        while self._at + self._window < len(self._body):
            piece = self._body[self._at : self._at + self._window]
            if (
                b'"' in piece
                or b"\\" in piece
                or len(piece.translate(None, _CONTROLS)) < len(piece)
            ):
                return
            self._at += len(piece)

    def _skip_spaces(self) -> None:
        if self._body[self._at : self._at + 1] in _SPACE_BYTES:
            self._pass(_SPACES)

    def _pass(self, pattern: re.Pattern[bytes]) -> None:
        """Take all that matches, in windows: what ends one may go on in the next."""
        while (found := pattern.match(self._body, self._at, self._at + self._window)) is not None:
            begin, self._at = self._at, found.end()
            if self._at == begin or self._at + _LONGEST_PART < begin + self._window:
                return

    def _here(self) -> bytes:
        return self._body[self._at : self._at + 1]

    def _fail(self, expected: str) -> None:
        raise ValueError(f"{expected} is missing at byte {self._at}")
