"""
The place of a node whose plug was pulled, in a lab without network namespaces.

On a loopback address a missing process is *refused*, which tells the others that the host lives. A missing host is
silent: this process takes the node's ports, and answers nothing.

    python -m node.lab.silence HOST PORT...
"""

from __future__ import annotations

import signal
import socket
import sys
import time

BIND_TIMEOUT_S = 5.0
RETRY_S = 0.02


def take(kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    """Bind a port as soon as it is free."""
    taken = socket.socket(socket.AF_INET, kind)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + BIND_TIMEOUT_S
    while True:
        try:
            taken.bind((host, port))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
        else:
            return taken


def main(host: str, ports: list[int]) -> None:
    """Hold the ports until killed. Connections are taken by the kernel, and never answered."""
    held = []
    for port in ports:
        held.append(take(socket.SOCK_DGRAM, host, port))
        listening = take(socket.SOCK_STREAM, host, port)
        listening.listen(1)
        held.append(listening)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], [int(word) for word in sys.argv[2:]])
