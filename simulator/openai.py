"""What a model server says: the OpenAI-style API, and its siblings that engines speak too."""

import base64
import io
import json
import struct
import time
import wave
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from simulator.answers import JSON, Answer, Event, Stream
from simulator.http import Request

PIECE = "tok "  # the text of every token
PROMPT_TOKENS = 4
_serial = count(1)
_DONE = Event(b"data: [DONE]\n\n")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One inference request as the engine understands it."""

    pod: str
    model: str
    payload: Mapping[str, Any]
    tokens: int
    serial: int

    @property
    def streamed(self) -> bool:
        """Whether the answer is wanted as a stream."""
        return self.payload.get("stream") is True

    @property
    def text(self) -> str:
        """All the tokens of a complete answer."""
        return PIECE * self.tokens

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and made, as chat counts them."""
        total = PROMPT_TOKENS + self.tokens
        return {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": self.tokens,
            "total_tokens": total,
        }

    @property
    def usage_in_and_out(self) -> dict[str, int]:
        """The same under the names of the Responses and Messages APIs."""
        return {"input_tokens": PROMPT_TOKENS, "output_tokens": self.tokens}

    def event(self, name: str, **fields: Any) -> Event:
        """A named event of the Responses or Messages API; its payload repeats the name."""
        return Event.of(self.pod, {"type": name, **fields}, name)


def answer(pod: str, model: str, request: Request, default_tokens: int) -> Answer:
    """What `pod`, which serves `model`, says to `request` for a path under `/v1/`."""
    if request.path not in _ROUTES:
        return Answer.json({"detail": "Not Found"}, status=404)
    method, reply = _ROUTES[request.path]
    if request.method != method:
        return Answer.json({"detail": "Method Not Allowed"}, status=405)
    payload: Any = {}
    if request.body and request.headers.get("content-type", JSON).startswith(JSON):
        try:
            payload = json.loads(request.body)
        except ValueError:
            return Answer.error(400, "the body is not JSON")
    if not isinstance(payload, dict):
        return Answer.error(400, "the body is not a JSON object")
    limits = (payload.get(f"max_{kind}tokens") for kind in ("completion_", "output_", ""))
    tokens = next((limit for limit in limits if isinstance(limit, int)), default_tokens)
    return reply(Prompt(pod, str(payload.get("model", model)), payload, tokens, next(_serial)))


def _chat(prompt: Prompt) -> Answer:
    message = {"role": "assistant", "content": prompt.text}
    return _generated(
        prompt,
        "chat.completion",
        whole={"message": message},
        role={"delta": {"role": "assistant", "content": ""}},
        part={"delta": {"content": PIECE}},
        end={"delta": {}},
    )


def _completion(prompt: Prompt) -> Answer:
    return _generated(
        prompt,
        "text_completion",
        whole={"text": prompt.text},
        role=None,
        part={"text": PIECE},
        end={"text": ""},
    )


def _generated(
    prompt: Prompt,
    shape: str,
    *,
    whole: Mapping[str, Any],
    role: Mapping[str, Any] | None,
    part: Mapping[str, Any],
    end: Mapping[str, Any],
) -> Answer:
    """Chat and text completions, whose `shape` is the `object` they say they are."""

    def fields(choice: Mapping[str, Any] | None, finish: str | None = None) -> dict[str, Any]:
        choices = [] if choice is None else [{"index": 0, **choice, "finish_reason": finish}]
        return {**common, "choices": choices}

    common = {
        "id": f"{prompt.pod}-{prompt.serial}",
        "object": shape,
        "created": int(time.time()),
        "model": prompt.model,
        "system_fingerprint": prompt.pod,
    }
    if not prompt.streamed:
        payload = {**fields(whole, "length"), "usage": prompt.usage}
        return Answer.json(payload, tokens=prompt.tokens)
    common["object"] = "chat.completion.chunk" if role else shape
    first = (Event.of(prompt.pod, fields(role)),) if role else ()
    last = [Event.of(prompt.pod, fields(end, "length"))]
    if (prompt.payload.get("stream_options") or {}).get("include_usage"):
        last.append(Event.of(prompt.pod, {**fields(None), "usage": prompt.usage}))
    token = Event.of(prompt.pod, fields(part))
    return Answer(stream=Stream(first, token, prompt.tokens, tuple(last), _DONE))


def _response(prompt: Prompt) -> Answer:
    ident = f"resp-{prompt.pod}-{prompt.serial}"
    content = {"type": "output_text", "text": prompt.text, "annotations": []}
    message = {"type": "message", "id": "msg-1", "role": "assistant", "status": "completed"}
    created = {
        "id": ident,
        "object": "response",
        "created_at": int(time.time()),
        "model": prompt.model,
        "metadata": {"pod": prompt.pod},
    }
    completed = {
        **created,
        "status": "completed",
        "output": [{**message, "content": [content]}],
        "usage": {
            **prompt.usage_in_and_out,
            "total_tokens": PROMPT_TOKENS + prompt.tokens,
        },
    }
    if not prompt.streamed:
        return Answer.json(completed, tokens=prompt.tokens)
    started = {**created, "status": "in_progress", "output": []}
    place = {"item_id": "msg-1", "output_index": 0, "content_index": 0}
    stream = Stream(
        first=(prompt.event("response.created", response=started),),
        token=prompt.event("response.output_text.delta", **place, delta=PIECE),
        tokens=prompt.tokens,
        last=(prompt.event("response.output_text.done", **place, text=prompt.text),),
        closing=prompt.event("response.completed", response=completed),
    )
    return Answer(stream=stream)


def _message(prompt: Prompt) -> Answer:
    message = {
        "id": f"msg-{prompt.pod}-{prompt.serial}",
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "stop_sequence": None,
        "usage": prompt.usage_in_and_out,
    }
    if not prompt.streamed:
        content = [{"type": "text", "text": prompt.text}]
        whole = {**message, "content": content, "stop_reason": "end_turn"}
        return Answer.json(whole, tokens=prompt.tokens)
    begun: dict[str, Any] = {**message, "content": [], "stop_reason": None}
    block = {"type": "text", "text": ""}
    delta = {"type": "text_delta", "text": PIECE}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    stream = Stream(
        first=(
            prompt.event("message_start", message=begun),
            prompt.event("content_block_start", index=0, content_block=block),
        ),
        token=prompt.event("content_block_delta", index=0, delta=delta),
        tokens=prompt.tokens,
        last=(
            prompt.event("content_block_stop", index=0),
            prompt.event("message_delta", delta=stop, usage=prompt.usage_in_and_out),
        ),
        closing=prompt.event("message_stop"),
    )
    return Answer(stream=stream)


def _inputs(prompt: Prompt, key: str) -> list[Any]:
    value = prompt.payload.get(key, "")
    return value if isinstance(value, list) else [value]


def _per_input(shape: str, key: str, item: Mapping[str, Any]) -> Callable[[Prompt], Answer]:
    """A route that answers with one `item` for each of the inputs found under `key`."""

    def reply(prompt: Prompt) -> Answer:
        data = [{"index": index, **item} for index, _ in enumerate(_inputs(prompt, key))]
        usage = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
        ident = f"{prompt.pod}-{prompt.serial}"
        common = {"id": ident, "model": prompt.model, "system_fingerprint": prompt.pod}
        return Answer.json({**common, "object": "list", shape: data, "usage": usage})

    return reply


def _constant(**payload: Any) -> Callable[[Prompt], Answer]:
    """A route whose answer is always the same, but for the pod's name."""
    return lambda prompt: Answer.json({**payload, "system_fingerprint": prompt.pod})


def _models(prompt: Prompt) -> Answer:
    model = {"id": prompt.model, "object": "model", "created": 0, "owned_by": prompt.pod}
    return Answer.json({"object": "list", "data": [model]})


def _png() -> bytes:
    """One grey pixel."""

    def block(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = block(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + block(b"IDAT", zlib.compress(b"\0\x80"))
        + block(b"IEND", b"")
    )


def _speech(_: Prompt) -> Answer:
    """A tenth of a second of silence."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    return Answer(body=sound.getvalue(), content_type="audio/wav")


_image = {"b64_json": base64.b64encode(_png()).decode()}
_vector = {"object": "embedding", "embedding": [0.1, 0.2, 0.3]}
_ROUTES: dict[str, tuple[str, Callable[[Prompt], Answer]]] = {
    "/v1/chat/completions": ("POST", _chat),
    "/v1/completions": ("POST", _completion),
    "/v1/responses": ("POST", _response),
    "/v1/messages": ("POST", _message),
    "/v1/embeddings": ("POST", _per_input("data", "input", _vector)),
    "/v1/rerank": ("POST", _per_input("results", "documents", {"relevance_score": 0.5})),
    "/v1/score": ("POST", _per_input("data", "text_2", {"object": "score", "score": 0.5})),
    "/v1/classify": ("POST", _per_input("data", "input", {"label": "fine", "probs": [1.0]})),
    "/v1/images/generations": ("POST", _constant(created=0, data=[_image])),
    "/v1/audio/transcriptions": ("POST", _constant(text="hello")),
    "/v1/audio/translations": ("POST", _constant(text="hello")),
    "/v1/audio/speech": ("POST", _speech),
    "/v1/models": ("GET", _models),
    "/v1/load_lora_adapter": ("POST", _constant(loaded=True)),
    "/v1/unload_lora_adapter": ("POST", _constant(loaded=False)),
}
