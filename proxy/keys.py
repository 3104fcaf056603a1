"""API keys that clients must present, from a file that may change at any time."""

import hashlib
import hmac
import logging
import os
import threading
from pathlib import Path

log = logging.getLogger("gateway.keys")


class ApiKeys:
    """The valid keys: one a line in `path`, several at once so that they can be rotated.

    The file is read again when it changes. An unreadable or empty one admits nobody: a gateway
    that was told to check keys never stops doing so. Only hashes are kept.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()  # guards: _version, _hashes
        self._version: object = None
        self._hashes: tuple[bytes, ...] = ()

    def admits(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header carries a valid key as a Bearer token (RFC 6750)."""
        scheme, _, key = (authorization or "").partition(" ")
        given = _hash(key.strip().encode("utf-8", "surrogateescape"))
        # Every hash is compared, so that the time taken says nothing of which came close.
        matches = [hmac.compare_digest(given, known) for known in self._current()]
        return scheme.lower() == "bearer" and any(matches)

    def _current(self) -> tuple[bytes, ...]:
        version = self._version_on_disk()
        with self._lock:
            if version != self._version or self._version is None:
                self._version = version
                self._hashes = self._read()
            return self._hashes

    def _version_on_disk(self) -> object:
        try:
            found = os.stat(self._path)
        except OSError as error:
            return error.errno
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _read(self) -> tuple[bytes, ...]:
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError as error:
            log.error("%s can't be read, so no key is valid: %s", self._path, error.strerror)  # noqa: TRY400
            return ()
        keys = [line.strip() for line in lines if line.strip()]
        if keys:
            log.info("%s: %d keys are valid", self._path, len(keys))
        else:
            log.error("%s has no keys, so no key is valid", self._path)
        return tuple(_hash(key) for key in keys)


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
