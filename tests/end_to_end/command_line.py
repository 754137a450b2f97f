"""The command line as a user types it, and what a lab of one's own has left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOFOCA = str(Path(sys.executable).with_name("fofoca"))
COMMAND_TIMEOUT_S = 90
PATIENCE = float(os.environ.get("FOFOCA_TEST_PATIENCE", "1"))
"""How many times longer than usual everything may take: an emulated machine is slow, and a busy one is, too."""
POLL_S = 0.1


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class CommandLine:
    """`fofoca`, with a lab of its own."""

    lab: str
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: object, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> Ran:
        done = subprocess.run(
            [FOFOCA, *map(str, words)], input=stdin, capture_output=True, text=True, timeout=timeout_s * PATIENCE,
            env=self.full_environment(), check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, *words: object, output: Path | None = None) -> subprocess.Popen[str]:
        """`output`: a file for what it prints, however much that is."""
        with output.open("wb") if output is not None else nullcontext(subprocess.PIPE) as out:
            return subprocess.Popen(
                [FOFOCA, *map(str, words)], stdout=out, stderr=subprocess.PIPE, text=True,
                env=self.full_environment(), start_new_session=True,
            )  # fmt: skip

    def ok(self, *words: object, **options: Any) -> Ran:
        ran = self(*words, **options)
        assert ran.code == 0, f"{' '.join(map(str, words))}: {ran.code} {ran.err} {ran.out}"
        return ran

    def submit(self, *words: object) -> int:
        ran = self.ok("submit", *words)
        assert ran.out.strip().isdigit(), ran.out
        assert ran.out.endswith("\n")
        return int(ran.out)

    def job(self, job_id: int) -> dict[str, Any]:
        answer: dict[str, Any] = self.ok("job", job_id, "--json").json
        return answer

    def task(self, job_id: int, index: int = 0) -> dict[str, Any]:
        return next(task for task in self.job(job_id)["tasks"] if task["index"] == index)

    def nodes(self, asked: str | None = None) -> dict[str, dict[str, Any]]:
        where = ["--node-api", asked] if asked else []
        return {node["name"]: node for node in self.ok("nodes", "--json", *where).json}

    def full_environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FOFOCA_")}
        return {**kept, "FOFOCA_LAB": self.lab, **self.environment}


def eventually(what: str, holds: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Ask until the answer is true; the answer. Real clusters need a moment."""
    deadline = time.monotonic() + timeout_s * PATIENCE
    while True:
        answer = holds()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(POLL_S)


def stop(process: subprocess.Popen[str]) -> None:
    """End a process that may still run."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)


def files_below(top: Path) -> list[Path]:
    """Every file below a directory; what vanishes while one looks is left out, as `Path.rglob` does not."""
    return [Path(folder) / name for folder, _, names in os.walk(top) for name in names]


def remains_of(lab: str) -> list[str]:
    """What a lab has left on this machine."""
    from node.lab import leftovers

    before = os.environ.get("FOFOCA_LAB")
    os.environ["FOFOCA_LAB"] = lab
    try:
        return list(leftovers.remains())
    finally:
        if before is None:
            del os.environ["FOFOCA_LAB"]
        else:
            os.environ["FOFOCA_LAB"] = before
