"""An inference request, and how its model is found in its body."""

import io
import json
import sys
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import IO, Any, Final

from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from proxy.aliases import json_string, replaced, span_in_form, span_in_json
from proxy.caller import Caller
from proxy.errors import GatewayError
from proxy.scan import NotAnObject, model_in

#: As many as engines take; each costs time.
_MAX_FORM_PARTS = 1000
#: Bytes of a body that is looked through in a millisecond or two, however it is made. Larger ones
#: are looked through one after the other, by whoever holds the lock: no time is lost, because
#: Python would only take turns, and others than the loop would have them.
LITTLE_BYTES: Final = 8192
#: From so many bytes on no other thread would run for too long while `json` is at it.
_LARGE_BYTES: Final = 262_144
#: Seconds after which who looks through a body lets others run, if they want to: the loop does.
_TURN_SECONDS: Final = 0.0005
_looking = threading.Lock()
_GZIP = b"\x1f\x8b"
_NOTHING: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request that is to be forwarded.

    `target` is path and query as received; `fields` are the client's header fields, of which
    `dropped_fields` (in lower case) don't pass; `own_fields` are those the gateway adds.
    `replayable` says whether it may run twice, `caller` whether somebody still waits for it.
    Its `repr` shows nothing that could be a secret.
    """

    method: str
    target: str = field(repr=False)
    fields: tuple[tuple[str, str], ...] = field(repr=False)
    own_fields: Mapping[str, str] = field(repr=False)
    dropped_fields: tuple[str, ...]
    body: bytes = field(repr=False)
    replayable: bool
    caller: Caller = field(default_factory=Caller)


def model_of(body: bytes, content_type: str, *, may_be_form: bool) -> str:
    """The `model` that a request's body names.

    Raises `GatewayError` with `invalid_body` or `missing_model`. A body that two JSON parsers could
    read differently (two `model`s, `NaN`) is invalid: the endpoint must not see another model
    than the gateway did. May block while another thread looks through a large one.
    """
    if len(body) <= LITTLE_BYTES:
        return _model_of(body, content_type, may_be_form=may_be_form)
    with _looking:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_TURN_SECONDS)
        try:
            return _model_of(body, content_type, may_be_form=may_be_form)
        finally:
            sys.setswitchinterval(usual)


def renamed(body: bytes, content_type: str, model: str, *, may_be_form: bool) -> bytes:
    """`body`, in which `model_of` has found a model, with `model` named instead.

    Every other byte stays as it came. Raises `GatewayError` with `invalid_body` for a form whose
    field can't hold that name. May block as `model_of` does.
    """
    with _looking if len(body) > LITTLE_BYTES else nullcontext():
        if not (may_be_form and _is_form(content_type)):
            return replaced(body, span_in_json(body), json_string(model))
        _, options = parse_options_header(content_type)
        span = span_in_form(body, options["boundary"].encode("ascii"))
        form = replaced(body, span, model.encode())
        if _form_model(form, content_type) != model:  # its part declares another charset
            raise GatewayError("invalid_body", f"the field 'model' can't say {model!r}")
        return form


def _is_form(content_type: str) -> bool:
    return parse_options_header(content_type)[0].lower() == "multipart/form-data"


def _model_of(body: bytes, content_type: str, *, may_be_form: bool) -> str:
    model: object
    if may_be_form and _is_form(content_type):
        model = _form_model(body, content_type)
    elif len(body) < _LARGE_BYTES:
        model = _json_object(body).get("model")
    else:
        model = _scanned_model(body)
    if model is None or model == "":
        raise GatewayError("missing_model", "the request names no model")
    if not isinstance(model, str):
        raise GatewayError("missing_model", "the request's model is not a string")
    return model


def _json_object(body: bytes) -> dict[str, Any]:
    if body.startswith(_GZIP):  # which is no JSON, whatever `Content-Encoding` says
        raise GatewayError("invalid_body", "the body is compressed with gzip; send it as it is")
    try:
        # RFC 8259 §8.1: JSON between systems is UTF-8, so nothing is guessed.
        document = _DECODER.decode(body.decode("utf-8"))
    except RecursionError:
        raise GatewayError("invalid_body", "the body's JSON is nested too deeply") from None
    except ValueError as error:
        raise _not_json(error) from None
    if not isinstance(document, dict):
        raise _not_an_object()
    return document


def _scanned_model(body: bytes) -> object:
    try:
        return model_in(body)
    except NotAnObject:
        raise _not_an_object() from None
    except ValueError as error:
        raise _not_json(error) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What is kept of an object: its `model`. A body's objects would take ten times its size."""
    kept = _NOTHING
    for name, value in pairs:
        if name == "model":
            if kept:
                raise ValueError("the key 'model' is there twice")
            kept = {name: value}
    return kept


def _number(text: str) -> int:
    """No number matters here; one of a million digits would take its time."""
    return 0


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _not_json(why: ValueError) -> GatewayError:
    return GatewayError("invalid_body", f"the body is not valid JSON: {why}")


def _not_an_object() -> GatewayError:
    return GatewayError("invalid_body", "the body is not a JSON object")


def _form_model(body: bytes, content_type: str) -> str | None:
    _, options = parse_options_header(content_type)
    parser = FormDataParser(stream_factory=_discard, max_form_parts=_MAX_FORM_PARTS, silent=False)
    try:
        _, form, files = parser.parse(
            io.BytesIO(body), "multipart/form-data", len(body), dict(options)
        )
    except (HTTPException, ValueError) as error:
        raise GatewayError("invalid_body", f"the body is not a valid form: {error}") from None
    models = form.getlist("model")
    if len(models) + len(files.getlist("model")) > 1:
        raise GatewayError("invalid_body", "the field 'model' is there twice")
    return models[0] if models else None


#: Made once: `json.loads` would make one for every request.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_number,
    parse_float=_number,
    parse_constant=_constant,
)


class _Discard(io.RawIOBase):
    """Takes a form's files and keeps nothing: they are forwarded as they came."""

    def writable(self) -> bool:
        """A file can be written."""
        return True

    def write(self, data: Any) -> int:
        """Forget `data`."""
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go nowhere."""
        return 0


def _discard(
    total_content_length: int | None,
    content_type: str | None,
    filename: str | None,
    content_length: int | None = None,
) -> IO[bytes]:
    return _Discard()  # type: ignore[return-value]  # werkzeug writes and seeks only
