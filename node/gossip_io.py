"""The gossip machine's shell: UDP and TCP sockets, timers and one small file.

Owns the sockets, the clock and what is remembered of this node's identity across restarts. It decides nothing: bytes
and times go into cluster.Gossip, effects come out and are carried out here. Notifications go to the subscribers, in
order.

    service = GossipService(GossipSettings(name="n1", host="10.0.0.1", port=7946, cluster_key=key, seeds=(...)))
    service.subscribe(on_member, on_state)      called with each MemberChanged / StateChanged; must not block or raise
    await nursery.start(service.run)            the task's value is the bound (host, port)
    service.set_state("report", data); service.members(); service.state_of("n2")
    await service.leave()                       then cancel
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import random
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from cluster.config import PACKET_BYTES_MAX, GossipConfig, check_name
from cluster.effects import (
    Effect,
    IdentityChanged,
    MemberChanged,
    NameConflict,
    OpenStream,
    SendDatagram,
    StateChanged,
    StreamReply,
)
from cluster.errors import InvalidConfig
from cluster.gossip import Gossip
from cluster.membership import Address, Identity, Member
from cluster.seal import KeyRing
from cluster.wire import Status
from node.gossip_memory import GossipMemory
from node.gossip_sockets import bind, connect, read_refusals, receive_frame, send_frame

DATAGRAMS_A_TURN: Final = 64
STREAMS_MAX: Final = 64
PEERS_KEPT: Final = 64
PEERS_SAVE_INTERVAL_S: Final = 30.0
LEAVE_S: Final = 0.5

Notification: TypeAlias = MemberChanged | StateChanged | NameConflict

logger = logging.getLogger("fofoca.gossip")


@dataclass(frozen=True, slots=True)
class GossipSettings:
    """What a node needs to gossip. `cluster_key` None sends readable packets, allowed on loopback addresses only.

    Port 0 lets the system choose. `advertise` is the host others should use if it isn't the one bound to. Without a
    data directory nothing is remembered; then only the wall clock orders this node's lives.
    """

    name: str
    host: str
    port: int
    cluster_key: bytes | None
    seeds: tuple[Address, ...] = ()
    advertise: str = ""
    other_keys: tuple[bytes, ...] = ()
    label: str = "fofoca"
    data_directory: Path | None = None
    config: GossipConfig = field(default_factory=GossipConfig)

    def __post_init__(self) -> None:
        check_name(self.name)
        for name in ("host", "advertise"):
            value = getattr(self, name)
            if name == "host" or value:
                _parse_ip(name, value)
        if not 0 <= self.port <= 65535:
            raise InvalidConfig("port", self.port, "give 0 to 65535")
        if _parse_ip("host", self.host).is_unspecified and not self.advertise:
            raise InvalidConfig("advertise", self.advertise, f"give the address others reach {self.host} by")
        if self.cluster_key is None and not _parse_ip("host", self.host).is_loopback:
            raise InvalidConfig("cluster_key", None, f"give a key: {self.host} is no loopback address")


def _parse_ip(name: str, value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        raise InvalidConfig(name, value, "give an IPv4 or IPv6 address") from None


class GossipService:
    """One node's gossip, running. Errors at construction: InvalidConfig; at run: OSError when the port is taken."""

    def __init__(self, settings: GossipSettings) -> None:
        self.settings = settings
        key = settings.cluster_key
        # The node's one ring: calls and tokens use it too, and who changes it changes all three.
        self.key_ring = None if key is None else KeyRing(key, *settings.other_keys, label=settings.label)
        self.send_errors = 0
        self._on_member: list[Callable[[MemberChanged], None]] = []
        self._on_state: list[Callable[[StateChanged], None]] = []
        self._memory = GossipMemory(settings.name, settings.data_directory)
        self._machine: Gossip | None = None
        self._udp: socket.socket | None = None
        self._nursery: trio.Nursery | None = None
        self._wakeup = trio.Event()
        self._planned_s: float | None = None
        self._streams = 0
        self._save_due = trio.Event()
        self._since: dict[str, float] = {}

    # -- for the agent

    def subscribe(self, on_member: Callable[[MemberChanged], None], on_state: Callable[[StateChanged], None]) -> None:
        """Have functions called with everything that changes; they must be quick and must not raise."""
        self._on_member.append(on_member)
        self._on_state.append(on_state)

    def set_state(self, key: str, value: bytes | None) -> None:
        """Tell all nodes something about this one. Errors: InvalidState."""
        self._perform(self.machine.set_state(trio.current_time(), key, value))

    def members(self) -> Sequence[Member]:
        """Return all members, this node first; `since_s` is trio's time of the last change of state."""
        return self.machine.members()

    def state_of(self, name: str) -> Mapping[str, bytes]:
        """Return what a node says about itself."""
        return self.machine.state_of(name)

    @property
    def counters(self) -> Mapping[str, float]:
        """What happened so far."""
        return {
            **self.machine.counters.as_dict(),
            "send_errors": self.send_errors,
        }

    @property
    def boot_epoch(self) -> int:
        """Which life of this node this is; rises with every start."""
        return self.machine.identity.boot_epoch

    def document(self) -> list[dict[str, Any]]:
        """Return the members as plain values, for an API: name, host, port, state, incarnation, boot_epoch, since_s."""
        now_s = time.time()
        return [
            {
                "name": member.name,
                "host": member.address[0],
                "port": member.address[1],
                "state": member.state.name.lower(),
                "incarnation": member.incarnation,
                "boot_epoch": member.boot_epoch,
                "since_s": round(now_s - self._since.get(member.name, now_s), 1),
            }
            for member in self.members()
        ]

    async def leave(self) -> None:
        """Say good-bye, and wait until the word has spread."""
        self._perform(self.machine.leave(trio.current_time()))
        await trio.sleep(LEAVE_S)

    @property
    def machine(self) -> Gossip:
        """The machine inside; only from the loop's own thread."""
        if self._machine is None:
            raise RuntimeError("the gossip service does not run yet")
        return self._machine

    @property
    def address(self) -> Address:
        """Where this node listens, as told to others."""
        return self.machine.identity.address

    # -- running

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Bind, join and gossip until cancelled; the start's value is the address. Errors: OSError."""
        settings = self.settings
        udp, listener = bind(settings.host, settings.port)
        with udp, listener:
            self._udp = udp
            port = udp.getsockname()[1]
            boot_epoch, peers = self._memory.load(int(time.time()))
            identity = Identity(settings.name, (settings.advertise or settings.host, port), boot_epoch)
            await trio.to_thread.run_sync(self._memory.save, identity, peers)
            rng = random.Random(secrets.randbits(256))
            self._machine = Gossip(
                settings.config, identity, self.key_ring, rng, seeds=settings.seeds, known_peers=peers
            )
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._read_datagrams)
                nursery.start_soon(self._accept_streams, trio.socket.from_stdlib_socket(listener))
                nursery.start_soon(self._run_timers)
                nursery.start_soon(self._keep_memory)
                self._perform(self._machine.start(trio.current_time()))
                task_status.started(identity.address)

    async def _run_timers(self) -> None:
        machine = self.machine
        while True:
            due_s = self._planned_s = machine.next_timer()
            if due_s is None or due_s > trio.current_time():
                self._wakeup = trio.Event()
                with trio.move_on_at(float("inf") if due_s is None else due_s):
                    await self._wakeup.wait()
            else:
                await trio.lowlevel.checkpoint()
            now_s = trio.current_time()
            due_s = machine.next_timer()
            if due_s is not None and due_s <= now_s:
                self._perform(machine.handle_timer(now_s))

    async def _read_datagrams(self) -> None:
        udp = self._udp
        assert udp is not None
        machine = self.machine
        while True:
            await trio.lowlevel.wait_readable(udp)
            for turn in range(DATAGRAMS_A_TURN):
                try:
                    data, source = udp.recvfrom(PACKET_BYTES_MAX + 1)
                except BlockingIOError:
                    if turn == 0:
                        # Woken for nothing to read: an error waits in the queue, and would wake us for ever.
                        self._perform(self._refusals())
                    break
                except OSError:
                    self._perform(self._refusals())
                    continue
                self._perform(machine.handle_datagram(trio.current_time(), data, source[:2]))

    def _refusals(self) -> list[Effect]:
        """Tell the machine of addresses that refused."""
        udp = self._udp
        assert udp is not None
        effects: list[Effect] = []
        for address in read_refusals(udp):
            effects += self.machine.handle_refused(trio.current_time(), address)
        return effects

    # -- effects

    def _perform(self, effects: list[Effect]) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            if isinstance(effect, SendDatagram):
                todo.extend(self._send(effect))
            elif isinstance(effect, OpenStream):
                self._open_stream(effect, todo)
            elif isinstance(effect, IdentityChanged):
                self._save_due.set()
            elif not isinstance(effect, StreamReply):
                self._notify(effect)
        due_s = self.machine.next_timer()
        if due_s is not None and (self._planned_s is None or due_s < self._planned_s):
            self._wakeup.set()

    def _send(self, effect: SendDatagram) -> list[Effect]:
        udp = self._udp
        assert udp is not None
        refusals: list[Effect] = []
        for _ in range(2):
            try:
                udp.sendto(effect.data, effect.address)
            except BlockingIOError:
                self.send_errors += 1
            except OSError:
                # An error of an earlier packet is reported at this one, which then wasn't sent.
                refusals += self._refusals()
                self.send_errors += 1
                continue
            break
        return refusals

    def _notify(self, notification: Notification) -> None:
        if isinstance(notification, MemberChanged):
            self._log(notification)
            self._since[notification.member.name] = time.time()
            if notification.new is None:
                self._since.pop(notification.member.name, None)
            for on_member in self._on_member:
                on_member(notification)
        elif isinstance(notification, NameConflict):
            logger.error(
                "the name %s is also used by %s:%s; change one of them", self.settings.name, *notification.address
            )
        elif isinstance(notification, StateChanged):
            for on_state in self._on_state:
                on_state(notification)

    @staticmethod
    def _log(change: MemberChanged) -> None:
        new = "forgotten" if change.new is None else change.new.name.lower()
        old = "unknown" if change.old is None else change.old.name.lower()
        level = logging.WARNING if change.new in (Status.DOWN, Status.FAILED) else logging.INFO
        logger.log(level, "%s: %s -> %s, by %s: %s", change.member.name, old, new, change.by, change.why)

    # -- streams

    def _open_stream(self, effect: OpenStream, todo: deque[Effect]) -> None:
        if self._nursery is None or self._streams >= STREAMS_MAX:
            todo.extend(self.machine.handle_stream_failed(trio.current_time(), effect.stream_id, "unreachable"))
            return
        self._streams += 1
        self._nursery.start_soon(self._request, effect)

    async def _request(self, effect: OpenStream) -> None:
        reason, reply = "unreachable", b""
        try:
            with trio.move_on_after(effect.timeout_s):
                async with await connect(effect.address) as stream:
                    reason = "silent"
                    await send_frame(stream, effect.data)
                    reply = await receive_frame(stream)
        except ConnectionRefusedError:
            reason = "refused"
        except (OSError, trio.BrokenResourceError):
            pass
        finally:
            self._streams -= 1
        now_s = trio.current_time()
        if reply:
            self._perform(self.machine.handle_reply(now_s, effect.stream_id, reply))
        else:
            self._perform(self.machine.handle_stream_failed(now_s, effect.stream_id, reason))

    async def _accept_streams(self, listener: trio.socket.SocketType) -> None:
        limit = trio.CapacityLimiter(STREAMS_MAX)
        async with trio.open_nursery() as nursery:
            while True:
                await limit.acquire_on_behalf_of(token := object())
                try:
                    connection, source = await listener.accept()
                except OSError as error:
                    limit.release_on_behalf_of(token)
                    logger.warning("accept failed: %s; trying again", error)
                    await trio.sleep(0.1)
                    continue
                nursery.start_soon(self._serve, trio.SocketStream(connection), source[:2], limit, token)

    async def _serve(
        self, stream: trio.SocketStream, source: Address, limit: trio.CapacityLimiter, token: object
    ) -> None:
        try:
            with trio.move_on_after(self.settings.config.stream_timeout_s):
                async with stream:
                    with contextlib.suppress(OSError, trio.BrokenResourceError):
                        await self._answer(stream, source)
        finally:
            limit.release_on_behalf_of(token)

    async def _answer(self, stream: trio.SocketStream, source: Address) -> None:
        frame = await receive_frame(stream)
        if not frame:
            return
        effects = self.machine.handle_stream(trio.current_time(), frame, source)
        self._perform(effects)
        for effect in effects:
            if isinstance(effect, StreamReply):
                await send_frame(stream, effect.data)

    # -- memory

    async def _keep_memory(self) -> None:
        saved: tuple[Identity, tuple[Address, ...]] | None = None
        while True:
            with trio.move_on_after(PEERS_SAVE_INTERVAL_S):
                await self._save_due.wait()
            self._save_due = trio.Event()
            live = [member.address for member in self.members()[1:] if member.state <= Status.SUSPECT]
            now = (self.machine.identity, tuple(live[:PEERS_KEPT]) or (saved[1] if saved else ()))
            if now != saved and (now[1] or saved is None):
                saved = now
                try:
                    await trio.to_thread.run_sync(self._memory.save, *now)
                except OSError as error:
                    logger.warning("could not keep %s: %s", self._memory.path, error)
