"""The real application with a source that has a bug, or less patience than usual."""

import os
from collections.abc import Iterator
from pathlib import Path

from assembly import build
from cache.kubernetes import KubernetesSource, Limits
from cache.source import Event, Listing, Source
from gateway import GatewayApp, create_app, source_of
from settings import Settings

#: Seconds that all pages of a list may take together, where patience is short.
LISTING_SECONDS = 1.0


class Mortal:
    """A source that is as good as another until a file is there: then it has a bug."""

    def __init__(self, source: Source, sign: Path) -> None:
        self._source = source
        self._sign = sign
        self.longest_list = source.longest_list

    def list(self) -> Listing:
        if self._sign.exists():
            raise ZeroDivisionError("a bug")
        return self._source.list()

    def watch(self, resource_version: str, seconds: float) -> Iterator[Event]:
        return self._source.watch(resource_version, seconds)

    def renew_credentials(self) -> None:
        self._source.renew_credentials()


def mortal() -> GatewayApp:
    """Its discovery dies as soon as the file `$SIGN_OF_DEATH` is there."""
    settings = Settings.from_environ(os.environ)
    return _app(settings, Mortal(source_of(settings), Path(os.environ["SIGN_OF_DEATH"])))


def impatient() -> GatewayApp:
    """Its lists end after `LISTING_SECONDS`."""
    settings = Settings.from_environ(os.environ)
    limits = Limits(listing=LISTING_SECONDS)
    return _app(settings, KubernetesSource(settings.namespace, settings.selector, limits=limits))


def _app(settings: Settings, source: Source) -> GatewayApp:
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    return create_app(build(settings, source, directory=directory))
