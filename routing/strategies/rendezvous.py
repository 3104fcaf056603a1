"""Rendezvous hashing (Thaler and Ravishankar): all gateways agree without talking to each other.

Every endpoint gets a number from the name and itself, and the highest wins. An endpoint that leaves
moves only the names it had; one that comes takes its share evenly from all others.
"""

from collections.abc import Sequence
from hashlib import blake2b

from cache.endpoints import Endpoint, Key

#: The greatest prime below 2^30. Names and endpoints are hashed to what is less: Python divides by
#: numbers of 30 bits, which are one digit to it, in half the time that larger ones take.
PRIME = 2**30 - 35
#: Endpoints whose numbers are remembered; all are forgotten when there are more.
MEMORY = 65_536


class Rendezvous:
    """Ranks endpoints for names. Not thread-safe."""

    def __init__(self) -> None:
        self._numbers: dict[Key, int] = {}
        self._latest: tuple[Sequence[Endpoint], list[int]] = ((), [])

    def weights(self, name: int, endpoints: Sequence[Endpoint]) -> list[int]:
        """A number below `PRIME` for each of `endpoints`: the highest is the first choice.

        Multiplication modulo a prime (Carter and Wegman): for any two endpoints it is as likely
        that the one is higher as the other. No two have the same.
        """
        factor, prime = _from_one(name), PRIME
        return [factor * number % prime for number in self._numbers_of(endpoints)]

    def first(self, name: int, endpoints: Sequence[Endpoint]) -> Endpoint:
        """The first choice for `name`."""
        weights = self.weights(name, endpoints)
        return endpoints[weights.index(max(weights))]

    def _numbers_of(self, endpoints: Sequence[Endpoint]) -> list[int]:
        """A number for each; as long as a pool does not change, nothing is looked up."""
        of, found = self._latest
        if of is endpoints:
            return found
        numbers = self._numbers
        try:
            found = [numbers[endpoint.key] for endpoint in endpoints]
        except KeyError:
            self._learn(endpoints)
            found = [numbers[endpoint.key] for endpoint in endpoints]
        if len(set(found)) < len(found):
            found = _apart(found)
        if isinstance(endpoints, tuple):  # a list may change
            self._latest = endpoints, found
        return found

    def _learn(self, endpoints: Sequence[Endpoint]) -> None:
        if len(self._numbers) + len(endpoints) > MEMORY:
            self._numbers.clear()
        for endpoint in endpoints:
            self._numbers[endpoint.key] = _from_one(number_of(endpoint.authority.encode()))


def _from_one(number: int) -> int:
    """The number in the range from 1 to below `PRIME`: 0 would make all products equal."""
    return number % (PRIME - 1) + 1


def _apart(numbers: Sequence[int]) -> list[int]:
    """The same numbers, but none of them twice: of two equals the second would never be highest."""
    taken: dict[int, None] = {}
    for number in numbers:
        apart = number
        while apart in taken:
            apart = _from_one(apart)
        taken[apart] = None
    return list(taken)


def number_of(text: bytes) -> int:
    """The same number for the same text in every process."""
    return int.from_bytes(blake2b(text, digest_size=7).digest())
