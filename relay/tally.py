"""A number that a worker and the relay both see, and that outlives the worker."""

import mmap
import os
from typing import Final, Self

_BYTES: Final = 8


class Tally:
    """Counts in memory that is shared by whoever has its descriptor: a count costs no message."""

    def __init__(self, descriptor: int) -> None:
        """Raises `OSError` if there is no descriptor left."""
        self._number = memoryview(mmap.mmap(descriptor, _BYTES)).cast("Q")

    @classmethod
    def begin(cls) -> tuple[Self, int]:
        """A new one, and the descriptor by which another process sees it; raises `OSError`."""
        descriptor = os.memfd_create("tally")
        try:
            os.ftruncate(descriptor, _BYTES)
            return cls(descriptor), descriptor
        except OSError:
            os.close(descriptor)
            raise

    @property
    def count(self) -> int:
        """How many were counted."""
        return self._number[0]

    def add(self) -> None:
        """Count one more."""
        self._number[0] += 1
