"""Which ports programs of this host listen on, so that none is taken away from them. Read from /proc/net."""

from __future__ import annotations

from pathlib import Path

PROC_NET = Path("/proc/self/net")
LISTENING, UNCONNECTED = "0A", "07"
"""States as the kernel writes them: of TCP sockets that listen, and of UDP sockets that take from everybody."""


def listening_ports(proc_net: Path = PROC_NET) -> frozenset[tuple[str, int]]:
    """Return (protocol, port) of all; a table that can't be read counts as empty."""
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        protocol, state = table[:3], LISTENING if table.startswith("tcp") else UNCONNECTED
        try:
            lines = (proc_net / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for words in (line.split() for line in lines):
            if words[3] == state:
                found.add((protocol, int(words[1].rpartition(":")[2], 16)))
    return frozenset(found)
