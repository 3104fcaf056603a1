"""How a check says that a parser did not do what it promises, and how it cuts its input."""


class Broken(Exception):
    """A parser does not keep a promise; the message says which, and of what."""


def expect(holds: bool, promise: str, *about: object) -> None:
    """Raise `Broken` unless `promise` holds; `about` is shown with it."""
    if not holds:
        raise Broken(f"not so: {promise}: {', '.join(repr(value) for value in about)}")


def pieces(data: bytes, size: int) -> list[bytes]:
    """`data` in pieces of `size` bytes, the last one maybe shorter."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def cut(data: bytes) -> tuple[int, bytes]:
    """The size of pieces that an input's first byte stands for, at least one, and its rest."""
    return 1 + (data[0] if data else 0), data[1:]
