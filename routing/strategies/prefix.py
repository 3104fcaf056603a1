"""Prefix affinity: a prompt goes where the longest part of its beginning was sent before."""

import random
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import chain
from zlib import crc32

from cache.endpoints import Endpoint, Key
from routing.prompts import beginning
from routing.strategies.base import Strategy
from routing.strategies.load import LeastBusy
from routing.strategies.rendezvous import Rendezvous
from routing.view import Query, View

#: Where the beginning of a prompt is hashed, in bytes: finely at first, because what many prompts
#: share may be short, then ever more coarsely. What is beyond 64 KiB (some 16,000 tokens) has no
#: say: hashing it would cost as much as all the rest of a choice.
CUTS = tuple(
    chain(
        range(256, 2048, 256),
        range(2048, 8192, 1024),
        range(8192, 32_768, 4096),
        range(32_768, 65_536 + 1, 8192),
    )
)
#: Beginnings remembered at most, of all lengths; the ones used the longest ago are forgotten first.
MEMORY = 65_536
#: Endpoints remembered for one beginning; the latest ones.
_HOLDERS = 8
#: An engine that spares us all of a prompt's reading may have so many requests more than the least
#: busy one, or twice as many as engines have on average; one that spares a part of it, that part of
#: these. With one limit for all, whatever is spared, a system prompt of a hundred tokens that all
#: requests share drew them together, and the median was above random's: `short-prefix` in
#: bench/strategies is that case.
_MORE = 4.0
#: A prompt that none is known to hold goes where it would in every gateway, within the limit for
#: this part: another gateway may have sent its beginning there.
_NEW = 0.25


class _Life:
    """An endpoint for as long as it is there: one that comes back has an empty cache."""

    __slots__ = ("gone", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.gone = False


class PrefixCache(Strategy):
    """The endpoint that most likely holds the longest prefix of this prompt in its KV cache.

    Unless that engine is clearly busier than the rest, by more than the prefix is worth: then the
    next longest. A prompt that none of them holds goes to one of the engines that are not, chosen
    by what sets its beginning apart. Where nothing does, because it is short or all of it is known,
    the least busy engine gets it. `memory` bounds the beginnings that are remembered.
    """

    #: A system prompt of a few words that all share must not outweigh any load.
    in_full = 1.0

    def __init__(self, rng: random.Random, memory: int = MEMORY) -> None:
        super().__init__(rng)
        self._memory = memory
        self._rendezvous = Rendezvous()
        self._least_busy = LeastBusy(rng)
        # By the hash of a beginning: the endpoints it was sent to, the latest last.
        # An OrderedDict, because a dict looks for its first item through all that were removed.
        self._holders: OrderedDict[int, tuple[_Life, ...]] = OrderedDict()
        self._lives: dict[Key, _Life] = {}

    def prepare(self, query: Query) -> None:
        """Hash the beginning of the prompt at growing lengths.

        Python's own hash is keyed anew in every process, so nobody can make two beginnings meet.
        """
        if query.prompt or not query.body:
            return
        query.prompt = beginning(query.body, CUTS[-1])
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
        if not query.prefix:
            return self._least_busy.pick(endpoints, view, query)
        reports = view.reports(endpoints)
        busy = reports.busy()
        least, mean = min(busy), sum(busy) / len(busy)

        def limit(part: float) -> float:
            """Requests an engine may have that spares us this part of the prompt."""
            return max(least + _MORE * part, mean * (1.0 + part))

        seen, length = self._seen(query), len(query.prompt)
        holders = []
        for key, cuts in seen.items():
            place = reports.places.get(key)
            if place is not None and busy[place] <= limit(CUTS[cuts - 1] / length):
                holders.append((cuts, -busy[place], place))
        if holders:
            best = max(holders)[:2]
            return self.any_of(
                [endpoints[place] for *worth, place in sorted(holders) if tuple(worth) == best]
            )
        known = max(seen.values(), default=0)
        if known == len(query.prefix):
            return self._least_busy.pick(endpoints, view, query)
        return self._new(endpoints, busy, limit(_NEW), query, known)

    def chosen(self, endpoint: Endpoint, query: Query) -> None:
        """From now on it is taken to hold all beginnings of this prompt."""
        if not query.prefix:
            return
        life = self._lives.get(endpoint.key)
        if life is None:
            life = self._lives[endpoint.key] = _Life(endpoint.key)
        only = (life,)
        all_holders = self._holders
        for number in reversed(query.prefix):  # the shortest is used last, so forgotten last
            holders = all_holders.get(number)
            if holders is None:
                all_holders[number] = only
                continue
            if holders[-1] is not life:
                others = [one for one in holders if one is not life and not one.gone]
                all_holders[number] = (*others[1 - _HOLDERS :], life)
            all_holders.move_to_end(number)
        while len(all_holders) > self._memory:
            all_holders.popitem(last=False)

    def forget(self, keys: Iterable[Key]) -> None:
        """These endpoints are gone, and what they held with them."""
        for key in keys:
            life = self._lives.pop(key, None)
            if life is not None:
                life.gone = True

    def _seen(self, query: Query) -> dict[Key, int]:
        """How many cuts of the prompt each endpoint has seen; absent where none."""
        seen: dict[Key, int] = {}
        if not query.prefix or query.prefix[0] not in self._holders:
            return seen  # then no longer one is there: they are forgotten earlier
        before: tuple[_Life, ...] = ()
        for count in range(len(query.prefix), 0, -1):
            holders = self._holders.get(query.prefix[count - 1], before)
            if holders is not before:  # mostly they are the same ones
                before = holders
                for life in holders:
                    if not life.gone:
                        seen.setdefault(life.key, count)
        return seen

    def _new(
        self,
        endpoints: Sequence[Endpoint],
        busy: Sequence[float],
        most: float,
        query: Query,
        known: int,
    ) -> Endpoint:
        """Where a prompt goes of which no more than `known` cuts were ever seen.

        It is one of those with `most` requests or fewer. The piece after these cuts decides: it is
        the first that not every such prompt has.
        """
        piece = query.prompt[CUTS[known - 1] if known else 0 : CUTS[known]]
        weights = self._rendezvous.weights(crc32(piece), endpoints)
        place = weights.index(max(weights))
        if busy[place] > most:
            weights = [
                weight if load <= most else -1 for weight, load in zip(weights, busy, strict=True)
            ]
            place = weights.index(max(weights))
        return endpoints[place]
