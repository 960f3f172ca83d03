"""The tie between a server's process and the supervisor that started it, if one did.

The supervisor keeps one end of a socket pair and gives the other to the child, by number in
`MESSAGEHUB_SUPERVISOR_FD`. The child writes one line when it serves. When the supervisor is gone,
however it went (`kill -9` too), the kernel closes its end; the child reads that and ends as if by
SIGTERM. A death signal (`PR_SET_PDEATHSIG`) would need code between fork and exec, and would give
the child no time to drain.
"""

import json
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Final

DESCRIPTOR_VARIABLE: Final = "MESSAGEHUB_SUPERVISOR_FD"
# A child that cannot drain for longer than this after its supervisor is gone ends at once.
ORPHAN_SECONDS_MAX: Final = 30.0
ORPHANED: Final = 70


def follow_supervisor() -> None:
    """Ends this process soon after its supervisor is gone; nothing happens without one.

    A thread of its own watches, so that a blocked event loop cannot keep an orphan alive.
    """
    descriptor = _descriptor()
    if descriptor is not None:
        threading.Thread(
            target=_watch, args=(descriptor,), name="supervisor watch", daemon=True
        ).start()


def tell_supervisor(address: str) -> None:
    """Says that this process serves, and where; nothing happens without a supervisor."""
    descriptor = _descriptor()
    if descriptor is not None:
        # A supervisor that is gone by now hears nothing; the watch ends this process.
        with suppress(ConnectionError):
            os.write(descriptor, json.dumps({"address": address}).encode() + b"\n")


def _descriptor() -> int | None:
    text = os.environ.get(DESCRIPTOR_VARIABLE)
    return int(text) if text else None


def _watch(descriptor: int) -> None:
    # A connection that is reset says the same as one that is closed.
    with suppress(ConnectionError):
        while os.read(descriptor, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS_MAX)
    os._exit(ORPHANED)
