"""What tasks wrote. The home knows a task's node and asks it by the call `log.read`; the bytes go back the same way.

Every piece is bounded. Following is long polling: with wait_s a request waits for new bytes. Offsets are opaque
numbers: for `both` streams one number carries two offsets (stdout's in the low 48 bits). They count within one attempt:
who names the attempt that an offset is of reads the next one from its beginning.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, cast

import msgspec
import trio
from starlette.responses import Response

from node.api.exchange import WAIT_S_MAX, Exchange
from node.api.forward import FORWARD_TIMEOUT_S, at_home
from node.api.jobs import require_visible
from node.api.services import LogService, Services
from node.errors import InvalidValue, NotFound, PeerRefused
from node.runtime.protocol import Stream
from scheduler.model import AllocationId
from scheduler.views import JobView, TaskView

METHOD = "log.read"
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
PIECE_BYTES_MAX = 4 << 20
PIECE_BYTES_DEFAULT = 1 << 20
POLL_S = 0.1
OFFSET_BITS = 48
OFFSET_MAX = (1 << 2 * OFFSET_BITS) - 1
TASK_INDEX_MAX = 2**31 - 1


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A part of a task's output, of this attempt (0: not known); `ended`: nothing will follow."""

    data: bytes = b""
    next_offset: str = "0"
    ended: bool = False
    attempt: int = 0


class ReadLog(msgspec.Struct, frozen=True, array_like=True):
    """The payload of `log.read`. The offset is text: it may pass 64 bits."""

    allocation: AllocationId
    stream: Stream | Literal["both"]
    offset: str
    limit: int
    wait_s: float


_decode_read = msgspec.msgpack.Decoder(ReadLog).decode
_decode_piece = msgspec.msgpack.Decoder(Piece).decode
_encode = msgspec.msgpack.Encoder().encode


async def show(exchange: Exchange) -> Response:
    """GET /v1/jobs/ID/logs: bytes, with the offset of what follows and whether anything will."""
    index = exchange.integer("task", 0, 0, TASK_INDEX_MAX)
    stream = cast(Literal["stdout", "stderr", "both"], exchange.text("stream", "both", (*STREAMS, "both")))
    offset = exchange.integer("offset", 0, 0, OFFSET_MAX)
    limit = exchange.integer("limit", PIECE_BYTES_DEFAULT, 1, PIECE_BYTES_MAX)
    attempt = exchange.integer("attempt", 0, 0, TASK_INDEX_MAX)
    wait_s = exchange.wait_s()

    async def answer(job_id: int) -> Response:
        ordinal = ordinal_of(require_visible(exchange, job_id), index)
        with exchange.services.long_polls.by(exchange.principal.name):
            wanted = ReadLog(AllocationId(job_id, index, attempt), stream, str(offset), limit, wait_s)
            piece = await _read_task(exchange.services, ordinal, wanted)
        headers = {"x-next-offset": str(piece.next_offset), "x-ended": "1" if piece.ended else "0"}
        headers["x-attempt"] = str(piece.attempt)
        return Response(piece.data, media_type="application/octet-stream", headers=headers)

    return await at_home(exchange, answer, wait_s)


def ordinal_of(job: JobView, index: int) -> int:
    """Return which of the job's tasks has this index."""
    try:
        return job.spec.indices().index(index)
    except ValueError:
        raise NotFound(f"job {job.id} has no task {index}") from None


async def _read_task(services: Services, ordinal: int, wanted: ReadLog) -> Piece:
    """The next piece; an attempt's output may end while the task goes on with another, which is waited for."""
    deadline = trio.current_time() + wanted.wait_s
    while True:
        task = services.jobs.job(wanted.allocation.job, ordinal, 1).tasks[0]
        piece = Piece(
            b"", wanted.offset, task.state.final, task.attempt if task.state.final else wanted.allocation.attempt
        )
        if task.node:
            piece = await _read_attempt(services, task, wanted, max(0.0, deadline - trio.current_time()))
            task = services.jobs.job(wanted.allocation.job, ordinal, 1).tasks[0]
        ended = piece.ended and task.state.final and piece.attempt in (0, task.attempt)
        if piece.data or ended or trio.current_time() >= deadline:
            return msgspec.structs.replace(piece, ended=ended)
        await trio.sleep(POLL_S)


async def _read_attempt(services: Services, task: TaskView, wanted: ReadLog, wait_s: float) -> Piece:
    """From the node of a task's newest attempt: on from the offset, if that is of this attempt."""
    allocation = msgspec.structs.replace(wanted.allocation, attempt=task.attempt)
    offset = wanted.offset if wanted.allocation.attempt in (0, task.attempt) else "0"
    request = ReadLog(allocation, wanted.stream, offset, wanted.limit, wait_s)
    answer = await services.peers.call(task.node, METHOD, _encode(request), FORWARD_TIMEOUT_S + wait_s)
    try:
        return msgspec.structs.replace(_decode_piece(answer), attempt=task.attempt)
    except msgspec.DecodeError:
        raise PeerRefused(task.node, "its answer can't be read") from None


def receiver(logs: LogService) -> Callable[[str, bytes], Awaitable[bytes]]:
    """Return the handler of `log.read`, which reads the output of this node's containers."""

    async def handle(_sender: str, payload: bytes) -> bytes:
        try:
            request = _decode_read(payload)
        except msgspec.DecodeError:
            raise InvalidValue("request", "", "expected a request for a log of this version") from None
        return _encode(await read(logs, request))

    return handle


async def read(logs: LogService, request: ReadLog) -> Piece:
    """Return the next piece of a container's output, waiting for one if asked to."""
    deadline = trio.current_time() + min(request.wait_s, WAIT_S_MAX)
    while True:
        piece = await _read_now(logs, request)
        if piece.data or piece.ended or trio.current_time() >= deadline:
            return piece
        await trio.sleep(POLL_S)


async def _read_now(logs: LogService, request: ReadLog) -> Piece:
    limit = min(request.limit, PIECE_BYTES_MAX)
    if request.stream != "both":
        data, offset, ended = await _read_stream(logs, request.allocation, request.stream, int(request.offset), limit)
        return Piece(data, str(offset), ended)
    offsets = (int(request.offset) & (1 << OFFSET_BITS) - 1, int(request.offset) >> OFFSET_BITS)
    out, out_offset, out_ended = await _read_stream(logs, request.allocation, "stdout", offsets[0], limit)
    error, error_offset, error_ended = await _read_stream(
        logs, request.allocation, "stderr", offsets[1], limit - len(out)
    )
    return Piece(out + error, str(error_offset << OFFSET_BITS | out_offset), out_ended and error_ended)


async def _read_stream(
    logs: LogService, allocation: AllocationId, stream: Stream, offset: int, limit: int
) -> tuple[bytes, int, bool]:
    if limit <= 0:
        return b"", offset, False
    chunk, ended = await logs.read_log(allocation, stream, offset, limit)
    return chunk.data, chunk.offset + len(chunk.data), ended
