"""Repair: joins the cluster, compares whole tables with single members, and never gives up on those it lost.

Owns the comparisons under way and the attempts to reach seeds and lost members. It knows nothing of suspicion or
probes; what it hears goes to the judge and the state store. After Demers et al. 1987 (anti-entropy) and Scuttlebutt;
digests in buckets, so that a comparison of equal tables costs one small frame whatever the cluster's size, are ours.

    client                                        server
    Compare(me, digests of k buckets)        ->
                                             <-   Differences(me, k, buckets, (id, digest) of their members)
    Exchange(records, wanted ids)            ->   (only if something differs, on a stream of its own)
                                             <-   Records(records, more)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cluster import wire
from cluster.config import FRAME_BYTES_MAX
from cluster.core import Core
from cluster.effects import StateChanged
from cluster.errors import BadPacket
from cluster.judge import Judge
from cluster.membership import Address, Entry
from cluster.wire import Status

MEMBERS_PER_BUCKET: Final = 8
SYNCS_MAX: Final = 8
JOINS_WANTED: Final = 2
QUIET_S: Final = 1.0  # A table at rest for this long should equal others at rest.
RECORDS_BYTES_MAX: Final = FRAME_BYTES_MAX - 4096


class _Sync:
    """One comparison that this node opened."""

    __slots__ = ("address", "asked", "name")

    def __init__(self, address: Address, name: str) -> None:
        self.address = address
        self.name = name
        self.asked = False


class Repair:
    """Compares tables, and reaches for seeds and lost members."""

    def __init__(self, core: Core, judge: Judge, seeds: Iterable[Address], known_peers: Iterable[Address]) -> None:
        self._core = core
        self._judge = judge
        own = core.identity.address
        self._contacts = [address for address in dict.fromkeys([*seeds, *known_peers]) if address != own]
        self._syncs: dict[int, _Sync] = {}
        self._stream_count = 0
        self._joined: set[str] = set()
        self._pause_s = core.config.rejoin_min_s
        self._last_hint_s = -QUIET_S

    @property
    def joined(self) -> bool:
        """Whether the table was compared with as many members as a join wants."""
        return len(self._joined) >= min(JOINS_WANTED, len(self._core.table.live))

    def start(self) -> None:
        """Join, and compare from time to time."""
        core = self._core
        self._rejoin()
        core.timers.at(core.now_s + core.rng.random() * core.config.sync_interval_s, self._tick)

    # -- when and with whom

    def _tick(self) -> None:
        core = self._core
        core.timers.at(core.now_s + core.config.sync_interval_s * core.rng.uniform(0.95, 1.05), self._tick)
        for entry in core.table.draw(core.rng, 1):
            self._open(entry.address, entry.name)

    def hint(self, digest: int, sender: Entry | None) -> None:
        """A ping carried the sender's digest: if both tables should be at rest and yet differ, compare."""
        core = self._core
        if sender is None or digest == core.buckets.root & 0xFFFFFFFF:
            return
        now_s = core.now_s
        if now_s - core.changed_s > QUIET_S and now_s - self._last_hint_s > QUIET_S:
            self._last_hint_s = now_s
            self._open(sender.address, sender.name)

    def _rejoin(self) -> None:
        core = self._core
        lost = [address for address in self._contacts if not self._is_live(address)]
        lost += [entry.address for entry in core.table.failed.values() if not self._is_live(entry.address)]
        if not self.joined:
            fresh = [entry for entry in core.table.live if entry.name not in self._joined]
            for entry in core.rng.sample(fresh, min(1, len(fresh))):
                self._open(entry.address, entry.name)
        if not core.table.live:
            for address in core.rng.sample(lost, min(3, len(lost))):
                self._open(address, "")
        elif lost:
            self._open(core.rng.choice(lost), "")
        if not lost and self.joined:
            self._pause_s = core.config.rejoin_max_s
        core.timers.at(core.now_s + self._pause_s * core.rng.uniform(0.75, 1.25), self._rejoin)
        self._pause_s = min(self._pause_s * 2, core.config.rejoin_max_s)

    def _is_live(self, address: Address) -> bool:
        entry = self._core.table.by_address(address)
        return entry is not None and entry.live

    def _open(self, address: Address, name: str) -> None:
        core = self._core
        if len(self._syncs) >= SYNCS_MAX or any(sync.address == address for sync in self._syncs.values()):
            return
        count = 1
        while count * MEMBERS_PER_BUCKET < len(core.table) and count < core.buckets.COUNT:
            count *= 2
        core.counters.syncs += 1
        self._request(_Sync(address, name), wire.Compare(core.alive, core.buckets.fold(count)))

    def _request(self, sync: _Sync, frame: wire.Frame) -> None:
        core = self._core
        self._stream_count += 1
        stream_id = self._stream_count * 2
        self._syncs[stream_id] = sync
        entry = core.table.get(sync.name)
        core.open_stream(stream_id, sync.address, frame, entry, core.config.stream_timeout_s)

    # -- the server's side

    def answer(self, frame: wire.Compare | wire.Exchange) -> wire.Frame:
        """Return the reply to a request."""
        if isinstance(frame, wire.Exchange):
            records, more = self._records(frame.wanted)
            self._merge(frame.records, "")
            return wire.Records(records, more)
        core = self._core
        count = len(frame.buckets)
        if count & (count - 1):
            raise BadPacket("malformed", f"{count} buckets are no power of two")
        own = core.buckets.fold(count)
        differing = {index for index in range(count) if own[index] != frame.buckets[index]}
        reply = wire.Differences(
            core.alive, count, tuple(sorted(differing)), tuple(core.buckets.members(count, differing))
        )
        self._judge.hear(frame.me, frame.me.name)
        return reply

    # -- the client's side

    def owns_stream(self, stream_id: int) -> bool:
        """Return whether a stream was opened for a comparison."""
        return stream_id in self._syncs

    def stream_answered(self, stream_id: int, frame: wire.Frame) -> None:
        """Go on with a comparison."""
        sync = self._syncs.pop(stream_id)
        if isinstance(frame, wire.Differences):
            self._compare(sync, frame)
        elif isinstance(frame, wire.Records):
            self._merge(frame.records, sync.name)
            self._done(sync)
            if frame.more:
                self._open(sync.address, sync.name)

    def stream_failed(self, stream_id: int) -> None:
        """Give a comparison up; another one will come."""
        self._syncs.pop(stream_id)
        self._core.counters.sync_failures += 1

    def _compare(self, sync: _Sync, frame: wire.Differences) -> None:
        core = self._core
        sync.name = frame.me.name
        self._judge.hear(frame.me, frame.me.name)
        if frame.count & (frame.count - 1):
            raise BadPacket("malformed", f"{frame.count} buckets are no power of two")
        theirs = dict(frame.members)
        mine = dict(core.buckets.members(frame.count, set(frame.buckets)))
        differing = [number for number, digest in mine.items() if theirs.get(number) != digest]
        wanted = [number for number, digest in frame.members if mine.get(number) != digest]
        if not differing and not wanted:
            self._done(sync)
            return
        records, _ = self._records(differing)
        self._request(sync, wire.Exchange(records, tuple(wanted)))

    def _done(self, sync: _Sync) -> None:
        core = self._core
        if sync.name and sync.name != core.identity.name:
            self._joined.add(sync.name)
            if not self.joined:
                core.timers.at(core.now_s + core.config.rejoin_min_s * core.rng.random(), self._join_another)

    def _join_another(self) -> None:
        fresh = [entry for entry in self._core.table.live if entry.name not in self._joined]
        if fresh and not self.joined:
            entry = self._core.rng.choice(fresh)
            self._open(entry.address, entry.name)

    # -- records

    def _records(self, numbers: Iterable[int]) -> tuple[tuple[wire.Record, ...], bool]:
        records: list[wire.Record] = []
        room = RECORDS_BYTES_MAX
        for number in numbers:
            record = self._record(number)
            if record is None:
                continue
            room -= 160 + sum(48 + len(entry.value or b"") for entry in record.entries)
            if room < 0:
                return tuple(records), True
            records.append(record)
        return tuple(records), False

    def _record(self, number: int) -> wire.Record | None:
        core = self._core
        if number == core.short_id:
            status = Status.LEFT if self._judge.leaving else Status.ALIVE
            return wire.Record(core.alive, status, 0, core.store.entries(core.identity.name))
        entry = core.table.by_short_id(number)
        if entry is None:
            return None
        age_s = max(0, int(core.now_s - entry.since_s))
        return wire.Record(entry.alive, entry.status, age_s, core.store.entries(entry.name))

    def _merge(self, records: Iterable[wire.Record], told_by: str) -> None:
        for record in records:
            self._merge_member(record, told_by)
            if record.entries:
                self.hear_state(wire.Delta(record.alive.name, record.alive.boot_epoch, record.entries), told_by)

    def _merge_member(self, record: wire.Record, told_by: str) -> None:
        core = self._core
        alive, status = record.alive, record.status
        about = (alive.name, alive.boot_epoch, alive.incarnation)
        if alive.name != core.identity.name:
            ended = status > Status.SUSPECT
            if ended and record.age_s >= self._judge.memory_s(status) and core.table.get(alive.name) is None:
                return
            heard_as = status if ended else Status.ALIVE
            self._judge.hear_alive(alive, told_by, heard_as, core.now_s - record.age_s if ended else 0.0)
        by = told_by or alive.name
        if status == Status.LEFT:
            self._judge.hear(wire.Left(*about), told_by)
        elif status == Status.DOWN:
            self._judge.hear(wire.Down(*about, by), told_by)
        elif status == Status.FAILED:
            self._merge_failed(alive, by, told_by)
        elif alive.name == core.identity.name:
            self._judge.hear(alive, told_by)

    def _merge_failed(self, alive: wire.Alive, by: str, told_by: str) -> None:
        # A peer's verdict may stem from the other side of a partition: a member this node believes alive gets the
        # chance to refute it first.
        entry = self._core.table.get(alive.name)
        about = (alive.name, alive.boot_epoch, alive.incarnation)
        if entry is not None and not entry.live:
            self._judge.hear(wire.Failed(*about, by), told_by)
        else:
            self._judge.hear(wire.Suspect(*about, by, False), told_by)

    def hear_state(self, delta: wire.Delta, told_by: str) -> None:
        """Take in what is new of a member's state, and pass it on."""
        core = self._core
        if delta.name == core.identity.name:
            return
        entry = core.table.get(delta.name)
        # State of a life not heard of yet could not be repaired: records carry a life and its state together. What is
        # refused here for coming before its Alive is found by the digests.
        if entry is None or delta.boot_epoch != entry.alive.boot_epoch:
            return
        news = core.store.merge(delta.name, delta.boot_epoch, delta.entries)
        core.effects.extend(StateChanged(delta.name, change.key, change.value) for change in news)
        if news:
            core.refresh_digest(entry)
            core.tell_state(delta.name, delta.boot_epoch, news, told_by)
        elif core.deltas:
            for change in delta.entries:
                data = wire.encode(wire.Delta(delta.name, delta.boot_epoch, (change,)))
                core.deltas.heard((delta.name, change.key), data, told_by)
