"""The gateway's own configuration, in a process that may have `DESCRIPTORS`, by default 64."""

import os
import resource
import runpy
from pathlib import Path

DESCRIPTORS = int(os.environ.get("DESCRIPTORS", "64"))

resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
_ours = runpy.run_path(str(Path(__file__).parents[2] / "gunicorn.conf.py"))
globals().update({name: value for name, value in _ours.items() if not name.startswith("_")})
