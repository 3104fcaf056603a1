"""What the load generators and the upstream say to each other.

A request carries its wishes in the prompt, which every proxy passes on as it is. Every token
carries the time it was sent, in nanoseconds of CLOCK_MONOTONIC: that clock is the same in all
processes of a machine, so arrival minus stamp is what the way took.
"""

import json

MODEL = "bench"
PATH = "/v1/chat/completions"
STAMP = b'"sent":"'
#: Length of a stamp with its name; it is padded so that every chunk has the same size.
STAMP_BYTES = len(STAMP) + 20
#: How the bytes after a whole token end: as an event, or as a chunk that holds one.
EVENT_ENDS = (b"\n\n", b"\n\n\r\n")
LAST_CHUNK = b"\r\n0\r\n\r\n"
DONE = b"data: [DONE]"

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    """One chunk of HTTP's chunked coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def _token() -> bytes:
    """A chunk with one token as OpenAI's API sends it, with a place for the stamp."""
    event = {
        "id": "chatcmpl-0123456789abcdef01234567",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": {"content": " token"}, "finish_reason": None}],
        "sent": "#" * 20,
    }
    text = json.dumps(event, separators=(",", ":")).encode()
    return chunk(b"data: " + text + b"\n\n").replace(b"#" * 20, b"%020d")


TOKEN = _token()
STREAM_END = chunk(DONE + b"\n\n") + b"0\r\n\r\n"


def _answer() -> bytes:
    """A whole answer of about a kilobyte that is not streamed."""
    message = {"role": "assistant", "content": "token " * 125}
    document = {
        "id": "chatcmpl-0123456789abcdef01234567",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 125, "total_tokens": 134},
    }
    return json.dumps(document).encode()


ANSWER_BODY = _answer()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(ANSWER_BODY),
    ANSWER_BODY,
)


def request(port: int, *, tokens: int = 0, rate: float = 0.0, ticks: bool = True) -> bytes:
    """A chat completion: a stream of `tokens` at `rate` a second, or an answer at once.

    With `ticks`, tokens that are due within the same millisecond leave together.
    """
    wish = f"{tokens} tokens at {rate:g} a second" if tokens else "all at once"
    wish += "" if ticks else ", each by itself"
    document = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Write {wish}, please."}],
        "stream": bool(tokens),
    }
    body = json.dumps(document).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n"
        f"User-Agent: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return head.encode() + b"\r\n" + body
