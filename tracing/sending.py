"""Sending spans: from a thread of its own, told of in our log, and over in time."""

import logging
import threading
from collections.abc import Sequence
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger("gateway.tracing")

#: Seconds that a worker's end waits for spans to be sent.
STOP_SECONDS: Final = 2.0


class Heard(logging.Handler):
    """Hears what OpenTelemetry says, which it does at every attempt, and says it once.

    `why` is what its exporter said first since that was emptied.
    """

    def __init__(self) -> None:
        super().__init__()
        self.why = ""
        self._told: set[str] = set()
        self._logger = logging.getLogger("opentelemetry")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it if it is the exporter's, else say it, unless that has been said before."""
        if record.name.startswith("opentelemetry.exporter"):
            self.why = self.why or record.getMessage()
        elif record.msg not in self._told:
            self._told.add(record.msg)
            log.warning("OpenTelemetry: %s", record.getMessage())

    def begin(self) -> None:
        """Listen, in the place of the log."""
        self._logger.addHandler(self)
        self._logger.propagate = False

    def end(self) -> None:
        """Leave it to the log again."""
        self._logger.removeHandler(self)
        self._logger.propagate = True


class Exporter(SpanExporter):
    """Sends spans, and says once that this fails, and once that it works again."""

    def __init__(self, inner: SpanExporter, heard: Heard) -> None:
        self._inner = inner
        self._heard = heard
        self._fails = False
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them; called from the processor's thread, for as long as that takes."""
        self._heard.why = ""
        try:
            result = self._inner.export(spans)
            why = self._heard.why or "no reason is given"
        except Exception as error:  # noqa: BLE001 - told of below
            result = SpanExportResult.FAILURE
            why = f"{type(error).__name__}: {error}"
        works = result is SpanExportResult.SUCCESS
        if works and self._fails:
            log.info("spans are sent again; %d or more were lost", self._lost)
        elif not works and not self._fails:
            log.warning("spans can't be sent: %s", why)
        self._fails = not works
        self._lost = 0 if works else self._lost + len(spans)
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return True


def end(processor: SpanProcessor) -> None:
    """Let `processor` send what is left, but wait no longer than `STOP_SECONDS`.

    Its own limit is half a minute, and can't be chosen.
    """
    last = threading.Thread(target=processor.shutdown, name="last-spans", daemon=True)
    last.start()
    last.join(STOP_SECONDS)
    if last.is_alive():
        log.warning("the last spans could not be sent within %g s", STOP_SECONDS)
