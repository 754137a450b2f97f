"""Inside running tasks: commands, terminals, file copies; freezing and thawing.

The node that receives a request asks the task's home, which alone knows whose the task is and where it runs, and the
home asks the task's node. From then on a session's pieces go between the receiving node and the task's node directly,
each a sealed call like all others. A session's id names its node; only the user who opened it can use it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.responses import Response

from node.api.exchange import Exchange, json_response
from node.api.forward import FORWARD_TIMEOUT_S, at_home, job_id
from node.api.services import InsideService, Services
from node.api.task_logs import TASK_INDEX_MAX, ordinal_of
from node.errors import Busy, CallerError, InvalidValue, NotFound, PeerRefused
from node.sessions import INPUT_BYTES_MAX, Control, Order, Output, check
from node.tokens import Principal, Role
from scheduler.errors import UnknownJob
from scheduler.model import AllocationId, State
from scheduler.numbers import home_number

OPEN, START, USE, LIVE = "inside.open", "inside.start", "inside.use", "container.live"
BODY_BYTES_MAX = 256 * 1024
OFFSET_MAX = 1 << 62


class ExecBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/jobs/ID/exec: a command, or a copy of files."""

    argv: tuple[str, ...] = ()
    copy: str = ""
    path: str = ""
    tty: bool = False
    rows: int = 24
    columns: int = 80
    task: int = 0


class ControlBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/sessions/SESSION."""

    rows: int = 0
    columns: int = 0
    signal: str = ""


class _Open(msgspec.Struct, frozen=True, array_like=True):
    job: int
    index: int
    user: str
    role: Role
    order: Order


class _Start(msgspec.Struct, frozen=True, array_like=True):
    allocation: AllocationId
    user: str
    order: Order


class _Use(msgspec.Struct, frozen=True, array_like=True):
    """`step`: write, read, control or close."""

    token: str
    user: str
    step: str
    data: bytes = b""
    offset: int = 0
    ended: bool = False
    stderr: int = 0
    wait_s: float = 0.0
    control: Control = Control()


class _Live(msgspec.Struct, frozen=True, array_like=True):
    allocation: AllocationId
    frozen: bool


class _Told(msgspec.Struct, frozen=True, array_like=True):
    """An answer; `kind` names the error in KINDS, if it is one."""

    kind: str = ""
    text: str = ""
    payload: bytes = b""


KINDS: dict[str, type[Exception]] = {"not-found": NotFound, "unknown-job": UnknownJob, "busy": Busy}

_encode = msgspec.msgpack.Encoder().encode


async def execute(exchange: Exchange) -> Response:
    """POST /v1/jobs/ID/exec: run something inside a running task; the session's id."""
    body = _read(await exchange.body(BODY_BYTES_MAX), ExecBody)
    order = Order(body.argv, body.copy, body.path, body.tty, body.rows, body.columns)
    check(order)
    wanted, services, who = job_id(exchange.path("id")), exchange.services, exchange.principal
    home = services.peers.name_of(home_number(wanted))
    if home_number(wanted) == services.number():
        home = services.node
    if home is None:
        raise UnknownJob(f"no job {wanted}: no node of this cluster has the number {home_number(wanted)}")
    asked = _Open(wanted, body.task, who.name, who.role, order)
    answer = await _ask(services, home, OPEN, asked)
    return json_response({"session": answer.decode()}, 201)


async def write(exchange: Exchange) -> Response:
    """POST /v1/sessions/SESSION/input: the next piece of the command's input; how much has been taken in all."""
    data = await exchange.body(INPUT_BYTES_MAX)
    offset = exchange.integer("offset", 0, 0, OFFSET_MAX)
    ended = exchange.text("ended", "0", ("0", "1")) == "1"
    taken = await _use(exchange, "write", data=data, offset=offset, ended=ended)
    return json_response({"taken": int(taken)})


async def read(exchange: Exchange) -> Response:
    """GET /v1/sessions/SESSION/output: what came after the offsets, output first, and how the command ended."""
    stdout, stderr = (exchange.integer(name, 0, 0, OFFSET_MAX) for name in ("stdout", "stderr"))
    wait_s = exchange.wait_s()
    with exchange.services.long_polls.by(exchange.principal.name):
        answer = await _use(exchange, "read", offset=stdout, stderr=stderr, wait_s=wait_s)
    output = msgspec.msgpack.decode(answer, type=Output)
    headers = {"x-stdout-bytes": str(len(output.stdout))}
    if output.exit_code is not None:
        headers["x-exit-code"] = str(output.exit_code)
    return Response(output.stdout + output.stderr, media_type="application/octet-stream", headers=headers)


async def control(exchange: Exchange) -> Response:
    """POST /v1/sessions/SESSION: resize the terminal, send a signal."""
    body = _read(await exchange.body(BODY_BYTES_MAX), ControlBody)
    await _use(exchange, "control", control=Control(body.rows, body.columns, body.signal))
    return json_response({})


async def close(exchange: Exchange) -> Response:
    """DELETE /v1/sessions/SESSION: end the session and its command."""
    await _use(exchange, "close")
    return json_response({})


async def freeze(exchange: Exchange) -> Response:
    """POST /v1/jobs/ID/freeze: stop a task's processes where they are."""
    return await _set_frozen(exchange, True)


async def thaw(exchange: Exchange) -> Response:
    """POST /v1/jobs/ID/thaw: let them go on."""
    return await _set_frozen(exchange, False)


async def _set_frozen(exchange: Exchange, frozen: bool) -> Response:
    index = exchange.integer("task", 0, 0, TASK_INDEX_MAX)

    async def answer(job: int) -> Response:
        node, id = running(exchange.services, exchange.principal, job, index)
        await _ask(exchange.services, node, LIVE, _Live(id, frozen))
        return json_response({"id": job, "task": index, "node": node, "frozen": frozen})

    return await at_home(exchange, answer)


async def _use(exchange: Exchange, step: str, **fields: Any) -> bytes:
    token, _, node = exchange.path("session").partition("~")
    if len(token) != 32 or not node:
        raise NotFound("no such session")
    asked = _Use(token, exchange.principal.name, step, **fields)
    return await _ask(exchange.services, node, USE, asked, asked.wait_s)


async def _ask(services: Services, node: str, method: str, asked: msgspec.Struct, wait_s: float = 0.0) -> bytes:
    """Call a node, and raise what it raised."""
    answer = await services.peers.call(node, method, _encode(asked), FORWARD_TIMEOUT_S + wait_s)
    try:
        told = msgspec.msgpack.decode(answer, type=_Told)
    except msgspec.DecodeError:
        raise PeerRefused(node, "its answer can't be read") from None
    if told.kind:
        raise KINDS.get(told.kind, CallerError)(told.text)
    return told.payload


def _telling(handler: Callable[[bytes], Awaitable[bytes]]) -> Callable[[str, bytes], Awaitable[bytes]]:
    """An error of the caller's stays what it is on its way back, over however many nodes."""

    async def handle(_sender: str, payload: bytes) -> bytes:
        try:
            return _encode(_Told(payload=await handler(payload)))
        except (NotFound, Busy, CallerError, UnknownJob) as error:
            kind = next((kind for kind, known in KINDS.items() if isinstance(error, known)), "refused")
            return _encode(_Told(kind, str(error)))

    return handle


def running(services: Services, who: Principal, job: int, index: int) -> tuple[str, AllocationId]:
    """Return where a task of this home runs; UnknownJob unless it is the caller's, NotFound unless it runs."""
    view = services.jobs.job(job, 0, 0)
    if view.owner != who.name and not who.admin:
        raise UnknownJob(f"no job {job}")
    task = services.jobs.job(job, ordinal_of(view, index), 1).tasks[0]
    if task.state is not State.RUNNING:
        raise NotFound(f"task {job}.{index} does not run, it is {task.state}")
    return task.node, AllocationId(job, index, task.attempt)


def register(services: Services, inside: InsideService) -> None:
    """Answer for other nodes: as the home of jobs, and as the node where containers run."""

    async def open_(payload: bytes) -> bytes:
        asked = _decode(payload, _Open)
        node, id = running(services, Principal(asked.user, asked.role), asked.job, asked.index)
        token = await _ask(services, node, START, _Start(id, asked.user, asked.order))
        return f"{token.decode()}~{node}".encode()

    async def start(payload: bytes) -> bytes:
        asked = _decode(payload, _Start)
        return (await inside.open(asked.user, str(asked.allocation), asked.order)).encode()

    async def live(payload: bytes) -> bytes:
        asked = _decode(payload, _Live)
        await inside.set_frozen(str(asked.allocation), asked.frozen)
        return b""

    services.peers.register(OPEN, _telling(open_))
    services.peers.register(START, _telling(start))
    services.peers.register(USE, _telling(_user(inside)))
    services.peers.register(LIVE, _telling(live))


def _user(inside: InsideService) -> Callable[[bytes], Awaitable[bytes]]:
    async def use(payload: bytes) -> bytes:
        asked = _decode(payload, _Use)
        match asked.step:
            case "write":
                taken = await inside.write(asked.user, asked.token, asked.offset, asked.data, asked.ended)
                return b"%d" % taken
            case "read":
                wait_s = asked.wait_s
                return _encode(await inside.read(asked.user, asked.token, asked.offset, asked.stderr, wait_s))
            case "control":
                await inside.control(asked.user, asked.token, asked.control)
            case "close":
                await inside.close(asked.user, asked.token)
            case _:
                raise InvalidValue("step", asked.step, "expected a step of this version")
        return b""

    return use


def _decode(payload: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.DecodeError:
        raise InvalidValue("request", "", "expected a request of this version") from None


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidValue("body", body[:60].decode("utf-8", "replace"), f"expected {error}") from None
