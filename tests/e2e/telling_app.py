"""The real application with a bug that tells of every object in its way."""

import os
import random
import sys
from pathlib import Path

from assembly import build
from gateway import GatewayApp, create_app, source_of
from settings import Settings

#: What a thing shows of itself is for it to decide; text and what holds text shows all there is.
_PLAIN = (str, bytes, bytearray, memoryview, dict, list, tuple, set, type(None))


class TellingRandom(random.Random):
    """Has no samples to give, and an error that shows the objects of all its callers."""

    def sample(self, *_: object, **__: object) -> list[int]:  # type: ignore[override]
        told, frame = [], sys._getframe(1)
        while frame.f_back is not None:
            told += [repr(x) for x in frame.f_locals.values() if not isinstance(x, _PLAIN)]
            frame = frame.f_back
        raise ZeroDivisionError(" ".join(told))


def make() -> GatewayApp:
    settings = Settings.from_environ(os.environ)
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    rng = TellingRandom()
    return create_app(build(settings, source_of(settings), directory=directory, rng=rng))
