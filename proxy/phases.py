"""What a client's connection waits for, and for how long."""

from enum import Enum
from typing import Final

#: Seconds from a request's first byte to the end of its head.
HEAD_SECONDS: Final = 10.0
#: Seconds a body may lag behind `BODY_RATE`, bytes a second; and what a fast start is good for.
BODY_LAG_SECONDS: Final = 10.0
BODY_CREDIT_SECONDS: Final = 60.0
BODY_RATE: Final = 1024.0


class Phase(Enum):
    """What a connection waits for."""

    IDLE = "a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    BUSY = "an answer"
    AWAY = "an answer that is passed on elsewhere"
    SENDING = "a client that takes the rest of an answer"
    OVER = "nothing"
