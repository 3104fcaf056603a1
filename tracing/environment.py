"""Whether requests are traced, as OpenTelemetry's own environment variables say."""

import logging
from collections.abc import Mapping

from proxy.trace import OFF, Tracing

log = logging.getLogger("gateway.tracing")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether there is somewhere to send spans to, and nobody has turned that off."""
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    none = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    return not (disabled or none) and any(environ.get(name, "").strip() for name in _ENDPOINTS)


def prepare(environ: Mapping[str, str]) -> None:
    """Import what a worker will need, and say in the log what is wrong. Once, before the fork."""
    if not wanted(environ):
        return
    protocol = next((value for name in _PROTOCOLS if (value := environ.get(name))), _SPOKEN)
    if protocol != _SPOKEN:
        log.warning("spans are sent by %s, not by %.40s", _SPOKEN, protocol)
    try:
        from tracing import spans
    except Exception as error:  # noqa: BLE001 - whatever it is, requests are answered without
        log.warning(
            "requests are not traced: OpenTelemetry can't be imported (%s); "
            "requirements-tracing.txt has what is missing",
            error,
        )
    else:
        log.debug("imported %s", spans.__name__)


def from_environ(environ: Mapping[str, str]) -> Tracing:
    """What traces requests; `OFF` unless that is wanted, and OpenTelemetry is installed.

    The rest of its variables (service name, sampler, headers, queue) it reads itself.
    """
    if not wanted(environ):
        return OFF
    try:
        from tracing.spans import OpenTelemetry
    except Exception as error:  # noqa: BLE001 - `prepare` has told it
        log.debug("OpenTelemetry can't be imported: %s", error)
        return OFF
    return OpenTelemetry()
