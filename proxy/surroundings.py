"""What a client's connection needs of the loop it is on."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from proxy.arrival import Arrival, Incoming
from proxy.deadlines import Deadlines
from proxy.epoll import Epoll

if TYPE_CHECKING:
    from proxy.clients import Client


class Surroundings(Protocol):
    """What the connections of one loop share; all of it is used on the loop's thread.

    `unfinished` counts the bytes of requests that are not complete, of which there may be
    `most_unfinished`, and an eighth more for small ones. Times are seconds: `keepalive` without a
    request, `send_timeout` without a byte that the client takes.
    """

    poller: Epoll
    deadlines: Deadlines
    clock: Callable[[], float]
    keepalive: float
    send_timeout: float
    unfinished: int
    most_unfinished: int

    def arrival(self, address: Any) -> Arrival:
        """The requests of a new connection."""

    def dispatch(self, client: "Client", incoming: Incoming) -> None:
        """Answer a request; `client.answered` is to be called once."""

    def settle(self) -> None:
        """Call `client.answered` for those whose answer nobody has told of yet."""

    def refused(self, client: "Client", error: Exception) -> bytes:
        """The answer to what can't be answered by the application."""

    def defer(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call back on the loop's thread, later. May be called from any thread."""

    def linger(self, client: "Client") -> None:
        """Close the connection of `client`, which is watched no more, when the client does."""

    def closed(self, client: "Client") -> None:
        """The connection is closed."""
