"""Reading what an engine exposes at `/metrics`: Prometheus text in, its load out. No I/O."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Names:
    """How an engine calls what is read here; of several names the first that is there counts.

    `usage` is the part of the KV cache in use. `tokens` are counters that are added up; where they
    are missing, `rate` says tokens a second.
    """

    running: str
    waiting: str
    usage: Sequence[str]
    tokens: Sequence[str]
    rate: str = ""

    @property
    def all(self) -> list[str]:
        """Every name."""
        names = [self.running, self.waiting, *self.usage, *self.tokens, self.rate]
        return [name for name in names if name]


VLLM = Names(
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),  # the latter before 0.10
    tokens=("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
)
SGLANG = Names(
    running="sglang:num_running_reqs",
    waiting="sglang:num_queue_reqs",
    usage=("sglang:token_usage",),
    tokens=("sglang:prompt_tokens_total", "sglang:generation_tokens_total"),
    rate="sglang:gen_throughput",
)
ENGINES = (VLLM, SGLANG)

#: A page has hundreds of lines, of which these few are worth the library's time.
_WANTED = re.compile(
    "^(?:{})[{{ \t].*$".format(
        "|".join(re.escape(name) for engine in ENGINES for name in engine.all)
    ),
    re.MULTILINE,
)
#: More lines than any engine has of them, however many ranks it has.
_MOST_LINES = 4096
#: More than any engine has: requests, tokens since it began, tokens a second. Counters that have
#: wrapped around or begun below zero say such things.
MOST_REQUESTS, MOST_TOKENS, MOST_RATE = 1e6, 1e15, 1e9


class NoMetrics(ValueError):
    """The text has none of the metrics of an engine known here."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a page says. `tokens` is a running total; where it is None, `rate` may say tokens/s."""

    running: float
    waiting: float
    kv_usage: float
    tokens: float | None
    rate: float


def read(text: str) -> Reading:
    """Read a page of metrics.

    Raises `NoMetrics`, and `ValueError` where what is wanted is there but makes no sense.
    """
    samples: dict[str, list[float]] = {}
    lines = _WANTED.findall(text)
    if len(lines) > _MOST_LINES:
        raise ValueError(f"{len(lines)} lines of an engine's metrics")
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if not math.isfinite(sample.value) or sample.value < 0:
                raise ValueError(f"{sample.name} is {sample.value}")
            samples.setdefault(sample.name, []).append(sample.value)
    for engine in ENGINES:
        if engine.running in samples and engine.waiting in samples:
            return _reading(engine, samples)
    raise NoMetrics("no metrics of vLLM or SGLang")


def _reading(engine: Names, samples: dict[str, list[float]]) -> Reading:
    """Data-parallel ranks have a sample each: requests add up, usage is their mean.

    Raises `ValueError` where that is more than any engine has.
    """
    usage = next((samples[name] for name in engine.usage if name in samples), [0.0])
    counted = [samples[name] for name in engine.tokens if name in samples]
    return Reading(
        running=_total(samples[engine.running], MOST_REQUESTS),
        waiting=_total(samples[engine.waiting], MOST_REQUESTS),
        kv_usage=min(1.0, sum(usage) / len(usage)),
        tokens=_total(chain.from_iterable(counted), MOST_TOKENS) if counted else None,
        rate=_total(samples.get(engine.rate, ()), MOST_RATE),
    )


def _total(of_ranks: Iterable[float], most: float) -> float:
    total = sum(of_ranks)
    if total > most:
        raise ValueError(f"{total:g} is more than the {most:g} that may be")
    return total
