"""Tracing: a request and its attempts as OpenTelemetry's spans, where somebody wants them."""
