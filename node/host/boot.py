"""Which boot of its host this is, and whether it is the one that the last agent worked in.

A restarted agent finds its containers running; a restarted host has none, whatever files say. Files written shortly
before a power loss may be missing too, so what is not there proves nothing: only the kernel's word for the boot does.
May not know: what anybody makes of a restart.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from node.host.durable_file import write_durably

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    return BOOT_ID.read_text().strip()


class BootRecord:
    """The boot in which what the other files beside it say was true."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._now = boot_id()

    def is_former(self) -> bool:
        """The host has restarted since `settle` was last called; False where it never was."""
        with suppress(FileNotFoundError):
            return self._path.read_text().strip() != self._now
        return False

    def settle(self) -> None:
        """Once everything of the former boot is recorded as ended. Blocks for a sync. Raises OSError."""
        if self.is_former() or not self._path.exists():
            write_durably(self._path, f"{self._now}\n".encode())
