"""How long a request takes to find its endpoint, in settings easy and hard."""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TypeVar

from bench.rows import Row, seconds
from cache.endpoints import Endpoint, Pool, Snapshot
from cache.store import SnapshotStore
from load.values import EngineLoad, LoadSnapshot, LoadStore
from proxy.request import model_of
from routing.aside import FAILURES, SetAside
from routing.inflight import InFlight
from routing.router import Router
from routing.strategies import STRATEGIES
from routing.strategies.prefix import CUTS, MEMORY, PrefixCache
from routing.view import Query

T = TypeVar("T")
MODELS = 1000
FEW = 10
MANY = 100
PICKS = 20_000
#: Prompts that are sent again and again, and such as nobody has sent before, in one run.
PROMPTS, NEW = 20, 200
#: Runs until there is no room in the memory of prompts.
FILLS = MEMORY // len(CUTS) // NEW + 1
#: Choices in a row that are judged together: few enough that a core is mostly ours alone.
BATCH = 20
#: Microseconds that a choice may take.
SIMPLE_ALLOWED = 20
ALLOWED = {"prefix-cache": 100}
#: Those that look at this worker's own counts only.
SIMPLE = ("random", "round-robin", "power-of-two", "least-request", "session-affinity")
#: What a pick is, for readers of the table.
PICK = (
    "A pick is all of a choice: candidates, finding and hashing the prompt, counting the request "
    "and giving it back; finding the model in the body's JSON, which comes before, is no part of "
    "it. Among a hundred endpoints, all of which report their load, each request brings a chat of "
    f"32,000 tokens in 128 KB, of which `prefix-cache` hashes the first {CUTS[-1] // 1024} KiB; as "
    "in the gateway, which has just looked for the model in it, the body is in the processor's "
    "cache. *Every prompt new* means that none begins like one before, while all "
    f"{MEMORY:,} places of its memory are taken, so that as much is forgotten as is remembered. "
    f"A run's figure is that of the fastest {BATCH} of its picks in a row; the other figures tell "
    "what else the machine did."
)


def bench_picks() -> Iterator[Row]:
    """From a model's name to an endpoint that is counted, and back, among ten endpoints."""
    pools = {
        name: Pool(name, tuple(Endpoint(f"10.{n // 250}.{n % 250}.{i}", 8000) for i in range(FEW)))
        for n in range(MODELS)
        if (name := f"model-{n}")
    }
    store = SnapshotStore(600.0, time.monotonic)
    store.put(Snapshot(pools, time.monotonic()))
    names = list(pools)
    router = _router(store, LoadStore(time.monotonic))
    for strategy in SIMPLE:

        def pick(number: int, strategy: str = strategy) -> None:
            query = Query(names[number % MODELS], f"session-{number}")
            lease = router.candidates(query, strategy).take()
            assert lease is not None  # noqa: S101 - every endpoint is ready
            lease.release()

        time_of_one = fastest(pick, range(PICKS))
        yield Row(f"pick by {strategy}, {FEW} endpoints", [time_of_one], "µs", SIMPLE_ALLOWED)


def fastest(
    pick: Callable[[T], None], requests: Sequence[T], read: Callable[[T], object] | None = None
) -> float:
    """Seconds that `pick` takes for one of `requests`, in the batch that went fastest.

    Before each `read` has it, whose time does not count.
    """
    best = inf
    for start in range(0, len(requests), BATCH):
        batch, total = requests[start : start + BATCH], 0.0
        for request in batch:
            if read is not None:
                read(request)
            total += seconds(partial(pick, request))
        best = min(best, total / len(batch))
    return best


@dataclass(frozen=True, slots=True)
class Setting:
    """What a choice among a hundred endpoints is like, beside what all of them are like."""

    title: str
    failing: bool = False
    zone: str = ""
    new_prompts: bool = False

    def router(self) -> tuple[Router, Endpoint]:
        """A router over a hundred endpoints, and the endpoint that fails: one of them or none."""
        endpoints = tuple(
            Endpoint(f"10.0.{n // 250}.{n % 250 + 1}", 8000, zone=f"zone-{n % 2}")
            for n in range(MANY)
        )
        store, loads = SnapshotStore(600.0, time.monotonic), LoadStore(time.monotonic)
        store.put(Snapshot({"llama": Pool("llama", endpoints)}, time.monotonic()))
        rng = random.Random(1)
        reports = {
            e.key: EngineLoad(rng.randrange(9), rng.randrange(3), rng.random()) for e in endpoints
        }
        loads.put(LoadSnapshot(reports, time.monotonic() + 3600))
        router = _router(store, loads, self.zone)
        failing = endpoints[MANY // 2] if self.failing else Endpoint("10.9.9.9", 8000)
        for _ in range(FAILURES):  # if it is none of these, some other model has its troubles
            router.aside.failed(failing, endpoints)
        return router, failing

    def seconds(self, strategy: str, prompts: "Prompts") -> float:
        """How long a choice takes."""
        picker = Picker(self, strategy)
        if not self.new_prompts:
            picker.seconds(prompts.seen)
            return picker.seconds(prompts.seen * (PICKS // 20 // PROMPTS))
        for _ in range(FILLS):
            picker.seconds(prompts.new())
        return picker.seconds(prompts.new())


class Picker:
    """Requests that come to a gateway one after the other."""

    def __init__(self, setting: Setting, strategy: str) -> None:
        self._router, self._failing = setting.router()
        self._strategy = strategy
        self._number = 0

    def pick(self, body: bytes) -> None:
        """Choose an endpoint, and give it back."""
        self._number += 1
        query = Query("llama", f"session-{self._number}", body)
        candidates = self._router.candidates(query, self._strategy)
        lease = candidates.take()
        assert lease is not None  # noqa: S101 - every endpoint is ready
        if lease.endpoint is self._failing:
            candidates.failed(self._failing)
        lease.release()

    def seconds(self, bodies: Sequence[bytes]) -> float:
        """How long a choice takes."""
        return fastest(self.pick, bodies, lambda body: body.count(b'"'))


SETTINGS = (
    Setting(""),
    Setting(", one of them failing", failing=True),
    Setting(", half of them in the own zone", zone="zone-1"),
)
NEW_PROMPTS = tuple(
    replace(setting, title=f"{setting.title}, every prompt new", new_prompts=True)
    for setting in SETTINGS
)


class Prompts:
    """Bodies with prompts of 32,000 tokens."""

    def __init__(self) -> None:
        rng = random.Random(1)
        self.seen = [long_body(rng) for _ in range(PROMPTS)]
        self._begin, self._text = self.seen[0].split(b'"content": "')
        self._number = 0

    def new(self) -> list[bytes]:
        """Some whose prompts differ from all others from the beginning."""
        self._number += 1
        return [
            b'%b"content": "%d-%d %b' % (self._begin, self._number, number, self._text)
            for number in range(NEW)
        ]


def bench_picks_of_many() -> Iterator[Row]:
    """The same among a hundred endpoints, all of which report their load, for a long prompt."""
    prompts = Prompts()
    for strategy in STRATEGIES:
        usual = SIMPLE_ALLOWED if strategy in SIMPLE else ALLOWED.get(strategy)
        more = NEW_PROMPTS if strategy == "prefix-cache" else ()
        for setting in (*SETTINGS, *more):
            allowed = None if setting.new_prompts else usual
            what = f"pick by {strategy}, {MANY} endpoints{setting.title}"
            yield Row(what, [setting.seconds(strategy, prompts)], "µs", allowed)


def bench_bodies() -> Iterator[Row]:
    """What grows with a body: the strategy's look at it, and the gateway's, which comes before."""
    prefix = PrefixCache(random.Random(1))
    for title, body in (
        ("that chat", long_body(random.Random(1))),
        ("as long a chat about code", code_body()),
        ("42 KB of an agent's first request", agent_body()),
    ):

        def prepare(body: bytes = body) -> None:
            for _ in range(100):
                prefix.prepare(Query("llama", "", body))

        def read(body: bytes = body) -> None:
            for _ in range(100):
                model_of(body, "", may_be_form=False)

        for what, work in (("hashing the prompt", prepare), ("finding the model", read)):
            yield Row(f"{title}: {what}", [seconds(work) / 100], "µs")


def code_body() -> bytes:
    """A chat of as many bytes, one of ten of which is escaped or a quote."""
    lines = "\n".join(f'    print("%d", rows[{n}])  # the {n}th' for n in range(2900))
    message = {"role": "user", "content": lines}
    return json.dumps({"model": "llama", "messages": [message]}).encode()


def long_body(rng: random.Random) -> bytes:
    """A chat whose prompt has 32,000 tokens of four bytes."""
    words = " ".join(f"{rng.randrange(1000):03}" for _ in range(32_000))
    message = {"role": "user", "content": words}
    return json.dumps({"model": "llama", "messages": [message]}).encode()


def agent_body() -> bytes:
    """A short question, followed by a system prompt and tools of 21 KB each."""
    parameters = {
        "type": "object",
        "properties": {"path": {"type": "string"}},
        "required": ["path"],
    }
    tools = [
        {"name": f"tool-{n}", "description": "Does what it says. " * 10, "input_schema": parameters}
        for n in range(62)
    ]
    members = {"system": "You are careful, and kind.\n" * 780, "tools": tools}
    messages = [{"role": "user", "content": "Why?"}]
    return json.dumps({"model": "llama", "messages": messages, **members}).encode()


def _router(store: SnapshotStore, loads: LoadStore, zone: str = "") -> Router:
    return Router(
        store,
        InFlight(),
        SetAside(time.monotonic),
        loads,
        default_strategy="least-request",
        rng=random.Random(1),
        zone=zone,
    )
