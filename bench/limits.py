"""How many connections a process may have."""

import resource


def raise_descriptors() -> None:
    """Allow as many file descriptors as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
