"""Prefix affinity: a prompt goes where the longest part of its beginning was sent before."""

import random
import re
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain
from zlib import crc32

from cache.endpoints import Endpoint, Key
from routing.strategies.base import Strategy
from routing.strategies.rendezvous import Rendezvous
from routing.view import Query, View

#: Where the beginning of a prompt is hashed, in bytes: finely at first, because what many prompts
#: share may be short, then coarsely. What is beyond 64 KiB (some 16,000 tokens) has no say: hashing
#: it would cost as much as all the rest of a choice.
CUTS = tuple(
    chain(range(256, 2048, 256), range(2048, 16_384, 1024), range(16_384, 65_536 + 1, 2048))
)
#: Beginnings remembered at most, of all lengths; the ones used the longest ago are forgotten first.
MEMORY = 65_536
#: Endpoints remembered for one beginning; the latest ones.
_HOLDERS = 8
#: An engine that spares us all of a prompt's reading may have so many requests more than the least
#: busy one, or twice as many as engines have on average; one that spares a part of it, that part of
#: these. With one limit for all, whatever is spared, a system prompt of a hundred tokens that all
#: requests share put the median 12 % above random's (bench/strategies); now it is 29 % below.
_MORE = 4.0
#: A prompt that none is known to hold goes where it would in every gateway, within the limit for
#: this part: another gateway may have sent its beginning there.
_NEW = 0.25
#: What comes before a prompt in a body of OpenAI's or Anthropic's APIs. Inside a string of JSON no
#: such text can stand, because its quotes would be escaped.
_PROMPT = re.compile(rb'"(?:messages|prompt|input)"[ \t\r\n]*:[ \t\r\n]*')


class PrefixCache(Strategy):
    """The endpoint that most likely holds the longest prefix of this prompt in its KV cache.

    Unless that engine is clearly busier than the rest, by more than the prefix is worth: then the
    next longest. A prompt that none of them holds goes to one of the engines that are not, chosen
    by what sets its beginning apart.
    """

    #: A system prompt of a few words that all share must not outweigh any load.
    in_full = 1.0

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._rendezvous = Rendezvous()
        # By the hash of a beginning: the endpoints it was sent to, the latest last.
        # An OrderedDict, because a dict looks for its first item through all that were removed.
        self._holders: OrderedDict[int, dict[Key, None]] = OrderedDict()

    def prepare(self, query: Query) -> None:
        """Hash the beginning of the prompt at growing lengths.

        Python's own hash is keyed anew in every process, so nobody can make two beginnings meet.
        """
        found = None if query.prompt else _PROMPT.search(query.body)
        if found is None:
            return
        query.prompt = query.body[found.end() : found.end() + CUTS[-1]]
        hashes = []
        number, start = hash(query.model), 0
        for end in CUTS:
            if end > len(query.prompt):
                break
            number = hash((number, query.prompt[start:end]))
            hashes.append(number)
            start = end
        query.prefix = tuple(hashes)

    def costs(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> list[float]:
        """The part of the prompt that each is not known to have seen."""
        seen = self._seen(query)
        length = max(1, len(query.prompt))
        parts = {key: CUTS[count - 1] / length for key, count in seen.items()}
        return [1.0 - parts.get(endpoint.key, 0.0) for endpoint in endpoints]

    def pick(self, endpoints: Sequence[Endpoint], view: View, query: Query) -> Endpoint:
        """Choose by prefix among those that are not too busy for what it saves."""
        if len(endpoints) == 1:
            return endpoints[0]
        busy = view.reports(endpoints).busy()
        least, mean = min(busy), sum(busy) / len(busy)

        def limit(part: float) -> float:
            """Requests an engine may have that spares us this part of the prompt."""
            return max(least + _MORE * part, mean * (1.0 + part))

        seen = self._seen(query)
        limits = {n: limit(CUTS[n - 1] / len(query.prompt)) for n in set(seen.values())}
        longest = 0
        holders: list[tuple[float, Endpoint]] = []
        for one, load in zip(endpoints, busy, strict=True):
            cuts = seen.get(one.key, 0)
            if cuts and cuts >= longest and load <= limits[cuts]:
                if cuts > longest:
                    longest, holders = cuts, []
                holders.append((load, one))
        if holders:
            lowest = min(load for load, _ in holders)
            return self.any_of([one for load, one in holders if load == lowest])
        most = limit(_NEW)
        free = [one for one, load in zip(endpoints, busy, strict=True) if load <= most]
        return self._new(free, query, max(seen.values(), default=0))

    def chosen(self, endpoint: Endpoint, query: Query) -> None:
        """From now on it is taken to hold all beginnings of this prompt."""
        for number in reversed(query.prefix):  # the shortest is used last, so forgotten last
            holders = self._holders.setdefault(number, {})
            self._holders.move_to_end(number)
            holders.pop(endpoint.key, None)
            holders[endpoint.key] = None
            if len(holders) > _HOLDERS:
                del holders[next(iter(holders))]
        while len(self._holders) > MEMORY:
            self._holders.popitem(last=False)

    def _seen(self, query: Query) -> dict[Key, int]:
        """How many cuts of the prompt each endpoint has seen; absent where none."""
        seen: dict[Key, int] = {}
        for count in range(len(query.prefix), 0, -1):
            holders = self._holders.get(query.prefix[count - 1])
            if holders:
                for key in holders:
                    seen.setdefault(key, count)
        return seen

    def _new(self, endpoints: Sequence[Endpoint], query: Query, known: int) -> Endpoint:
        """Where a prompt goes of which no more than `known` cuts were ever seen.

        The piece after these decides: it is the first that not every such prompt has.
        """
        if known == len(query.prefix):
            return self.any_of(endpoints)
        start = CUTS[known - 1] if known else 0
        return self._rendezvous.first(crc32(query.prompt[start : CUTS[known]]), endpoints)
