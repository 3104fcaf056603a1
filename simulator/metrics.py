"""What a model pod's engine says at `/metrics`, in vLLM's words or in SGLang's."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from simulator.answers import Answer
from simulator.behaviour import Behaviour, Dialect, Engine, Kind
from simulator.connection import Connection, Owner
from simulator.http import Request
from simulator.openai import PROMPT_TOKENS

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Load:
    """An engine's load: requests, the part of its KV cache in use, and tokens so far."""

    running: int = 0
    waiting: int = 0
    cache_usage: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    generated_per_second: float = 0.0


def page(model: str, load: Load, dialect: Dialect) -> Answer:
    """The answer to `/metrics`; a 404 from an engine that has none."""
    if dialect == "none":
        return Answer(404, at_once=True)
    gauges, counters = _NAMES[dialect](load)
    lines = []
    for kind, values in (("gauge", gauges), ("counter", counters)):
        for name, value in values.items():
            lines.append(f"# TYPE {name} {kind}")
            lines.append(f'{name}{{model_name="{model}"}} {value}')
    body = "\n".join(lines) + "\n"
    return Answer(body=body.encode(), content_type=_CONTENT_TYPE, at_once=True)


Values = Mapping[str, float]


def _vllm(load: Load) -> tuple[Values, Values]:
    gauges = {
        "vllm:num_requests_running": load.running,
        "vllm:num_requests_waiting": load.waiting,
        "vllm:gpu_cache_usage_perc": load.cache_usage,  # its name before 0.10
        "vllm:kv_cache_usage_perc": load.cache_usage,
    }
    counters = {
        "vllm:prompt_tokens_total": load.prompt_tokens,
        "vllm:generation_tokens_total": load.generated_tokens,
    }
    return gauges, counters


def _sglang(load: Load) -> tuple[Values, Values]:
    gauges = {
        "sglang:num_running_reqs": load.running,
        "sglang:num_queue_reqs": load.waiting,
        "sglang:token_usage": load.cache_usage,
        "sglang:gen_throughput": load.generated_per_second,
    }
    counters = {
        "sglang:prompt_tokens_total": load.prompt_tokens,
        "sglang:generation_tokens_total": load.generated_tokens,
    }
    return gauges, counters


_NAMES = {"vllm": _vllm, "sglang": _sglang}


@dataclass(frozen=True, slots=True)
class _Running:
    began: float  # monotonic seconds
    tokens: int


class Work:
    """The requests an engine works on, and the tokens it has read and made.

    It has no queue and no cache of its own: what is told of these is what a test wants told.
    """

    def __init__(self, engine: Engine) -> None:
        self._pretended = Load()
        self._pretends_to_run: int | None = None
        self._engine = engine
        self._running: dict[int, _Running] = {}  # by the request's id
        self._read = 0
        self._made = 0  # for requests that are over

    @property
    def active(self) -> int:
        """Requests being answered now."""
        return len(self._running)

    def begin(self, request: Request, answer: Answer) -> None:
        """A request comes in, to be answered so."""
        tokens = answer.stream.tokens if answer.stream else answer.tokens
        self._running[id(request)] = _Running(time.monotonic(), tokens)
        self._read += PROMPT_TOKENS

    def end(self, request: Request) -> None:
        """Its answer is over, or given up; probes never began."""
        running = self._running.pop(id(request), None)
        if running is not None:
            self._made += self._made_for(running)

    def pretend(self, running: int | None, waiting: int, cache_usage: float) -> None:
        """Tell these instead of the truth; `running` only if it is a number."""
        self._pretends_to_run = running
        self._pretended = Load(waiting=waiting, cache_usage=cache_usage)

    def load(self) -> Load:
        """What there is to tell."""
        running = self.active if self._pretends_to_run is None else self._pretends_to_run
        made = self._made + sum(self._made_for(each) for each in self._running.values())
        rate = self.active / max(self._engine.token_seconds, 0.001)
        return replace(
            self._pretended,
            running=running,
            prompt_tokens=self._read,
            generated_tokens=made,
            generated_per_second=rate,
        )

    def _made_for(self, running: _Running) -> int:
        """As many tokens as the engine's pace allows; how they are sent does not matter."""
        since_first = time.monotonic() - running.began - self._engine.first_token_seconds
        if since_first < 0:
            return 0
        return min(running.tokens, 1 + round(since_first / max(self._engine.token_seconds, 0.001)))


class Told(Owner, Protocol):
    """The process whose load is told."""

    def metrics(self) -> Answer:
        """The page as it is now."""


class MetricsPort:
    """The owner of connections to a port that serves `/metrics` and nothing else."""

    def __init__(self, process: Told) -> None:
        self._process = process
        self.name = process.name
        self.engine = process.engine

    @property
    def lingers(self) -> bool:
        """Whether connections may stay open between requests."""
        return self._process.lingers

    def opened(self, connection: Connection) -> None:
        """A client has connected: the process takes the connection with it when it ends."""
        self._process.opened(connection)

    def closed(self, connection: Connection) -> None:
        """The connection is no more."""
        self._process.closed(connection)

    def begin(self, request: Request) -> tuple[Answer, Behaviour | None]:
        """The page of metrics, or a 404."""
        return (self._process.metrics() if request.path == "/metrics" else Answer(404)), None

    def end(self, request: Request) -> None:
        """What began was not counted."""

    def abandoned(self) -> None:
        """Whoever left has lost nothing."""

    def take(self, kind: Kind) -> bool:
        """No answer is spoilt here."""
        del kind
        return False
