"""How many gateways there seem to be, judged by whose requests run on the engines."""

from collections.abc import Iterable

from load.values import EngineLoad

#: At most this many workers are believed in.
MOST_GATEWAYS = 32.0
#: What was seen before weighs this much less with each round.
MEMORY = 0.9
#: A worker with fewer requests in flight, on average, takes itself for the only one. The ten of one
#: that sees a hundred tell what the others do; the only one of one that sees ten is mere chance.
#: Measured (bench/strategies, eight gateways): 1, 1.5 and 2 are equally good.
LEAST_OWN = 2.0


class Gateways:
    """Estimates how many workers send requests as this one does.

    They are as many as its own requests fit into all that engines report. One round says little,
    because few requests happen to be in flight when engines are asked, so averages are compared.
    What is beyond all that is believed in is not remembered: one report of a million requests would
    tell for a hundred rounds.
    """

    def __init__(self) -> None:
        self._own = 0.0
        self._reported = 0.0

    def seen(self, engines: Iterable[EngineLoad]) -> float:
        """The estimate after one more round of reports: 1 with little traffic of our own."""
        own = reported = 0.0
        for engine in engines:
            own += engine.in_flight
            reported += engine.requests
        self._own += (own - self._own) * (1.0 - MEMORY)
        self._reported += (reported - self._reported) * (1.0 - MEMORY)
        self._reported = min(self._reported, MOST_GATEWAYS * max(self._own, LEAST_OWN))
        if self._own < LEAST_OWN:
            return 1.0
        return max(1.0, self._reported / self._own)
