"""API keys that clients must present, from a file that may change at any time."""

import hashlib
import hmac
import logging
import os
from pathlib import Path

log = logging.getLogger("gateway.keys")

Hashes = tuple[bytes, ...]


class ApiKeys:
    """The valid keys: one a line in `path`, several at once so that they can be rotated.

    The file is read again when it changes. An unreadable or empty one admits nobody: a gateway
    that was told to check keys never stops doing so. Only hashes are kept.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        # Version and hashes, replaced as one and never edited. Two threads may read a new file at
        # once; whichever is late publishes a version that the next request finds to be old.
        self._known: tuple[object, Hashes] = (None, ())

    def admits(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header carries a valid key as a Bearer token (RFC 6750)."""
        scheme, _, key = (authorization or "").partition(" ")
        # As bytes, which WSGI shows as Latin-1.
        given = _hash(key.strip().encode("latin-1", "backslashreplace"))
        # Every hash is compared, so that the time taken says nothing of which came close.
        matches = [hmac.compare_digest(given, known) for known in self._current()]
        return scheme.lower() == "bearer" and any(matches)

    def _current(self) -> Hashes:
        version = self._version_on_disk()
        known, hashes = self._known
        if version != known:
            hashes = self._read()
            self._known = (version, hashes)
        return hashes

    def _version_on_disk(self) -> object:
        try:
            found = os.stat(self._path)
        except OSError as error:
            return error.errno
        # ctime, because a file may keep its mtime, and may become readable without a new one.
        return (found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino)

    def _read(self) -> Hashes:
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
