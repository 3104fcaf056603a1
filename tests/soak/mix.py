"""Clients of all kinds, what each was answered, and whether that was right."""

import json
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from simulator.openai import PIECE
from tests.e2e.crowd import leave
from tests.harness import GatewayProcess
from tests.wire import RawAnswer, Wire, chat_body, post

CLIENTS = 10
#: What a client may see beside the right answer, as the rules have it.
RETRIABLE, TRUNCATED, DIED_TWICE = "503, retriable", "visibly truncated", "502, died twice"
RIGHT, LEFT, UNKNOWN = "right", "left early", "404, unknown model"


@dataclass
class Mix:
    """Clients that ask for whole answers and streams, leave early, and mistake the model's name.

    A context manager that ends them all. `wrong` has what no rule allows.
    """

    gateway: GatewayProcess
    models: Sequence[str]
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards: seen
        self._threads = [
            threading.Thread(target=self._ask_on, args=(random.Random(number),))
            for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, rng: random.Random) -> None:
        kinds = (self._whole, self._stream, self._leaver, self._mistaken)
        while not self._stopping.is_set():
            ask = rng.choices(kinds, weights=(10, 10, 3, 1))[0]
            try:
                outcome = ask(rng, rng.choice(self.models))
            except (OSError, AssertionError, ValueError, KeyError, IndexError) as error:
                outcome = f"{ask.__name__}: {type(error).__name__}: {error}"
                self.wrong.append(outcome)
            with self._lock:
                self.seen[outcome] += 1
            if outcome == RETRIABLE:
                self._stopping.wait(1.0)  # as it was asked to

    def _whole(self, rng: random.Random, model: str) -> str:
        tokens = rng.randint(1, 30)
        answer = self._exchange(chat_body(model, max_tokens=tokens))
        return judged(answer) or whole(answer, tokens)

    def _stream(self, rng: random.Random, model: str) -> str:
        tokens = rng.randint(1, 60)
        answer = self._exchange(chat_body(model, max_tokens=tokens, stream=True))
        return judged(answer) or streamed(answer, tokens)

    def _leaver(self, rng: random.Random, model: str) -> str:
        """Leave before the head, or once the first bytes are there."""
        with Wire(self.gateway.port) as wire:
            wire.send(post(chat_body(model, max_tokens=200, stream=True)))
            if rng.random() < 0.7:
                assert wire.socket.recv(65_536), "nothing came"
            leave(wire, rng.choice(("fin", "rst")))
        return LEFT

    def _mistaken(self, rng: random.Random, model: str) -> str:
        answer = self._exchange(chat_body(f"{model}-{rng.randint(0, 10**9)}"))
        assert answer.value("x-gateway-error") == "model_not_found", answer.raw
        return UNKNOWN

    def _exchange(self, body: bytes) -> RawAnswer:
        with Wire(self.gateway.port) as wire:
            return wire.send(post(body)).read_to_the_end()


def judged(answer: RawAnswer) -> str:
    """What the rules say of an error; nothing for an answer that began well."""
    if answer.status == 200:
        return ""
    assert answer.complete, answer.raw
    assert not answer.reset, answer.raw
    if answer.status == 503:
        assert answer.value("x-should-retry") == "true", answer.raw
        assert answer.value("retry-after"), answer.raw
        return RETRIABLE
    # The pod that was to repeat it died too: only while both are being replaced.
    assert answer.value("x-gateway-error") == "upstream_reset", answer.raw
    return DIED_TWICE


def whole(answer: RawAnswer, tokens: int) -> str:
    """The verdict on an answer in one piece."""
    if not answer.complete:
        return TRUNCATED
    document = json.loads(answer.content)
    assert document["choices"][0]["message"]["content"] == PIECE * tokens, answer.raw
    assert document["usage"]["completion_tokens"] == tokens, answer.raw
    assert document["system_fingerprint"] == answer.value("target-pod"), answer.raw
    return RIGHT


def streamed(answer: RawAnswer, tokens: int) -> str:
    """The verdict on a stream of events: every token once, from one pod, and its end."""
    lines = answer.content.split(b"\n\n")
    events = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    done = events[-1:] == [b"[DONE]"]
    documents = [json.loads(event) for event in events if event != b"[DONE]"]
    errors = [document["error"]["code"] for document in documents if "error" in document]
    parts = [document for document in documents if "choices" in document]
    text = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
    pods = {part["system_fingerprint"] for part in parts} - {answer.value("target-pod")}
    assert not pods, f"parts of {pods}: {answer.raw!r}"
    if answer.complete:
        assert (text, done, errors) == (PIECE * tokens, True, []), answer.raw
        return RIGHT
    assert (PIECE * tokens).startswith(text), answer.raw
    assert (done, errors) == (False, ["upstream_died"]), answer.raw
    return TRUNCATED
