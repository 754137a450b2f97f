"""The cluster's keys across nodes: changed on any node, on all of them, while they run.

Owns which keys this node holds: the ring that gossip, calls and tokens share, and the file behind it. A change makes
the next version of the whole ring; of two versions a node holds the greater. It is in the file before it takes effect,
it travels sealed, and nodes compare theirs whenever one appears. An answer is sealed under its call's key, so a node
that slept through a rotation catches up as long as its old key is still on the ring of the others.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from cluster import InvalidKey, KeyRing
from cluster.seal import KEY_BYTES
from node import logs
from node.errors import Busy, InvalidValue, KeysNotSettled, PeerError
from node.keys import ClusterKeys, write_keys
from node.peers import Peers

METHOD = "keys"
CALL_TIMEOUT_S = 5.0
RETRIES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
ROUNDS_MAX = 3
ASK_INTERVAL_S = 1.0

log = logs.get("keys")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ClusterKeys).decode


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """What one node holds: the ids of its keys, the one that seals first; none where `why` says why not."""

    node: str
    ids: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class KeyTable:
    """What the live nodes hold; `lacking` names those that hold anything else than this node."""

    version: int
    nodes: tuple[NodeKeys, ...]
    lacking: tuple[str, ...]


class KeyExchange:
    """This node's keys, kept the same as everybody's. `alive` names the other nodes that can be asked."""

    def __init__(
        self, held: ClusterKeys, ring: KeyRing, path: Path, peers: Peers, alive: Callable[[], Sequence[str]]
    ) -> None:
        self._held = held
        self._ring = ring
        self._path = path
        self._peers = peers
        self._alive = alive
        self._ordering = trio.Lock()
        self._taking = trio.Lock()
        peers.register(METHOD, self._on_keys)

    # --- orders

    async def table(self) -> KeyTable:
        """Compare with all live nodes, and return what they hold then."""
        answers: dict[str, ClusterKeys | str] = {}
        for _ in range(ROUNDS_MAX):
            held = self._held
            answers = await self._compare_with_all()
            if self._held == held:
                break
        answers[self._peers.name] = self._held
        nodes = tuple(self._row(node, answers[node]) for node in sorted(answers))
        lacking = tuple(node for node in sorted(answers) if answers[node] != self._held)
        return KeyTable(self._held.version, nodes, lacking)

    async def add(self, key: bytes | None) -> tuple[str, KeyTable]:
        """Have every node open what is sealed under one more key (None: a new one); return its id. InvalidValue."""
        key = key or secrets.token_bytes(KEY_BYTES)
        async with self._ordering:
            await self.table()
            scratch = self._scratch()
            try:
                key_id = scratch.add(key)
            except InvalidKey as error:
                raise InvalidValue("add", "(not shown)", str(error)) from None
            return key_id, await self._spread(scratch)

    async def use(self, key_id: str) -> KeyTable:
        """Have every node seal under this key. KeysNotSettled unless all live nodes have it; InvalidValue."""
        async with self._ordering:
            before = await self.table()
            scratch = self._scratch()
            try:
                scratch.use(key_id)
            except InvalidKey as error:
                raise InvalidValue("use", key_id, str(error)) from None
            without = [row for row in before.nodes if key_id not in row.ids]
            if without:
                why = ", ".join(f"{row.node} ({row.why})" if row.why else row.node for row in without)
                raise KeysNotSettled(f"key {key_id} is not used yet, because these nodes may not have it: {why}")
            return await self._spread(scratch)

    async def remove(self, key_id: str) -> KeyTable:
        """Have every node forget a key. One that is gone already is no error: so the order can be repeated."""
        async with self._ordering:
            await self.table()
            scratch = self._scratch()
            if key_id in [each for each, _ in scratch.list()]:
                try:
                    scratch.remove(key_id)
                except InvalidKey as error:
                    raise InvalidValue("remove", key_id, str(error)) from None
            return await self._spread(scratch)

    def _scratch(self) -> KeyRing:
        return KeyRing(*self._held.keys, label=self._ring.label)

    async def _spread(self, wanted: KeyRing) -> KeyTable:
        if wanted.keys != self._held.keys:
            await self._take(ClusterKeys(self._held.version + 1, wanted.keys))
        table = await self.table()
        if self._held.keys != wanted.keys:
            raise KeysNotSettled("another order came in between and went before; look at the keys and order again")
        return table

    # --- between nodes

    async def run(self) -> None:
        """Ask the others whenever one speaks under a key that is not known here: this node missed an order."""
        while True:
            await self._peers.unknown_key.wait()
            self._peers.unknown_key = trio.Event()
            await self._compare_with_all()
            await trio.sleep(ASK_INTERVAL_S)

    async def tell(self, node: str) -> None:
        """Compare with a node that appeared, until it answers or is gone again."""
        for pause_s in RETRIES_S:
            if not isinstance(await self._compare(node), str) or node not in self._alive():
                return
            await trio.sleep(pause_s)
        log.warning("keys not compared with a node that appeared", node=node)

    async def _compare_with_all(self) -> dict[str, ClusterKeys | str]:
        answers: dict[str, ClusterKeys | str] = {}

        async def ask(node: str) -> None:
            answers[node] = await self._compare(node)

        async with trio.open_nursery() as nursery:
            for node in self._alive():
                nursery.start_soon(ask, node)
        return answers

    async def _compare(self, node: str) -> ClusterKeys | str:
        """Return what a node holds once it has heard what this one holds, or why it is not known."""
        try:
            theirs = _decode(await self._peers.call(node, METHOD, _encode(self._held), CALL_TIMEOUT_S))
            await self._take(theirs)
        except PeerError as error:
            return error.why
        except (Busy, KeysNotSettled) as error:
            return str(error)
        except msgspec.DecodeError:
            return "its answer makes no sense; is it of another version?"
        return theirs

    async def _on_keys(self, sender: str, payload: bytes) -> bytes:
        try:
            theirs = _decode(payload)
        except msgspec.DecodeError:
            raise InvalidValue("keys", "(not shown)", "expected a version and keys") from None
        await self._take(theirs)
        return _encode(self._held)

    async def _take(self, keys: ClusterKeys) -> None:
        """Hold these keys if they are newer: first in the file, then in effect. KeysNotSettled when that fails."""
        async with self._taking:
            if keys <= self._held:
                return
            try:
                KeyRing(*keys.keys)
                await trio.to_thread.run_sync(write_keys, self._path, keys)
            except InvalidKey as error:
                raise KeysNotSettled(f"node {self._peers.name} can't hold these keys: {error}") from None
            except OSError as error:
                why = f"node {self._peers.name} can't write {self._path}: {error.strerror}"
                log.error("the cluster's keys were not changed here", why=why)
                raise KeysNotSettled(why) from None
            self._held = keys
            self._ring.replace(*keys.keys)
        seals, *others = _ids(keys)
        log.info("the cluster's keys changed", version=keys.version, seals=seals, others=" ".join(others))

    @staticmethod
    def _row(node: str, answer: ClusterKeys | str) -> NodeKeys:
        return NodeKeys(node, (), answer) if isinstance(answer, str) else NodeKeys(node, _ids(answer))


def _ids(keys: ClusterKeys) -> tuple[str, ...]:
    return tuple(key_id for key_id, _ in KeyRing(*keys.keys).list())
