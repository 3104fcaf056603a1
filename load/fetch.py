"""How a scraper gets pages: somebody else speaks HTTP, and says in a word what went wrong."""

from collections.abc import Collection
from typing import Protocol

from cache.endpoints import Endpoint


class FetchError(Exception):
    """There is no page; `result` says why in a word, as `gateway_scrapes_total` counts it."""

    def __init__(self, result: str) -> None:
        super().__init__(result)
        self.result = result


class Pages(Protocol):
    """Gets engines' pages of metrics."""

    def fetch(self, endpoint: Endpoint) -> str:
        """The text at the endpoint's `/metrics`. Raises `FetchError`. Called by several threads."""

    def keep(self, endpoints: Collection[Endpoint]) -> None:
        """Only these are asked from now on: what is held for others is let go."""
