"""Clients that ask without a pause, and what became of each of their requests."""

import json
import threading
from dataclasses import dataclass, field

import requests

from tests.harness import GatewayProcess


@dataclass(slots=True)
class Outcome:
    """One request as its client saw it."""

    stream: bool
    status: int = 0
    pod: str = ""
    tokens: int = 0
    complete: bool = False  # well-formed to its end
    error_code: str = ""  # of the last event of a stream
    failure: str = ""  # what the client's library raised

    @property
    def good(self) -> bool:
        return self.status == 200 and self.complete and not self.error_code and not self.failure


@dataclass
class Load:
    """`clients` threads, every second one streaming; a context manager that ends them all."""

    gateway: GatewayProcess
    clients: int = 20
    model: str = "llama"
    outcomes: list[Outcome] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number % 2 == 0,))
            for number in range(self.clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, stream: bool) -> None:
        while not self._stopping.is_set():
            self.outcomes.append(self._ask(stream))

    def _ask(self, stream: bool) -> Outcome:
        outcome = Outcome(stream)
        try:
            answer = self.gateway.chat(self.model, stream=stream)
            outcome.status = answer.status_code
            outcome.pod = answer.headers.get("target-pod", "")
            if stream and answer.status_code == 200:
                self._read_events(answer, outcome)
            else:
                outcome.complete = "choices" in answer.json()
        except requests.RequestException as error:
            outcome.failure = f"{type(error).__name__}: {error}"
        return outcome

    def _read_events(self, answer: requests.Response, outcome: Outcome) -> None:
        for line in answer.iter_lines(chunk_size=None):
            data = line.removeprefix(b"data: ")
            if data == b"[DONE]":
                outcome.complete = True
            elif data:
                event = json.loads(data)
                outcome.error_code = event.get("error", {}).get("code", "")
                outcome.tokens += 1
