"""Start the relay: `python -m relay DIRECTORY LISTENER LOCK GATEWAY`.

DIRECTORY is the gateway's own, LISTENER and LOCK are inherited descriptors (the lock says that a
relay lives, as long as this process holds it), GATEWAY is the id of the process that must live.
"""

import json
import os
import socket
import sys
import time
import traceback

from relay.loop import Relay


def main(directory: str, listener: str, lock: str, gateway: str) -> int:
    """Serve until the gateway is gone. `lock` is held by being inherited."""

    def gateway_is_gone() -> bool:
        try:
            os.kill(int(gateway), 0)
        except ProcessLookupError:
            return True
        return not os.path.isdir(directory)

    try:
        entrance = socket.socket(fileno=int(listener))
        entrance.listen(64)  # here: so the kernel tells workers who is at the other end
        Relay(entrance, gateway_is_gone).run()
    except Exception as error:  # noqa: BLE001 - said in the gateway's way; the workers start another
        _log_bug(error)
        return 1
    return 0


def _log_bug(error: Exception) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "level": "error",
        "logger": "gateway.relay",
        "message": "a bug in the relay: its streams break off",
        "exception": f"{type(error).__name__}: {error}",
        "at": f"{place.filename}:{place.lineno} {place.name}",
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
