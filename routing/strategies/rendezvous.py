"""Rendezvous hashing (Thaler and Ravishankar): all gateways agree without talking to each other.

Every endpoint gets a number from the name and itself, and the highest wins. An endpoint that leaves
moves only the names it had; one that comes takes its share evenly from all others.
"""

from collections.abc import Sequence
from hashlib import blake2b

from cache.endpoints import Endpoint, Key

#: A prime (Mersenne's) beyond all that names and endpoints are hashed to.
PRIME = 2**61 - 1
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
        that the one is higher as the other.
        """
        factor, prime = name + 1, PRIME  # zero would make all equal
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
        if isinstance(endpoints, tuple):  # a list may change
            self._latest = endpoints, found
        return found

    def _learn(self, endpoints: Sequence[Endpoint]) -> None:
        if len(self._numbers) + len(endpoints) > MEMORY:
            self._numbers.clear()
        for endpoint in endpoints:
            self._numbers[endpoint.key] = number_of(endpoint.authority.encode())


def number_of(text: bytes) -> int:
    """The same number for the same text in every process."""
    return int.from_bytes(blake2b(text, digest_size=7).digest())
