"""What a container wrote outlives it: whole, or its end; bounded; forgotten oldest first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from node.output import OutputStore
from node.runtime.protocol import LogChunk, Runtime, Stream, UnknownContainerError


class Logs:
    """The logs of a runtime: what each stream had, and how many bytes of its middle were dropped."""

    def __init__(self) -> None:
        self.streams: dict[tuple[str, str], tuple[bytes, int, int]] = {}

    def write(self, name: str, stream: Stream, data: bytes, dropped: tuple[int, int] = (0, 0)) -> None:
        self.streams[(name, stream)] = (data, *dropped)

    def read_log(self, name: str, stream: Stream, offset: int, bytes_max: int) -> LogChunk:
        if not any(known == name for known, _ in self.streams):
            raise UnknownContainerError(name)
        data, gap, gap_end = self.streams.get((name, stream), (b"", 0, 0))
        if gap <= offset < gap_end:
            offset = gap_end
        end = gap if offset < gap else len(data)
        return LogChunk(offset, data[offset : min(end, offset + bytes_max)], len(data))


def adopt(store: OutputStore, logs: Logs, name: str) -> None:
    store.adopt(cast(Runtime, logs), name)


def test_output_is_read_back_from_any_offset(tmp_path: Path) -> None:
    logs, store = Logs(), OutputStore(tmp_path / "output", 10, 1 << 20)
    text = os.urandom(700_000)
    logs.write("1.0.1", "stdout", text)
    adopt(store, logs, "1.0.1")
    for offset in (0, 1, 262_144, 699_999):
        assert store.read("1.0.1", "stdout", offset, 1 << 20) == LogChunk(offset, text[offset:], len(text))
    assert store.read("1.0.1", "stdout", 700_000, 10).data == b""
    assert store.read("1.0.1", "stderr", 0, 10) == LogChunk(0, b"", 0)
    assert store.read("2.0.1", "stdout", 5, 10) == LogChunk(5, b"", 0)


def test_of_a_stream_without_its_middle_the_end_is_kept_at_its_own_offsets(tmp_path: Path) -> None:
    logs, store = Logs(), OutputStore(tmp_path, 10, 1 << 30)
    text = os.urandom(1_000_000)
    logs.write("1.0.1", "stdout", text, dropped=(300_000, 500_000))
    adopt(store, logs, "1.0.1")
    assert store.read("1.0.1", "stdout", 0, 1 << 20) == LogChunk(500_000, text[500_000:], 1_000_000)
    assert store.read("1.0.1", "stdout", 700_000, 5) == LogChunk(700_000, text[700_000:700_005], 1_000_000)


def test_the_oldest_outputs_go_first_by_count_and_by_bytes(tmp_path: Path) -> None:
    logs = Logs()
    by_count, by_bytes = OutputStore(tmp_path / "a", 3, 1 << 20), OutputStore(tmp_path / "b", 100, 3_100)
    for index in range(10):
        logs.write(f"{index}.0.1", "stdout", b"z" * 1000)
        adopt(by_count, logs, f"{index}.0.1")
        adopt(by_bytes, logs, f"{index}.0.1")
    for store, folder in ((by_count, tmp_path / "a"), (by_bytes, tmp_path / "b")):
        assert sorted(path.name for path in folder.iterdir()) == [f"{index}.0.1.stdout" for index in (7, 8, 9)]
        assert store.read("6.0.1", "stdout", 0, 10).size == 0
        assert store.read("7.0.1", "stdout", 0, 1000).data == b"z" * 1000


def test_outputs_and_their_bound_survive_a_restart_of_the_agent(tmp_path: Path) -> None:
    logs = Logs()
    for index in range(5):
        logs.write(f"{index}.0.1", "stderr", b"w" * 100)
        adopt(OutputStore(tmp_path, 5, 1 << 20), logs, f"{index}.0.1")
        os.utime(tmp_path / f"{index}.0.1.stderr", (index, index))
    (tmp_path / "9.0.1.stdout.new").write_bytes(b"cut short by a crash")
    store = OutputStore(tmp_path, 3, 1 << 20)
    adopt(store, logs, "4.0.1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{index}.0.1.stderr" for index in (2, 3, 4)]
    assert store.read("2.0.1", "stderr", 0, 100).data == b"w" * 100


def test_adopting_twice_counts_once(tmp_path: Path) -> None:
    logs, store = Logs(), OutputStore(tmp_path, 10, 2_500)
    logs.write("1.0.1", "stdout", b"q" * 1000)
    for _ in range(5):
        adopt(store, logs, "1.0.1")
    assert store.read("1.0.1", "stdout", 0, 1).size == 1000


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Failing(Logs):
        def read_log(self, name: str, stream: Stream, offset: int, bytes_max: int) -> LogChunk:
            if offset:
                raise OSError("the disk is gone")
            return LogChunk(0, b"x" * bytes_max, 2 * bytes_max)

    store = OutputStore(tmp_path, 10, 1 << 20)
    with pytest.raises(OSError, match="the disk is gone"):
        adopt(store, Failing(), "1.0.1")
    assert list(tmp_path.iterdir()) == []


def test_a_container_that_wrote_nothing_has_nothing_to_adopt(tmp_path: Path) -> None:
    logs, store = Logs(), OutputStore(tmp_path, 10, 1 << 30)
    logs.write("1.0.1", "stdout", b"")
    logs.write("2.0.1", "stderr", b"oh")
    assert [store.is_any(cast(Runtime, logs), name) for name in ("1.0.1", "2.0.1", "3.0.1")] == [False, True, False]
