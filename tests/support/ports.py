"""Ports for servers that must come back on the same address."""

import random
import socket
from typing import Final

# Below the range from which the kernel gives ports to outgoing connections: there, a client that
# dials a dead server can be given the very port it dials, and connects to itself.
PORTS: Final = range(20_000, 32_000)
ATTEMPTS_MAX: Final = 100


def free_address() -> str:
    """Gives a `127.0.0.1:PORT` that nobody listens on."""
    for _ in range(ATTEMPTS_MAX):
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return f"127.0.0.1:{port}"
    raise OSError("no free port was found")
