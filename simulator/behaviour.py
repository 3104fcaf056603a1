"""How a model pod behaves: its engine on a good day, and the ways one request can go wrong."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Self

#: Whose names `/metrics` uses; "none": there is no such page.
Dialect = Literal["vllm", "sglang", "none"]


@dataclass(frozen=True, slots=True)
class Engine:
    """The temper of a pod's inference engine; times in seconds."""

    first_token_seconds: float = 0.0  # the head waits for it too
    token_seconds: float = 0.005
    tokens: int = 8  # made when the request names no maximum
    keep_alive_seconds: float = 5.0
    dies_at_sigterm: bool = False
    refuses_when_terminating: bool = True
    metrics: Dialect = "vllm"


class Kind(StrEnum):
    """What a request meets instead of a plain answer; the values are what a header may say."""

    RESET_DURING_REQUEST = "reset-during-request"
    RESET_BEFORE_HEAD = "reset-before-head"
    CLOSE_BEFORE_HEAD = "close-before-head"
    RESET_AFTER_HEAD = "reset-after-head"
    DIE_AFTER_TOKENS = "die-after-tokens"
    CLOSE_AFTER_TOKENS = "close-after-tokens"
    STALL_BEFORE_HEAD = "stall-before-head"
    STALL_AFTER_TOKENS = "stall-after-tokens"
    END_WITHOUT_DONE = "end-without-done"
    TRUNCATED_CHUNK = "truncated-chunk"
    BAD_CHUNK_SIZE = "bad-chunk-size"
    CHUNK_EXTENSIONS = "chunk-extensions"
    DRIP_CHUNK = "drip-chunk"
    TRAILERS = "trailers"
    SHORT_LENGTH = "short-length"
    CLOSE_FRAMED = "close-framed"
    CLOSE_FRAMED_TRUNCATED = "close-framed-truncated"
    HTTP_1_0 = "http-1.0"
    BOTH_FRAMINGS = "both-framings"
    TWO_LENGTHS = "two-lengths"
    EXTRA_BYTES = "extra-bytes"
    MANY_HEADERS = "many-headers"
    HUGE_HEADER = "huge-header"
    HOP_BY_HOP = "hop-by-hop"
    GATEWAY_ERROR_HEADER = "gateway-error-header"
    OBS_FOLD = "obs-fold"
    BARE_LF = "bare-lf"
    SLOW_HEAD = "slow-head"
    EARLY_HINTS = "early-hints"
    CONTINUE_FIRST = "continue-first"
    GARBAGE = "garbage"
    STATUS = "status"
    REDIRECT = "redirect"
    NO_CONTENT = "no-content"
    GZIP = "gzip"
    LARGE = "large"
    CLOSE_IDLE = "close-idle"
    RESET_ON_REUSE = "reset-on-reuse"


# The kinds that take a number, and the one meant when none is given.
NUMBERS: dict[Kind, float] = {
    Kind.DIE_AFTER_TOKENS: 3,
    Kind.CLOSE_AFTER_TOKENS: 3,
    Kind.STALL_BEFORE_HEAD: 1.0,  # seconds
    Kind.STALL_AFTER_TOKENS: 3,
    Kind.MANY_HEADERS: 120,
    Kind.HUGE_HEADER: 70_000,  # bytes of its value
    Kind.SLOW_HEAD: 1.0,  # seconds from its first byte to its last
    Kind.DRIP_CHUNK: 0.05,  # seconds between its segments
    Kind.STATUS: 500,
    Kind.LARGE: 32_000_000,  # bytes of the body
}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One way to go wrong, with its number where the kind takes one."""

    kind: Kind
    number: float = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME` or `NAME=NUMBER`; ValueError says what is not understood."""
        name, equals, number = text.strip().partition("=")
        try:
            kind = Kind(name)
        except ValueError:
            raise ValueError(f"no behaviour {name!r}; known: {', '.join(Kind)}") from None
        if equals and kind not in NUMBERS:
            raise ValueError(f"behaviour {name!r} takes no number")
        return cls(kind, float(number) if equals else NUMBERS.get(kind, 0))

    @property
    def count(self) -> int:
        """The number as a whole one: tokens, headers, bytes or a status."""
        return int(self.number)
