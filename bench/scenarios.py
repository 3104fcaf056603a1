"""The loads."""

from dataclasses import dataclass

ALL = ("direct", "nginx", "sglang-router", "floor", "floor-connect", "plain", "gateway")
PROXIES = ("direct", "nginx", "sglang-router", "gateway")
#: Those that no target of the project is a ratio to: measured once in a round.
ASIDE = ("direct", "plain")


@dataclass(frozen=True)
class Scenario:
    """A load. `share` is its length as a multiple of the seconds that were asked for."""

    name: str
    title: str
    targets: tuple[str, ...]
    streams: int = 0
    rate: float = 50.0
    clients: int = 0
    share: float = 1.0
    ramp: float = 2.0
    #: How often those that are compared are measured in a round, in turns; where moments decide,
    #: as with p99.
    times: int = 1
    #: Seconds that one stream lasts where they are short and follow each other; else 0.
    short: float = 0.0
    #: Whether tokens due within the same millisecond leave together, as a batch of an engine's do.
    ticks: bool = True

    def measures(self, target: str, turn: int) -> bool:
        """Whether it measures `target` in that turn."""
        return target in self.targets and (not turn or target not in ASIDE)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("single-1", "not streamed, 1 client", ALL, clients=1, share=0.5),
        Scenario("single-32", "not streamed, 32 clients", ALL, clients=32, share=0.5),
        Scenario("streams-100", "100 streams of 50 tokens/s", (*ALL[:4], *ALL[5:]), streams=100),
        Scenario(
            "streams-500",
            "500 streams of 50 tokens/s",
            (*PROXIES[:3], *ALL[5:]),
            streams=500,
            share=4.0,  # as long as an answer of an LLM may take
            times=3,
        ),
        Scenario(
            "streams-500-apart",
            "500 streams of 50 tokens/s, each token by itself",
            PROXIES,
            streams=500,
            share=2.0,
            ticks=False,
        ),
        Scenario("streams-1000", "1,000 streams of 50 tokens/s", PROXIES, streams=1000),
        Scenario(
            "mixed",
            "300 streams of 50 tokens/s + 8 clients",
            PROXIES,
            streams=300,
            clients=8,
            share=3.0,
            times=3,
        ),
        Scenario(
            "idle-2000",
            "2,000 streams of 1 token/s",
            ("gateway",),
            streams=2000,
            rate=1.0,
            share=6.0,
            ramp=4.0,
        ),
        Scenario(
            "leak",
            "200 streams of 1 s, again and again",
            ("gateway",),
            streams=200,
            share=6.0,
            short=1.0,
        ),
    )
}


def plans(scenario: Scenario, port: int, seconds: float) -> dict[str, dict[str, object]]:
    """What each load generator is told, by its module."""
    length = seconds * scenario.share
    told: dict[str, dict[str, object]] = {}
    if scenario.streams:
        lasts = scenario.short or length
        told["bench.load"] = {
            "port": port,
            "streams": scenario.streams,
            "tokens": max(1, round(lasts * scenario.rate)),
            "rate": scenario.rate,
            "ramp": scenario.ramp,
            "ticks": scenario.ticks,
            "again": length if scenario.short else 0.0,
        }
    if scenario.clients:
        beside = scenario.ramp if scenario.streams else 0.0
        told["bench.closed"] = {
            "port": port,
            "clients": scenario.clients,
            "seconds": length + beside,
        }
    return told
