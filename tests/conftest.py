"""What holds for all tests, and pods of the simulator for those that look at one alone."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

from cache.endpoints import Endpoint
from simulator.pod import ModelPod
from tests.podclient import MakePod, ready_pod

# The machine is shared with real gateways under load: how long an example takes says nothing.
settings.register_profile("here", deadline=None, database=None)
settings.load_profile("here")


@pytest.fixture
def make_pod() -> Iterator[MakePod]:
    """Start pods that are ready, with engines of the settings given."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(ready_pod(**settings))


@pytest.fixture
def pod(make_pod: MakePod) -> ModelPod:
    """A pod that is ready."""
    return make_pod()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What listens on loopback, and accepts what a test lets it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def endpoint(listener: socket.socket) -> Endpoint:
    """The endpoint that `listener` is."""
    return Endpoint("127.0.0.1", listener.getsockname()[1])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests have measured, as they gave them to `record_property`."""
    figures = [
        f"{name}: {value}"
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
    ]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))
