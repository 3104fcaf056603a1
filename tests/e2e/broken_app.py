"""The real application with a part that has a bug: its random numbers fail."""

import os
import random
from pathlib import Path

from assembly import build
from gateway import GatewayApp, create_app, source_of
from settings import Settings


class BrokenRandom(random.Random):
    """Has no samples to give, which one of the strategies needs."""

    def sample(self, *_: object, **__: object) -> list[int]:  # type: ignore[override]
        raise ZeroDivisionError("a bug")


def make() -> GatewayApp:
    settings = Settings.from_environ(os.environ)
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    return create_app(build(settings, source_of(settings), directory=directory, rng=BrokenRandom()))
