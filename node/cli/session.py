"""A session inside a task, from a client's side: input goes up from one thread, output comes down in another."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from node.caller import Agents
from node.errors import ApiProblem, ClientError

PIECE_BYTES = 512 * 1024
WAIT_S = 20.0


class Session:
    """Opened at once; `close` it on every way out."""

    def __init__(self, agents: Agents, job: int, order: dict[str, Any]) -> None:
        self._agents = agents
        answer = agents.post(f"/v1/jobs/{job}/exec", order).json()
        self._path = f"/v1/sessions/{answer['session']}"
        self._failed: Exception | None = None

    def feed(self, read: Callable[[int], bytes]) -> threading.Thread:
        """Send what `read` returns until it returns nothing, in the background."""
        thread = threading.Thread(target=self._feed, args=(read,), daemon=True)
        thread.start()
        return thread

    def _feed(self, read: Callable[[int], bytes]) -> None:
        offset = 0
        try:
            while piece := read(PIECE_BYTES):
                self._agents.post_bytes(f"{self._path}/input", piece, offset=offset)
                offset += len(piece)
            self.end_input(offset)
        except ApiProblem as error:
            if error.status != 404:  # the command has ended meanwhile: its exit says enough
                self._failed = error
        except (OSError, ClientError) as error:
            self._failed = error

    def end_input(self, offset: int = 0) -> None:
        self._agents.post_bytes(f"{self._path}/input", b"", offset=offset, ended=1)

    def output(self) -> Iterator[tuple[bytes, bytes, int | None]]:
        """(stdout, stderr, exit code) piece by piece; the last one alone has an exit code."""
        stdout = stderr = 0
        while True:
            answer = self._agents.get(f"{self._path}/output", stdout=stdout, stderr=stderr, wait_s=WAIT_S)
            size = int(answer.headers["x-stdout-bytes"])
            out, err = answer.body[:size], answer.body[size:]
            stdout, stderr = stdout + len(out), stderr + len(err)
            code = answer.headers.get("x-exit-code")
            yield out, err, int(code) if code is not None else None
            if code is not None:
                return
            if self._failed is not None:
                raise self._failed

    def control(self, **changes: Any) -> None:
        """Resize the terminal or send a signal; what comes too late is no error."""
        with contextlib.suppress(ClientError):
            self._agents.post(self._path, changes)

    def close(self) -> None:
        with contextlib.suppress(ClientError):
            self._agents.delete(self._path)
