"""Calls from node to node: a method and bytes there, bytes back; sealed, bounded, each carried out at most once.

Owns the address book of the other nodes (the agent feeds it from gossip) and the table of methods. Knows nothing of
what the bytes mean. A call is one HTTP request whose body is sealed as gossip is; without a cluster's key bodies are
plain, and the node listens on loopback only. An answer is bound to its call by the seal.

A call that raises PeerUnreachable may or may not have been carried out: methods are idempotent or say what they do.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import msgspec
import trio

from cluster.errors import BadPacket
from cluster.seal import SESSION_BYTES, BodySealer, KeyRing
from node import logs
from node.client import PeerClient
from node.errors import AgentUnreachable, Busy, CallerError, PeerRefused, PeerUnreachable

BODY_BYTES_MAX = 16 << 20
STRANGERS_BODY_BYTES_MAX = 64 << 10
TICKET = b"large body"
CALLS_PER_METHOD_MAX = 256  # unanswered calls of one method between two nodes; many of them are long polls
MEMBERS_MAX = 10_000
TIMEOUT_S_MAX = 120.0

Handler = Callable[[str, bytes], Awaitable[bytes]]

log = logs.get("peers")


class Sealer(Protocol):
    """Seals bodies with their sender's name, and opens each once (`cluster.seal.BodySealer`)."""

    def seal(self, body: bytes, reply_to: bytes = b"") -> bytes:
        """Return the sealed body; a reply is bound to the nonce of its request."""

    def open(self, sealed: bytes, reply_to: bytes = b"") -> tuple[str, bytes]:
        """Return (sender, body); BadPacket if it is foreign, too old, opened before or another request's reply."""

    def nonce_of(self, sealed: bytes) -> bytes:
        """Return what identifies a sealed request."""


class PlainBodies:
    """No seal: for a node without a cluster's key, on loopback."""

    def __init__(self, sender: str) -> None:
        self._sender = sender

    def seal(self, body: bytes, reply_to: bytes = b"") -> bytes:
        """Return the body with its sender's name."""
        return _encode((self._sender, body))

    def open(self, sealed: bytes, reply_to: bytes = b"") -> tuple[str, bytes]:
        """Return (sender, body); BadPacket for anything else."""
        try:
            return _decode_plain(sealed)
        except msgspec.DecodeError as error:
            raise BadPacket("malformed", str(error)) from None

    def nonce_of(self, sealed: bytes) -> bytes:
        """Return nothing: replies are not bound."""
        return b""


def body_sealer(name: str, ring: KeyRing | None) -> Sealer:
    """Return what seals this node's bodies: with the cluster's keys, or plainly where there are none."""
    if ring is None:
        return PlainBodies(name)
    return BodySealer(ring, name, secrets.token_bytes(SESSION_BYTES), clock=time.time)


class _Call(msgspec.Struct, frozen=True, array_like=True):
    to: str
    method: str
    timeout_s: float
    payload: bytes


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    refusal: str  # empty: carried out
    payload: bytes


@dataclass(slots=True)
class _Member:
    number: int | None
    address: str


_encode = msgspec.msgpack.Encoder().encode
_decode_call = msgspec.msgpack.Decoder(_Call).decode
_decode_plain = msgspec.msgpack.Decoder(tuple[str, bytes]).decode
_decode_answer = msgspec.msgpack.Decoder(_Answer).decode


class Peers:
    """The other nodes, as one node talks with them."""

    def __init__(self, name: str, sealer: Sealer, client: PeerClient | None = None) -> None:
        self.name = name
        self._sealer = sealer
        self._client = client or PeerClient()
        self._members: dict[str, _Member] = {}
        self._names: dict[int, str] = {}
        self._methods: dict[str, Handler] = {}
        self._outbound: Counter[tuple[str, str]] = Counter()
        self._inbound: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[str] = Counter()
        """How many bodies were refused, by reason."""
        self.unknown_key = trio.Event()
        """Set when a body came under a key this node does not have; anybody can set it."""

    # --- the address book

    def set_member(self, name: str, number: int | None, api_address: str) -> None:
        """Learn or change a node: its number (None while it has none) and the `host:port` of its API."""
        if name not in self._members and len(self._members) >= MEMBERS_MAX:
            raise Busy(f"this node keeps the addresses of {MEMBERS_MAX:,} nodes at most")
        self.remove_member(name)
        self._members[name] = _Member(number, api_address)
        if number is not None:
            self._names[number] = name

    def remove_member(self, name: str) -> None:
        """Forget a node."""
        member = self._members.pop(name, None)
        if member is not None and member.number is not None and self._names.get(member.number) == name:
            del self._names[member.number]

    def name_of(self, number: int) -> str | None:
        """Return the name of the node with this number, if one is known."""
        return self._names.get(number)

    def address_of(self, name: str) -> str | None:
        """Return the `host:port` of a node's API, if it is known."""
        member = self._members.get(name)
        return member.address if member else None

    # --- calling

    async def call(self, node: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        """Have a node carry out a method. Raises PeerUnreachable, PeerRefused; Busy when too many calls wait for it."""
        timeout_s = min(timeout_s, TIMEOUT_S_MAX)
        call = _Call(node, method, timeout_s, payload)
        with _counted(self._outbound, (node, method), f"node {node} has too many unanswered calls of this node"):
            with trio.move_on_after(timeout_s):
                answer = await self._carry_out(self.name, call) if node == self.name else await self._send(call)
                if answer.refusal:
                    raise PeerRefused(node, answer.refusal)
                return answer.payload
        raise PeerUnreachable(node, f"no answer to {method} within {timeout_s:g} s")

    async def _send(self, call: _Call) -> _Answer:
        address = self.address_of(call.to)
        if address is None:
            raise PeerUnreachable(call.to, "its address is not known here")
        sealed = self._sealer.seal(_encode(call))
        ticket = self._new_ticket() if len(sealed) > STRANGERS_BODY_BYTES_MAX else None
        try:
            status, body = await self._client.post(address, sealed, call.timeout_s, BODY_BYTES_MAX, ticket)
        except AgentUnreachable as error:
            raise PeerUnreachable(call.to, str(error)) from None
        if status != 200:
            raise PeerRefused(call.to, f"it answered a call with HTTP status {status}")
        try:
            sender, reply = self._sealer.open(body, self._sealer.nonce_of(sealed))
            answer = _decode_answer(reply)
        except (BadPacket, msgspec.DecodeError) as error:
            raise PeerRefused(call.to, f"its answer can't be opened ({error}); is it of this cluster?") from None
        if sender != call.to:
            raise PeerRefused(call.to, f"node {sender} answered in its place; is the address right?")
        return answer

    # --- being called

    def register(self, method: str, handler: Handler) -> None:
        """Carry out a method with `handler(sender, payload)`; its CallerError becomes the sender's PeerRefused."""
        assert method not in self._methods, method
        self._methods[method] = handler

    def _new_ticket(self) -> str:
        return base64.b64encode(self._sealer.seal(TICKET)).decode("ascii")

    def body_bytes_max(self, ticket: str | None) -> int:
        """Return how large a body may be, before it is read: only who shows a good ticket may send a large one.

        A body's own seal is known only when all of it is in memory, so strangers could fill the memory.
        """
        if ticket is not None:
            with suppress(BadPacket, binascii.Error, UnicodeEncodeError):
                if self._sealer.open(base64.b64decode(ticket.encode("ascii"), validate=True))[1] == TICKET:
                    return BODY_BYTES_MAX
        return STRANGERS_BODY_BYTES_MAX

    async def handle(self, body: bytes) -> tuple[int, bytes]:
        """Carry out a received call; return the HTTP status and body of the answer. Never raises for bad bodies."""
        try:
            sender, plain = self._sealer.open(body)
            call = _decode_call(plain)
        except BadPacket as error:
            return self._refuse(error.reason, str(error))
        except msgspec.DecodeError as error:
            return self._refuse("malformed", str(error))
        if call.to != self.name:
            return self._refuse("misdirected", f"node {sender} meant node {call.to[:64]}")
        answer = _Answer(f"no answer within {call.timeout_s:g} s", b"")
        try:
            with _counted(self._inbound, (sender, call.method), "too many calls at once"):
                with trio.move_on_after(min(max(call.timeout_s, 0.0), TIMEOUT_S_MAX)):
                    answer = await self._carry_out(sender, call)
        except Busy as error:
            answer = _Answer(str(error), b"")
        return 200, self._sealer.seal(_encode(answer), self._sealer.nonce_of(body))

    def _refuse(self, reason: str, why: str) -> tuple[int, bytes]:
        self.refused[reason] += 1
        if reason == "key":
            self.unknown_key.set()
        log.warning("refused a node's call", reason=reason, why=why)
        return 401, b""

    async def _carry_out(self, sender: str, call: _Call) -> _Answer:
        handler = self._methods.get(call.method)
        if handler is None:
            return _Answer(f"there is no method {call.method[:80]!r}", b"")
        try:
            return _Answer("", await handler(sender, call.payload))
        except (CallerError, Busy, PeerRefused, PeerUnreachable) as error:
            return _Answer(str(error), b"")
        except Exception:  # A bug in one method must not end the agent; its log has it.
            log.exception("a method failed", method=call.method, sender=sender)
            return _Answer(f"an error in {call.method}; that node's log has more", b"")

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()


@contextmanager
def _counted(counter: Counter[tuple[str, str]], key: tuple[str, str], busy: str) -> Iterator[None]:
    if counter[key] >= CALLS_PER_METHOD_MAX:
        raise Busy(busy)
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
