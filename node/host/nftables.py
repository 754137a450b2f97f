"""Loads nftables rules, in this process by nft's own library where it is there: a fortieth of what a command costs.

All of a text is taken, or nothing of it. Knows no rules of its own.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import threading
from contextlib import suppress

from node.host.network import NetworkError

LIBRARY = "libnftables.so.1"
TIMEOUT_S = 30
ERROR_LENGTH_MAX = 400


class Nftables:
    """Runs texts as `nft -f` would, one after the other; blocks for some hundred microseconds each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library, self._context = _open_library()

    def run(self, text: str) -> None:
        """Carry out a whole text or nothing of it; raises NetworkError with the first complaint."""
        complaint = self._in_process(text) if self._library is not None else _by_command(text)
        if complaint is not None:
            raise NetworkError(f"nftables refused a rule: {' '.join(complaint.split())[:ERROR_LENGTH_MAX]}")

    def _in_process(self, text: str) -> str | None:
        assert self._library is not None
        with self._lock:
            failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
            complaint = self._library.nft_ctx_get_error_buffer(self._context)
        return complaint.decode(errors="replace") if failed else None


def _open_library() -> tuple[ctypes.CDLL | None, int | None]:
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(LIBRARY)
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        context = library.nft_ctx_new(0)
        if context:
            library.nft_ctx_buffer_error(context)
            library.nft_ctx_buffer_output(context)
            return library, context
    return None, None


def _by_command(text: str) -> str | None:
    if shutil.which("nft") is None:
        return "neither libnftables nor nft is installed; install the package nftables"
    done = subprocess.run(
        ["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return done.stderr or "nft failed" if done.returncode else None
