"""The gateway's settings: environment variables, read once and validated at start."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from routing.strategies import UnknownStrategy, check

T = TypeVar("T")
Parser = Callable[[str], T]


class SettingsError(ValueError):
    """A variable holds a value that can't be used: one line says which, what, what is allowed."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}={value!r} is not valid: expected {allowed}")


def _seconds(at_least: float, at_most: float = 86_400.0) -> Parser[float]:
    allowed = f"a number of seconds from {at_least:g} to {at_most:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(allowed) from None
        if not at_least <= value <= at_most:  # NaN fails here too
            raise ValueError(allowed)
        return value

    return parse


def _integer(at_least: int, at_most: int) -> Parser[int]:
    allowed = f"a whole number from {at_least} to {at_most}"

    def parse(text: str) -> int:
        digits = text.isascii() and text.isdigit() and len(text) < 20
        if not digits or not at_least <= int(text) <= at_most:
            raise ValueError(allowed)
        return int(text)

    return parse


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    try:
        return values[text.lower()]
    except KeyError:
        raise ValueError("true or false") from None


def _one_of(*allowed: str) -> Parser[str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text

    return parse


def _strategy(text: str) -> str:
    try:
        return check(text)
    except UnknownStrategy as error:
        raise ValueError(error.allowed) from None


def _text(text: str) -> str:
    return text


def _name(text: str) -> str:
    if not _DNS_LABEL.fullmatch(text):
        raise ValueError("a name of at most 63 small letters, digits and hyphens")
    return text


def _zone(text: str) -> str:
    if not re.fullmatch(_VALUE, text):
        raise ValueError("the value of the label topology.kubernetes.io/zone of the gateway's node")
    return text


def _selector(text: str) -> str:
    if not _SELECTOR.fullmatch(text):
        raise ValueError("a label selector such as 'team=blue,tier in (a, b),!canary'")
    return text


def _source_file(text: str) -> str | None:
    if text == "kubernetes":
        return None
    scheme, _, path = text.partition(":")
    if scheme != "file" or not path:
        raise ValueError("'kubernetes' or 'file:PATH'")
    return path


def _paths(text: str) -> tuple[str, ...]:
    paths = tuple(part.strip() for part in text.split(",") if part.strip())
    for path in paths:
        if not _PATH.fullmatch(path):
            raise ValueError("comma-separated paths, each starting with '/', without query or '%'")
    return paths


def _aliases(text: str) -> tuple[tuple[str, str], ...]:
    pairs: dict[str, str] = {}
    for part in text.split(","):
        alias, _, model = (piece.strip() for piece in part.partition("="))
        if not (alias and model and alias.isprintable() and model.isprintable()):
            raise ValueError("comma-separated ALIAS=MODEL, without control characters")
        if alias in pairs:
            raise ValueError(f"each alias once, not {alias!r} twice")
        pairs[alias] = model
    for model in pairs.values():
        if model in pairs:
            raise ValueError(f"aliases of models, not of the alias {model!r}")
    return tuple(pairs.items())


_PATH = re.compile(r"/[^\x00-\x20?#%<>\x7f-\U0010ffff]*")
_DNS_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_WORD = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = f"([a-z0-9][-a-z0-9.]*/)?{_WORD}"
_VALUE = f"({_WORD})?"
_REQUIREMENT = (
    rf" *(! *{_KEY}|{_KEY}( *(==?|!=) *{_VALUE}"
    rf"| +(in|notin) *\( *{_VALUE}( *, *{_VALUE})* *\))?) *"
)
_SELECTOR = re.compile(f"{_REQUIREMENT}(,{_REQUIREMENT})*")


def _setting(name: str, parse: Parser[Any], default: object) -> Any:
    """A field of `Settings` that is read from the environment variable `name`."""
    return field(default=default, metadata={"name": name, "parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can choose. Times are seconds. The README's table explains each."""

    source_file: str | None = _setting("GATEWAY_SOURCE", _source_file, None)
    namespace: str = _setting("GATEWAY_NAMESPACE", _name, "")
    label_selector: str = _setting("GATEWAY_SELECTOR", _selector, "model.aibrix.ai/name")
    service: str = _setting("GATEWAY_SERVICE", _name, "")
    port_name: str = _setting("GATEWAY_PORT_NAME", _name, "")
    poll_seconds: float = _setting("GATEWAY_POLL_SECONDS", _seconds(0.1, 3600), 2.0)
    watch: bool = _setting("GATEWAY_WATCH", _boolean, True)
    cache_ttl: float = _setting("GATEWAY_CACHE_TTL", _seconds(1), 600.0)
    strategy: str = _setting("GATEWAY_STRATEGY", _strategy, "least-request")
    scrape_seconds: float = _setting("GATEWAY_SCRAPE_SECONDS", _seconds(0, 3600), 1.0)
    zone: str = _setting("GATEWAY_ZONE", _zone, "")
    retries: int = _setting("GATEWAY_RETRIES", _integer(0, 10), 2)
    replay: bool = _setting("GATEWAY_REPLAY", _boolean, True)
    retry_after: int = _setting("GATEWAY_RETRY_AFTER", _integer(1, 60), 1)
    connect_timeout: float = _setting("GATEWAY_CONNECT_TIMEOUT", _seconds(0.01, 60), 1.0)
    first_byte_timeout: float = _setting("GATEWAY_FIRST_BYTE_TIMEOUT", _seconds(0.1), 600.0)
    idle_timeout: float = _setting("GATEWAY_IDLE_TIMEOUT", _seconds(0.1), 120.0)
    send_timeout: float = _setting("GATEWAY_SEND_TIMEOUT", _seconds(0.1), 30.0)
    total_timeout: float = _setting("GATEWAY_TOTAL_TIMEOUT", _seconds(1, 604_800), 14_400.0)
    max_body_bytes: int = _setting("GATEWAY_MAX_BODY_BYTES", _integer(1, 2**30), 33_554_432)
    terminating_fallback: bool = _setting("GATEWAY_TERMINATING_FALLBACK", _boolean, False)
    model_aliases: tuple[tuple[str, str], ...] = _setting("GATEWAY_MODEL_ALIASES", _aliases, ())
    hold_seconds: float = _setting("GATEWAY_HOLD_SECONDS", _seconds(0, 600), 0.0)
    hold_requests: int = _setting("GATEWAY_HOLD_REQUESTS", _integer(1, 4096), 64)
    require_serving: bool = _setting("GATEWAY_REQUIRE_SERVING", _boolean, True)
    allow_loopback: bool = _setting("GATEWAY_ALLOW_LOOPBACK", _boolean, False)
    extra_paths: tuple[str, ...] = _setting("GATEWAY_EXTRA_PATHS", _paths, ())
    api_keys_file: str = _setting("GATEWAY_API_KEYS_FILE", _text, "")
    protect_views: bool = _setting("GATEWAY_PROTECT_VIEWS", _boolean, False)
    upstream_api_key_file: str = _setting("GATEWAY_UPSTREAM_API_KEY_FILE", _text, "")
    port: int = _setting("PORT", _integer(1, 65_535), 8080)
    workers: int = _setting("GATEWAY_WORKERS", _integer(1, 64), 1)
    threads: int = _setting("GATEWAY_THREADS", _integer(1, 4096), 256)
    max_streams: int = _setting("GATEWAY_MAX_STREAMS", _integer(1, 30_000), 4096)
    relay: bool = _setting("GATEWAY_RELAY", _boolean, True)
    niceness: int = _setting("GATEWAY_NICENESS", _integer(0, 19), 0)
    grace_seconds: float = _setting("GATEWAY_GRACE_SECONDS", _seconds(0), 600.0)
    log_level: str = _setting(
        "GATEWAY_LOG_LEVEL", _one_of("debug", "info", "warning", "error"), "info"
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings; an empty variable counts as absent.

        Raises `SettingsError` for the first variable that can't be used. Variables that are not
        settings are ignored, also with our prefix: Kubernetes itself sets such (`GATEWAY_PORT`,
        `GATEWAY_SERVICE_HOST`) in every pod that runs beside a Service named `gateway`.
        """
        values: dict[str, Any] = {}
        for item in fields(cls):
            name = item.metadata["name"]
            text = environ.get(name, "").strip()
            if text:
                try:
                    values[item.name] = item.metadata["parse"](text)
                except ValueError as error:
                    raise SettingsError(name, text, str(error)) from None
        settings = cls(**values)
        if settings.cache_ttl <= settings.poll_seconds:
            allowed = f"more than GATEWAY_POLL_SECONDS, which is {settings.poll_seconds:g}"
            raise SettingsError("GATEWAY_CACHE_TTL", f"{settings.cache_ttl:g}", allowed)
        if settings.protect_views and not settings.api_keys_file:
            allowed = "false, unless GATEWAY_API_KEYS_FILE says which keys are valid"
            raise SettingsError("GATEWAY_PROTECT_VIEWS", "true", allowed)
        if settings.hold_seconds and settings.hold_requests > settings.threads // 2:
            allowed = f"at most {settings.threads // 2}, half of GATEWAY_THREADS"
            raise SettingsError("GATEWAY_HOLD_REQUESTS", f"{settings.hold_requests}", allowed)
        return settings

    @property
    def selector(self) -> str:
        """The label selector that is sent to the API server."""
        if self.service:
            return f"kubernetes.io/service-name={self.service}"
        return self.label_selector
