"""A mounted Secret, as the kubelet keeps it, and what can become of such a file."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.harness import GatewayProcess, wait_for
from tests.wire import exchange, post


class Secret:
    """A file that is a link into `..data`, itself a link that is swapped for a new version."""

    def __init__(self, directory: Path, text: str) -> None:
        directory.mkdir()
        self.file = directory / "keys"
        self._versions = itertools.count()
        self.swap(text)

    def swap(self, text: str) -> None:
        """Replace the content as the kubelet does, and what somebody else may have put there."""
        version = self.file.with_name(f"..{next(self._versions)}")
        version.mkdir()
        (version / "keys").write_text(text)
        following = self.file.with_name("..data_tmp")
        following.symlink_to(version.name)
        following.rename(self.file.with_name("..data"))
        if not self.file.is_symlink() or not self.file.exists():
            self.clear()
            self.file.symlink_to("..data/keys")

    def rewrite(self, text: str) -> None:
        """Write into the file that is there."""
        self.file.write_text(text)

    def rename_over(self, text: str) -> None:
        """Replace the file as editors do."""
        new = self.file.with_name("new")
        new.write_text(text)
        new.rename(self.file)

    def clear(self) -> None:
        """Remove whatever is there."""
        if self.file.is_dir() and not self.file.is_symlink():
            shutil.rmtree(self.file)
        else:
            self.file.unlink(missing_ok=True)


CHANGES: dict[str, Callable[[Secret, str], None]] = {
    "rewritten": Secret.rewrite,
    "renamed over": Secret.rename_over,
    "swapped as Kubernetes does": Secret.swap,
}


Trouble = Callable[[Secret], None]


def removed(secret: Secret) -> None:
    secret.clear()


def emptied(secret: Secret) -> None:
    secret.rewrite("")


def without_its_target(secret: Secret) -> None:
    secret.file.with_name("..data").unlink()


def made_a_directory(secret: Secret) -> None:
    secret.clear()
    secret.file.mkdir()


def unreadable(secret: Secret) -> None:
    """A link to itself: no permission would keep root from reading."""
    secret.clear()
    secret.file.symlink_to(secret.file.name)


TROUBLES: list[Trouble] = [removed, emptied, without_its_target, made_a_directory, unreadable]


def told_of_keys(gateway: GatewayProcess) -> list[dict[str, Any]]:
    """What the log says of key files so far: lines come late, but in their order."""
    last = uuid4().hex
    exchange(gateway.port, post(b"", f"x-request-id: {last}", target="/nowhere"))
    wait_for(lambda: last in gateway.logs(), "the log is up to date")
    return [line for line in gateway.log_lines() if line["logger"] == "gateway.keys"]
