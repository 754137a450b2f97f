"""Clocks and small files, of which a supervisor has many and none may end it."""

import contextlib
import os
import time


def boottime_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def unix_ms() -> int:
    return time.time_ns() // 1_000_000


def read_text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def read_number(path: str, key: str = "") -> int:
    text = read_text(path)
    if not text or key not in text:
        return -1
    word = text[text.index(key) + len(key) :].split(None, 1)[:1]
    return int(word[0]) if word and word[0].lstrip("-").isdigit() else -1


def write_text(path: str, text: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        return os.write(descriptor, text.encode()) >= 0
    except OSError:
        return False
    finally:
        os.close(descriptor)


def record(name: str, text: str) -> None:
    """Whole, and over what is there; on a full disk the agent does without it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(f".{name}", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, text.encode())
            os.ftruncate(descriptor, len(text.encode()))
        finally:
            os.close(descriptor)
        os.rename(f".{name}", name)


def given_environment() -> dict[bytes, bytes]:
    """What the agent gave; Python adds to os.environ in a C locale."""
    with open("/proc/self/environ", "rb") as file:
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
        return {key: value for key, _, value in pairs}
