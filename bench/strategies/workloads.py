"""What is asked of the engines: requests with real bodies, and when they come."""

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from simulator.engine import Pace

MODEL = "chat"
ENGINES = 8
#: Bytes of text that make a token: about what English has.
TOKEN_BYTES = 4
PACE = Pace()
_LONGEST = 16_000  # tokens of a prompt


@dataclass(frozen=True, slots=True)
class Request:
    """One request as a gateway and an engine see it.

    `dice`, from 0 to 1, says which gateway gets it. `then` comes `pause` seconds after its answer
    has ended: the next turn of a conversation. `engine` is that of a client who asks it directly.
    """

    body: bytes = field(repr=False)
    session: str
    prefix: tuple[int, ...] = field(repr=False)
    prompt_tokens: int
    output_tokens: int
    dice: float
    then: "Request | None" = field(default=None, repr=False)
    pause: float = 0.0
    engine: int | None = None


Arrivals = list[tuple[float, Request]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of traffic. `rate` is requests (or conversations) a second to all engines together."""

    title: str
    rate: float
    make: Callable[[random.Random], Iterator[Request]]
    slow: float = 1.0  # the first engine takes so many times as long as the others
    turns: float = 1.0  # requests that an arrival makes, on average
    repeats: bool = False  # whether prompts begin like earlier ones, to an extent that matters

    def paces(self) -> list[Pace]:
        """The engines."""
        return [PACE.slower(self.slow), *[PACE] * (ENGINES - 1)]

    def arrivals(self, requests: int, seed: int) -> Arrivals:
        """Poisson arrivals of about so many requests; the same seed makes the same ones."""
        rng = random.Random(seed)
        made = self.make(rng)
        at, arrivals = 0.0, []
        for _ in range(round(requests / self.turns)):
            at += rng.expovariate(self.rate)
            arrivals.append((at, next(made)))
        return arrivals


class _Text:
    """Text nobody has written before, and the requests it makes."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def of(self, tokens: float) -> str:
        """So many tokens."""
        return self.rng.randbytes(int(tokens * TOKEN_BYTES) // 2).hex()

    def request(
        self,
        messages: list[dict[str, str]],
        output_tokens: float,
        session: str = "",
        then: Request | None = None,
        pause: float = 0.0,
        engine: int | None = None,
    ) -> Request:
        """A chat request; an engine's prompt is its messages as they are written."""
        body = json.dumps({"model": MODEL, "messages": messages}).encode()
        prompt = body[body.index(b"[") :]
        return Request(
            body,
            session,
            _blocks(prompt),
            len(prompt) // TOKEN_BYTES,
            max(1, int(output_tokens)),
            self.rng.random(),
            then,
            pause,
            engine,
        )


def _blocks(prompt: bytes) -> tuple[int, ...]:
    """A name for each full block of the prompt, made of all up to its end."""
    size = PACE.block * TOKEN_BYTES
    names, name = [], 0
    for start in range(0, len(prompt) - len(prompt) % size, size):
        name = hash((name, prompt[start : start + size]))
        names.append(name)
    return tuple(names)


def _says(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _log_normal(rng: random.Random, median: float, sigma: float, most: float) -> float:
    return min(most, rng.lognormvariate(math.log(median), sigma))


def _uniform(rng: random.Random) -> Iterator[Request]:
    text = _Text(rng)
    while True:
        yield text.request([_says("user", text.of(1000))], 150)


def _beside_others(rng: random.Random) -> Iterator[Request]:
    """A quarter of all requests go directly to one of two engines."""
    text = _Text(rng)
    while True:
        engine = rng.randrange(2) if rng.random() < 0.25 else None
        yield text.request([_says("user", text.of(1000))], 150, engine=engine)


def _short_prefix(rng: random.Random) -> Iterator[Request]:
    """All share a system prompt that is not worth following."""
    text = _Text(rng)
    system = _says("system", text.of(100))
    while True:
        yield text.request([system, _says("user", text.of(900))], 150)


def _skewed(rng: random.Random) -> Iterator[Request]:
    """Many short prompts and answers, and some that are very long."""
    text = _Text(rng)
    while True:
        prompt = text.of(_log_normal(rng, 400, 1.2, _LONGEST))
        yield text.request([_says("user", prompt)], _log_normal(rng, 80, 1.0, 2000))


def _shared_prefix(rng: random.Random) -> Iterator[Request]:
    """Some applications, each with its long system prompt, of Zipf's popularity."""
    text = _Text(rng)
    systems = [_says("system", text.of(rng.uniform(1500, 4500))) for _ in range(64)]
    weights = [1 / rank for rank in range(1, len(systems) + 1)]
    while True:
        (system,) = rng.choices(systems, weights)
        question = _says("user", text.of(rng.uniform(40, 200)))
        yield text.request([system, question], rng.uniform(60, 180))


def _multi_turn(rng: random.Random) -> Iterator[Request]:
    """Conversations of 3 to 9 turns; each turn's prompt has all that was said before."""
    text = _Text(rng)
    number = 0
    while True:
        number += 1
        messages = [_says("user", text.of(rng.uniform(200, 800)))]
        turns = [(list(messages), answer := rng.uniform(60, 240))]
        for _ in range(rng.randint(2, 8)):
            messages.append(_says("assistant", text.of(answer)))
            messages.append(_says("user", text.of(rng.uniform(30, 200))))
            turns.append((list(messages), answer := rng.uniform(60, 240)))
        request, pause = None, 0.0
        for said, answer in reversed(turns):
            request = text.request(said, answer, f"session-{number}", request, pause)
            pause = rng.expovariate(1 / 8)
        assert request is not None  # noqa: S101 - there are three turns at least
        yield request


WORKLOADS: Mapping[str, Workload] = {
    "uniform": Workload("every prompt new, 1,000 tokens; answers of 150", 40.0, _uniform),
    "short-prefix": Workload("prompts of 1,000 tokens share the first 100", 40.0, _short_prefix),
    "skewed": Workload("log-normal lengths: prompts 400 tokens at the median", 54.0, _skewed),
    "shared-prefix": Workload(
        "64 long system prompts, short questions", 32.0, _shared_prefix, repeats=True
    ),
    "multi-turn": Workload(
        "conversations of 3 to 9 turns", 6.0, _multi_turn, turns=6.0, repeats=True
    ),
    "slow-engine": Workload("as uniform, but one engine half as fast", 24.0, _uniform, slow=2.0),
    "other-clients": Workload(
        "as uniform, but a quarter of it goes past the gateways, to two engines",
        32.0,
        _beside_others,
    ),
}
