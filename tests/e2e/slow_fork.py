"""The gateway's own configuration, with workers that take their time until they hear signals."""

import runpy
import time
from pathlib import Path
from typing import Any

_ours = runpy.run_path(str(Path(__file__).parents[2] / "gunicorn.conf.py"))
_their_post_fork = _ours["post_fork"]
globals().update({name: value for name, value in _ours.items() if not name.startswith("_")})


def post_fork(server: Any, worker: Any) -> None:
    """As ours, and then half a second in which the inherited handlers are still in place."""
    _their_post_fork(server, worker)
    time.sleep(0.5)
