"""API keys, from files that may change at any time: those of clients, and the one for endpoints."""

import hashlib
import hmac
import logging
import re
from typing import Final

from proxy.errors import GatewayError
from proxy.watched import Unusable, WatchedFile

log = logging.getLogger("gateway.keys")

Hashes = tuple[bytes, ...]

#: What a header field can carry as a part of a credential: visible ASCII (RFC 9110 §5.5, §11.4).
_SENDABLE: Final = re.compile(rb"[!-~]{1,4096}")


class ApiKeys:
    """The valid keys of clients: one a line in `path`, several at once so that they can be rotated.

    The file is read again when it changes. An unreadable or empty one admits nobody: a gateway
    that was told to check keys never stops doing so. Only hashes are kept.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: WatchedFile[Hashes] = WatchedFile(path, (), self._read)
        self._file.current()  # so that the log tells of a mistake at the start

    def admits(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header carries a valid key as a Bearer token (RFC 6750).

        Raises `OSError` if the file has to be read and there is no file descriptor left for it.
        """
        scheme, _, key = (authorization or "").partition(" ")
        # As bytes, which WSGI shows as Latin-1.
        given = _hash(key.strip().encode("latin-1", "backslashreplace"))
        matches = False
        # Every hash is compared, so that the time taken says nothing of which came close.
        for known in self._file.current():
            matches |= hmac.compare_digest(given, known)
        return matches and scheme.lower() == "bearer"

    def _read(self, found: bytes | Unusable, _: Hashes) -> Hashes:
        if isinstance(found, Unusable):
            log.error("%s %s, so no key is valid", self._path, found)
            return ()
        keys = [line.strip() for line in found.splitlines() if line.strip()]
        if keys:
            log.info("%s: %d keys are valid", self._path, len(keys))
        else:
            log.error("%s has no keys, so no key is valid", self._path)
        return tuple(_hash(key) for key in keys)


class UpstreamKey:
    """The key that endpoints ask for: the first line of the file at `path` that is not empty.

    The file is read again when it changes. While it can't be used, the last key that could be is:
    an endpoint refuses a wrong one by itself, and a file that is being replaced shall cost nothing.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: WatchedFile[str | None] = WatchedFile(path, None, self._read)
        self._file.current()

    def authorization(self) -> str:
        """The value of `Authorization` for an endpoint (RFC 6750 §2.1).

        Raises `GatewayError` with `upstream_key_unknown` while there never was a key.
        """
        try:
            key = self._file.current()
        except OSError as error:
            log.warning("%s can't be looked at: %s", self._path, error.strerror)
            key = self._file.last
        if key is None:
            raise GatewayError(
                "upstream_key_unknown", "the gateway does not know its key for the endpoints yet"
            )
        return f"Bearer {key}"

    def _read(self, found: bytes | Unusable, last: str | None) -> str | None:
        try:
            key = _first_line(found)
        except Unusable as why:
            stays = "requests can't be forwarded" if last is None else "the last good key stays"
            log.error("%s %s, so %s", self._path, why, stays)  # noqa: TRY400 - no traceback
            return last
        log.info("%s: the key for endpoints is known", self._path)
        return key


def _first_line(found: bytes | Unusable) -> str:
    """The key in a file. Raises `Unusable`."""
    if isinstance(found, Unusable):
        raise found
    # Only LF and CRLF end a line here: what else might is nothing to send a part of.
    lines = (line.removesuffix(b"\r").strip(b" \t") for line in found.split(b"\n"))
    key = next(filter(None, lines), b"")
    if not key:
        raise Unusable("has no key")
    if not _SENDABLE.fullmatch(key):
        raise Unusable("has a key with other than 1 to 4096 visible ASCII characters")
    return key.decode("ascii")


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
