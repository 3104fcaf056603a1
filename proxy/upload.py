"""A request's body as it comes from the client, whole or not at all."""

from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected

from proxy.call import Call
from proxy.errors import GatewayError


def read_body(call: Call, limit: int) -> bytes:
    """Read the body of a request, of at most `limit` bytes.

    Werkzeug's own reading ends at a limit, or where a client leaves, as if that were the end; an
    endpoint must never get a part of a body as the whole.

    Raises `GatewayError` with `body_too_large` or `invalid_body`, and `ClientDisconnected`.
    """
    length = call.fields.get("Content-Length")
    declared = int(length) if length else None
    if declared is not None and declared > limit:
        raise too_large(limit)
    if declared is not None:
        size = declared
    else:  # chunked, where the server ends the input by itself; else there is none
        size = limit + 1 if call.input_ends else 0
    try:
        body = call.input.read(size)
    except ParseException as error:
        raise not_chunked(error) from error
    except OSError as error:
        raise ClientDisconnected from error
    if declared is None and len(body) > limit:
        raise too_large(limit)
    if declared is not None and len(body) < declared:
        raise ClientDisconnected
    return body


def too_large(limit: int) -> GatewayError:
    """The error of a body that has more than `limit` bytes."""
    return GatewayError("body_too_large", f"the body has more than {limit} bytes")


def not_chunked(why: Exception) -> GatewayError:
    """The error of a body that is said to be chunked and is not."""
    return GatewayError(
        "invalid_body", f"the body's chunked coding is not valid: {type(why).__name__}"
    )
