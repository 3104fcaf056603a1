"""The front door: the Flask application and its routes, and how it is made from the environment."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, jsonify, redirect, request
from flask.typing import ResponseReturnValue
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from werkzeug.wrappers import Response

import status
from assembly import build
from cache.kubernetes import KubernetesSource
from cache.source import FileSource, Source
from exposition import EngineCollector, GatewayCollector
from parts import Gateway
from proxy.call import call_of
from proxy.errors import GatewayError
from proxy.steps import carry_out
from settings import Settings
from views.document import Overview
from views.page import Page
from views.totals import Totals

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class GatewayApp(Flask):
    """The Flask application; the server's hooks find its gateway here."""

    gateway: Gateway

    def wsgi_app(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request.

        An inference request goes past Flask's dispatch, of which it needs nothing: contexts,
        matching and signals would add 115 to its 180 µs.
        """
        inference = self.gateway.inference
        if environ["PATH_INFO"] in inference.paths:
            return carry_out(inference.handle(call_of(environ)))(environ, start_response)
        return super().wsgi_app(environ, start_response)


def create_app(gateway: Gateway) -> GatewayApp:
    """The application over `gateway`, which it neither starts nor stops."""
    app = GatewayApp(__name__, static_folder=None, template_folder="views")
    app.gateway = gateway
    app.url_map.merge_slashes = False  # a path is what it says, or unknown
    app.url_map.strict_slashes = False
    _add_models(app)
    counted = _counted()
    _add_probes(app, counted)
    _add_status(app, counted)
    _add_errors(app)
    return app


def from_environ() -> GatewayApp:
    """The application as the environment describes it; one per worker process.

    Raises `SettingsError`, which the server's start has ruled out before.
    """
    settings = Settings.from_environ(os.environ)
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return create_app(
        build(settings, source_of(settings), directory=Path(directory) if directory else None)
    )


def source_of(settings: Settings) -> Source:
    """Where slices come from."""
    if settings.source_file is not None:
        return FileSource(settings.source_file)
    return KubernetesSource(settings.namespace, settings.selector)


def _add_models(app: GatewayApp) -> None:
    @app.get("/v1/models", provide_automatic_options=False)
    def list_models() -> ResponseReturnValue:
        _authorize(app)
        return jsonify(status.models(app.gateway))

    @app.get("/v1/models/<path:name>", provide_automatic_options=False)
    def get_model(name: str) -> ResponseReturnValue:
        _authorize(app)
        return jsonify(status.model(app.gateway, name.rstrip("/")))


def _authorize(app: GatewayApp) -> None:
    """Raise `GatewayError` unless the request being answered may be."""
    app.gateway.inference.authorize(request.headers.get("Authorization"))


def _add_probes(app: GatewayApp, counted: CollectorRegistry) -> None:
    registry = CollectorRegistry()
    registry.register(_collector(app.gateway, counted))
    registry.register(EngineCollector(app.gateway.pools, app.gateway.loads.snapshot))
    protects_views = app.gateway.settings.protect_views

    @app.get("/healthz", provide_automatic_options=False)
    def healthz() -> ResponseReturnValue:
        document, ready = status.health(app.gateway)
        return jsonify(document), 200 if ready else 503

    @app.get("/livez", provide_automatic_options=False)
    def livez() -> ResponseReturnValue:
        return jsonify({"status": "alive"})

    @app.get("/metrics", provide_automatic_options=False)
    def metrics() -> ResponseReturnValue:
        if protects_views:
            _authorize(app)
        return generate_latest(registry), {"Content-Type": CONTENT_TYPE_LATEST}


def _add_status(app: GatewayApp, counted: CollectorRegistry) -> None:
    overview = Overview(app.gateway, Totals(counted, time.monotonic))
    app.gateway.peers.speak = overview.speak
    page = Page()
    protects_views = app.gateway.settings.protect_views

    @app.get("/", provide_automatic_options=False)
    def root() -> ResponseReturnValue:
        return redirect("status")  # relative: a proxy may show us under a path of its own

    @app.get("/status", provide_automatic_options=False)
    def status_page() -> ResponseReturnValue:
        try:
            if protects_views:
                _authorize(app)
        except GatewayError as error:
            if "text/html" not in request.headers.get("Accept", ""):
                raise
            refused = app.gateway.inference.refuse(error, call_of(request.environ))
            fields = dict(refused.fields) | page.fields
            del fields["Content-Length"]
            return page.locked(), error.kind.status, fields
        if request.path.endswith("/"):  # what the page asks for would be below it
            return redirect("../status")
        return page.render(overview.read()), page.fields

    @app.get("/status.json", provide_automatic_options=False)
    def status_document() -> ResponseReturnValue:
        if protects_views:
            _authorize(app)
        return overview.read(), {"Content-Type": "application/json", "Cache-Control": "no-store"}


def _counted() -> CollectorRegistry:
    """What all workers count, or this process where it is alone."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    counted = CollectorRegistry()
    MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    return counted


def _collector(gateway: Gateway, counted: CollectorRegistry) -> GatewayCollector:
    return GatewayCollector(
        counted,
        gateway.pools,
        lambda: frozenset(key for facts in gateway.peers.ask() for key in facts.set_aside),
        time.monotonic,
    )


def _add_errors(app: GatewayApp) -> None:
    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        answer = app.gateway.inference.refuse(error, call_of(request.environ))
        return Response(answer.body, answer.status, answer.fields)
