"""Settings: what is read, what is refused, and how that is said."""

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import Settings, SettingsError
from tests.harness import ROOT

DEFAULTS = {
    "source_file": None,
    "namespace": "",
    "label_selector": "model.aibrix.ai/name",
    "service": "",
    "port_name": "",
    "poll_seconds": 2,
    "watch": True,
    "cache_ttl": 600,
    "strategy": "least-request",
    "retries": 2,
    "replay": True,
    "retry_after": 1,
    "connect_timeout": 1,
    "first_byte_timeout": 600,
    "idle_timeout": 120,
    "max_body_bytes": 33554432,
    "terminating_fallback": False,
    "api_keys_file": "",
    "protect_views": False,
    "upstream_api_key_file": "",
    "require_serving": True,
    "allow_loopback": False,
    "extra_paths": (),
    "port": 8080,
    "workers": 1,
    "grace_seconds": 600,
    "log_level": "info",
}


def test_an_empty_environment_gives_the_defaults_that_are_promised() -> None:
    settings = Settings.from_environ({})
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("GATEWAY_SOURCE", "kubernetes", "source_file", None),
        ("GATEWAY_SOURCE", "file:/tmp/slices.json", "source_file", "/tmp/slices.json"),
        ("GATEWAY_SOURCE", "file:C:/a:b", "source_file", "C:/a:b"),
        ("GATEWAY_NAMESPACE", "models-2", "namespace", "models-2"),
        ("GATEWAY_SELECTOR", "a=b,!c", "label_selector", "a=b,!c"),
        ("GATEWAY_SERVICE", "llama", "service", "llama"),
        ("GATEWAY_PORT_NAME", "http-api", "port_name", "http-api"),
        ("GATEWAY_POLL_SECONDS", "0.25", "poll_seconds", 0.25),
        ("GATEWAY_WATCH", "FALSE", "watch", False),
        ("GATEWAY_WATCH", "0", "watch", False),
        ("GATEWAY_CACHE_TTL", "30", "cache_ttl", 30.0),
        ("GATEWAY_STRATEGY", "power-of-two", "strategy", "power-of-two"),
        ("GATEWAY_RETRIES", "0", "retries", 0),
        ("GATEWAY_REPLAY", "false", "replay", False),
        ("GATEWAY_RETRY_AFTER", "60", "retry_after", 60),
        ("GATEWAY_CONNECT_TIMEOUT", "0.5", "connect_timeout", 0.5),
        ("GATEWAY_FIRST_BYTE_TIMEOUT", "30", "first_byte_timeout", 30.0),
        ("GATEWAY_IDLE_TIMEOUT", "5", "idle_timeout", 5.0),
        ("GATEWAY_MAX_BODY_BYTES", "1024", "max_body_bytes", 1024),
        ("GATEWAY_TERMINATING_FALLBACK", "true", "terminating_fallback", True),
        ("GATEWAY_REQUIRE_SERVING", "false", "require_serving", False),
        ("GATEWAY_ALLOW_LOOPBACK", "1", "allow_loopback", True),
        ("GATEWAY_EXTRA_PATHS", " /v1/a, ,/b/c ", "extra_paths", ("/v1/a", "/b/c")),
        ("GATEWAY_API_KEYS_FILE", "/etc/keys", "api_keys_file", "/etc/keys"),
        ("GATEWAY_UPSTREAM_API_KEY_FILE", "/etc/key", "upstream_api_key_file", "/etc/key"),
        ("PORT", "80", "port", 80),
        ("GATEWAY_WORKERS", "4", "workers", 4),
        ("GATEWAY_THREADS", "64", "threads", 64),
        ("GATEWAY_NICENESS", "10", "niceness", 10),
        ("GATEWAY_GRACE_SECONDS", "0", "grace_seconds", 0.0),
        ("GATEWAY_LOG_LEVEL", "debug", "log_level", "debug"),
    ],
)
def test_a_variable_sets_its_field_and_nothing_else(
    name: str, text: str, field: str, value: object
) -> None:
    settings = Settings.from_environ({name: f" {text} "})
    assert getattr(settings, field) == value
    others = DEFAULTS.keys() - {field}
    assert {other: getattr(settings, other) for other in others} == {
        other: DEFAULTS[other] for other in others
    }


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("GATEWAY_SOURCE", "file:", "'file:PATH'"),
        ("GATEWAY_SOURCE", "http://x", "'kubernetes'"),
        ("GATEWAY_NAMESPACE", "Models", "small letters"),
        ("GATEWAY_NAMESPACE", "a/b", "small letters"),
        ("GATEWAY_SERVICE", "a,b=c", "small letters"),
        ("GATEWAY_SERVICE", "-a", "small letters"),
        ("GATEWAY_SERVICE", "a" * 64, "63"),
        ("GATEWAY_PORT_NAME", "http api", "small letters"),
        ("GATEWAY_SELECTOR", "a===b", "label selector"),
        ("GATEWAY_SELECTOR", "a,,b", "label selector"),
        ("GATEWAY_SELECTOR", "a in b", "label selector"),
        ("GATEWAY_POLL_SECONDS", "0", "from 0.1"),
        ("GATEWAY_POLL_SECONDS", "-1", "from 0.1"),
        ("GATEWAY_POLL_SECONDS", "nan", "number of seconds"),
        ("GATEWAY_POLL_SECONDS", "inf", "number of seconds"),
        ("GATEWAY_POLL_SECONDS", "2s", "number of seconds"),
        ("GATEWAY_WATCH", "yes", "true or false"),
        ("GATEWAY_CACHE_TTL", "0", "from 1"),
        ("GATEWAY_STRATEGY", "fastest", "least-request"),
        ("GATEWAY_RETRIES", "-1", "whole number from 0"),
        ("GATEWAY_RETRIES", "1.5", "whole number"),
        ("GATEWAY_RETRIES", "9" * 5000, "whole number"),
        ("GATEWAY_RETRIES", "٣", "whole number"),
        ("GATEWAY_RETRY_AFTER", "0", "from 1 to 60"),
        ("GATEWAY_RETRY_AFTER", "61", "from 1 to 60"),
        ("GATEWAY_MAX_BODY_BYTES", "32MB", "whole number"),
        ("GATEWAY_EXTRA_PATHS", "v1/x", "starting with '/'"),
        ("GATEWAY_EXTRA_PATHS", "/v1/<path:any>", "starting with '/'"),
        ("GATEWAY_EXTRA_PATHS", "/v1/a?b", "starting with '/'"),
        ("GATEWAY_EXTRA_PATHS", "/v1/a\tb", "starting with '/'"),
        ("GATEWAY_PROTECT_VIEWS", "yes", "true or false"),
        ("PORT", "65536", "from 1 to 65535"),
        ("PORT", "0", "from 1"),
        ("GATEWAY_WORKERS", "0", "from 1"),
        ("GATEWAY_LOG_LEVEL", "verbose", "debug"),
    ],
)
def test_a_bad_value_is_one_line_that_names_variable_value_and_what_is_allowed(
    name: str, text: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({name: text})
    message = str(caught.value)
    assert message.startswith(f"{name}={text!r} is not valid: expected ")
    assert allowed in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "selector",
    [
        "model.aibrix.ai/name",
        "!canary",
        "a=",
        "a==b",
        "a != b , c",
        "tier in (gpu, cpu),example.com/x notin (y),z",
    ],
)
def test_every_form_of_a_label_selector_is_accepted(selector: str) -> None:
    assert Settings.from_environ({"GATEWAY_SELECTOR": selector}).selector == selector


def test_a_cache_that_is_stale_before_the_next_poll_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"GATEWAY_CACHE_TTL='5' .* more than .* is 10"):
        Settings.from_environ({"GATEWAY_POLL_SECONDS": "10", "GATEWAY_CACHE_TTL": "5"})


def test_views_that_are_protected_by_no_key_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"GATEWAY_PROTECT_VIEWS='true' .*_API_KEYS_FILE"):
        Settings.from_environ({"GATEWAY_PROTECT_VIEWS": "true"})
    given = {"GATEWAY_PROTECT_VIEWS": "true", "GATEWAY_API_KEYS_FILE": "/etc/keys"}
    assert Settings.from_environ(given).protect_views


def test_single_service_mode_selects_by_the_services_name() -> None:
    settings = Settings.from_environ({"GATEWAY_SERVICE": "llama", "GATEWAY_SELECTOR": "a=b"})
    assert settings.selector == "kubernetes.io/service-name=llama"


def test_empty_variables_count_as_absent() -> None:
    environ = {"GATEWAY_POLL_SECONDS": "", "GATEWAY_SERVICE": "  ", "PORT": ""}
    assert Settings.from_environ(environ) == Settings.from_environ({})


def test_what_kubernetes_sets_beside_a_service_named_gateway_is_ignored() -> None:
    environ = {
        "GATEWAY_PORT": "tcp://10.0.0.1:80",
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT": "80",
        "GATEWAY_PORT_80_TCP": "tcp://10.0.0.1:80",
    }
    assert Settings.from_environ(environ) == Settings.from_environ({})


def test_settings_can_not_be_changed() -> None:
    settings: Any = Settings.from_environ({})
    with pytest.raises(FrozenInstanceError):
        settings.retries = 3


@given(
    st.sampled_from(
        ["GATEWAY_POLL_SECONDS", "GATEWAY_RETRIES", "GATEWAY_SELECTOR", "GATEWAY_EXTRA_PATHS"]
    ),
    st.text(),
)
def test_no_value_whatever_raises_anything_else(name: str, text: str) -> None:
    message = ""
    try:
        Settings.from_environ({name: text})
    except SettingsError as error:
        message = str(error)
    assert message == "" or message.isprintable()


def test_the_server_ends_at_a_bad_value_with_status_2_and_one_line() -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn"],
        cwd=ROOT,
        env=environ | {"GATEWAY_RETRIES": "many"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "gateway: GATEWAY_RETRIES='many' is not valid: expected a whole number from 0 to 10"
    ]
