"""The placement engine: finds nodes for tasks among many, the same for homes, the leader and the simulator.

Nodes are kept in the order of the policy (scheduler.grid, scheduler.shelves), in one roster for each kind of question:
which constraints, which extra resources, which images. A roster has only nodes that meet the constraints and have such
resources at all, so that a question for few nodes does not look at the others. Rosters are made when first asked for,
the ones not used for longest are dropped, and each catches up with what changed since it was asked last: an update
costs one entry in a list of changes, and many updates of one node are one.

A decision costs O(log nodes) at most while tasks fit where the order says that they should; never more than a look at
each node of the roster. What fitted nowhere is not looked for again until room grew somewhere. Owns the order and what
is tentatively taken during one question; knows no claims, reports or jobs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Protocol

from scheduler.fit import fits, unmet
from scheduler.grid import STEPS_MAX, Grid
from scheduler.images import WEIGHT, locality
from scheduler.model import Constraint, Resources
from scheduler.residue import Residue
from scheduler.scale import Scale
from scheduler.score import Policy, mixed
from scheduler.shelves import FRACTION_BITS, RING_MASK, SLOT_MASK, SLOTS_MAX, Scan, Shelves

ROSTERS_MAX = 64
CHANGES_MAX = 100_000
HOPELESS_MAX = 1000
SHORT_LIST = 4
NONE: frozenset[str] = frozenset()
RESIDUE_WEIGHT = 30

Key = tuple[tuple[Constraint, ...], tuple[str, ...], tuple[bytes, ...]]

Asked = tuple[Resources, tuple[Constraint, ...]]


class Candidate(Protocol):
    """What the engine reads of a node."""

    @property
    def name(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def usable(self) -> bool: ...
    @property
    def permitted(self) -> Resources: ...
    @property
    def free(self) -> Resources: ...
    @property
    def labels(self) -> dict[str, str]: ...
    @property
    def images(self) -> frozenset[bytes]: ...


class _Roster:
    """The nodes that one kind of question is about, in order; `seen` changes are in it."""

    def __init__(self, key: Key, shelves: Shelves | Grid) -> None:
        self.constraints, self.extras, self.images = key
        self.main = self.extras[0] if self.extras else "cpu"
        self.shelves = shelves
        self.seen = -1
        self.meets: dict[int, tuple[dict[str, str], bool]] = {}


class Finder:
    """Nodes by name. `steps`: how many levels there are between empty and full; what lies on one is drawn among by the
    seed, or where not `drawn`, taken in the order of numbers. `weights` by dimension, 1 where not said.
    """

    def __init__(
        self, policy: Policy, steps: int, *, drawn: bool = True, weights: Mapping[str, int] | None = None
    ) -> None:
        self._policy = policy
        self._steps = steps
        self._drawn = drawn
        self._bonus_max = int(WEIGHT * steps) + 1
        self._scale = Scale(steps, weights or {})
        self._scaled = 0
        self._slots: dict[str, int] = {}
        self._unused: list[int] = []
        self._nodes: list[Candidate | None] = []
        self._free: list[Resources] = []
        self._cpu: list[int] = []
        self._memory: list[int] = []
        self._rings: list[int] = []
        self._sizes: list[Resources | None] = []
        self._changes: list[int] = []  # slots; their complements where more than what is free may have changed
        self._forgotten = 0
        self._hopeless: set[Asked] = set()
        self._rosters: OrderedDict[Key, _Roster] = OrderedDict()
        self._residue = Residue(1, 1) if policy.learns else None

    # --- changes

    def see(self, node: Candidate) -> None:
        """A node is new, or anything about it has changed."""
        slot = self._slots.get(node.name)
        if slot is None:
            slot = self._slots[node.name] = self._new_slot()
            self._nodes[slot] = node
        self._hopeless.clear()
        self._rings[slot] = mixed(node.number) if self._drawn else 0
        size = node.permitted if node.usable else None
        if size != self._sizes[slot]:
            self._scale.swap(self._sizes[slot], size)
            self._sizes[slot] = size
        self._set(slot, node.free)
        self._changes[-1] = ~slot

    def changed(self, node: Candidate) -> None:
        """What a node has free has changed, and nothing else."""
        slot = self._slots.get(node.name)
        if slot is None:
            self.see(node)
        else:
            self._set(slot, node.free)

    def forget(self, name: str) -> None:
        """A node is gone."""
        slot = self._slots.pop(name, None)
        if slot is not None:
            self._scale.swap(self._sizes[slot], None)
            self._nodes[slot] = self._sizes[slot] = None
            self._unused.append(slot)
            self._changes.append(~slot)

    def _new_slot(self) -> int:
        if self._unused:
            return self._unused.pop()
        assert len(self._nodes) < SLOTS_MAX, "a cluster has a million nodes at most"
        self._nodes.append(None)
        self._sizes.append(None)
        self._free.append(Resources())
        for each in (self._cpu, self._memory, self._rings):
            each.append(0)
        return len(self._nodes) - 1

    def _set(self, slot: int, free: Resources) -> None:
        if self._hopeless and not _within(free, self._free[slot]):
            self._hopeless.clear()
        self._free[slot] = free
        self._cpu[slot], self._memory[slot] = free.cpu_milli, free.memory_bytes
        self._changes.append(slot)

    # --- questions

    def place(
        self,
        request: Resources,
        constraints: tuple[Constraint, ...],
        count: int,
        seed: int,
        images: tuple[bytes, ...] = (),
        *,
        per_node: int = 0,
        avoid: Container[str] = NONE,
    ) -> dict[str, int]:
        """Choose nodes for up to `count` equal tasks, the best first: {node: how many}.

        At most `per_node` on one node (0: as many as fit), and none on those to `avoid`. As if one by one, each counted
        in before the next; nothing is claimed.
        """
        key = constraints, _extras(request), images
        if self._residue is not None:
            self._residue.learn(request.cpu_milli, request.memory_bytes, count)
        asked = (request, constraints)
        if self._hopeless and asked in self._hopeless:
            return {}
        places: dict[int, int] = {}
        full: set[int] = set()
        scan = self._scan(request, avoid, full)
        whole_nodes = not self._policy.emptiest and self._policy.fine is None and not self._policy.learns
        if whole_nodes and count > 1 and (many := self._all(self._roster(key), request, seed, scan, avoid)) is not None:
            return self._fill(many, asked, count, per_node, avoid)
        while count > 0:
            roster = self._roster(key)
            slot = self._find(roster, request, self._seed(seed), scan, not full and avoid is NONE)
            if slot < 0:
                if not places:
                    self._give_up(asked, avoid)
                break
            times = 1
            if whole_nodes and count > 1:
                # What best fit has begun to fill stays the fullest: the next ones go there too, while they fit.
                times = min(count, _times(request, self._free[slot]), per_node or count)
            places[slot] = places.get(slot, 0) + times
            count -= times
            if whole_nodes or places[slot] == per_node:
                full.add(slot)
            elif count:
                self._set(slot, self._free[slot] - request)
        return {self._settle(slot): times for slot, times in places.items()}

    def _fill(
        self, slots: Iterator[int], asked: Asked, count: int, per_node: int, avoid: Container[str]
    ) -> dict[str, int]:
        """Place many equal tasks: what best fit has begun to fill stays the fullest, so each node takes what it can."""
        request, places = asked[0], {}
        for slot in slots:
            node = self._nodes[slot]
            assert node is not None, "only nodes that are there are found"
            times = places[node.name] = min(count, _times(request, self._free[slot]), per_node or count)
            count -= times
            if count <= 0:
                break
        if not places:
            self._give_up(asked, avoid)
        return places

    def _give_up(self, asked: Asked, avoid: Container[str]) -> None:
        if avoid is NONE and len(self._hopeless) < HOPELESS_MAX:
            self._hopeless.add(asked)

    def _seed(self, seed: int) -> int:
        return mixed(seed) if self._drawn else 0

    def _settle(self, slot: int) -> str:
        """Undo what was tentatively taken."""
        node = self._nodes[slot]
        assert node is not None, "only nodes that are there are found"
        if self._free[slot] is not node.free:
            self._set(slot, node.free)
        return node.name

    def best(
        self,
        request: Resources,
        constraints: tuple[Constraint, ...],
        seed: int,
        images: tuple[bytes, ...] = (),
        *,
        count: int,
        avoid: Container[str] = NONE,
    ) -> list[str]:
        """Return the `count` best nodes for one task, best first; fewer when it fits on fewer."""
        key = constraints, _extras(request), images
        full: set[int] = set()
        scan = self._scan(request, avoid, full)
        found: list[str] = []
        many = self._all(self._roster(key), request, seed, scan, avoid) if count > 1 else None
        while len(found) < count:
            slot = (
                next(many, -1) if many is not None else self._find(self._roster(key), request, self._seed(seed), scan)
            )
            if slot < 0:
                break
            full.add(slot)
            found.append(self._settle(slot))
        return found

    def able(self, request: Resources, constraints: tuple[Constraint, ...], avoid: Container[str] = NONE) -> list[str]:
        """Return all nodes that can take one such task now, in no order; those surely too small are not looked at."""
        roster = self._roster((constraints, _extras(request), ()))
        found = []
        for slot in roster.shelves.above(request.get(roster.main)):
            node = self._nodes[slot]
            if node is not None and fits(request, self._free[slot]) and node.name not in avoid:
                found.append(node.name)
        return found

    def grade(self, request: Resources, node: Candidate, seed: int, images: tuple[bytes, ...] = ()) -> tuple[int, int]:
        """Return how good a node is for a request that fits there, by the whole score; the smallest is best."""
        ring = (mixed(node.number) - mixed(seed)) & RING_MASK if self._drawn else node.number
        if self._policy.fine is None and not self._policy.learns:
            return self._level(node.free, node.permitted) - self._bonus(images, node), ring
        asked, scale = self._scale.shares(request), self._scale
        return -int(self._fine(request, asked, node.free, scale.shares(node.free)) * self._steps), ring

    # --- rosters

    def _roster(self, key: Key) -> _Roster:
        """Return the roster of a kind of question, up to date."""
        if self._scaled != self._scale.version:
            self._rosters.clear()
            self._scaled = self._scale.version
            if self._residue is not None:
                self._residue.resize(self._scale.whole.get("cpu", 1), self._scale.whole.get("memory", 1))
        if len(self._changes) > CHANGES_MAX:
            # A roster that was not asked since the older half is cheaper to make anew.
            self._forgotten += CHANGES_MAX // 2
            del self._changes[: CHANGES_MAX // 2]
        roster = self._rosters.get(key)
        if roster is None:
            roster = self._rosters[key] = _Roster(key, self._shelves(key[1][0] if key[1] else "cpu"))
            if len(self._rosters) > ROSTERS_MAX:
                self._rosters.popitem(last=False)
        elif len(self._rosters) > 1:
            self._rosters.move_to_end(key)
        if roster.seen != (now := self._forgotten + len(self._changes)):
            self._catch_up(roster)
            roster.seen = now
        return roster

    def _shelves(self, main: str) -> Shelves | Grid:
        """Return what keeps nodes in order: a grid where that is by levels, and they are few."""
        if self._policy.emptiest:
            return Shelves(None)
        growth = self._scale.growth(main)
        if self._policy.fine is None and not self._policy.learns and self._steps <= STEPS_MAX:
            return Grid(growth, self._bonus_max, not self._scale.extra)
        return Shelves(growth)

    def _catch_up(self, roster: _Roster) -> None:
        begin = roster.seen - self._forgotten
        if begin < 0:
            for slot in range(len(self._nodes)):
                self._file(roster, slot)
            return
        shelves, filed, nodes = roster.shelves, roster.shelves.places, self._nodes
        plain = isinstance(shelves, Grid) and not (roster.extras or roster.images or self._scale.extra)
        for change in {*self._changes[begin:]}:
            if change < 0:
                self._file(roster, ~change)
            elif change not in filed or (node := nodes[change]) is None:
                continue
            elif plain and isinstance(shelves, Grid) and (cpu := self._cpu[change]) > 0 < self._memory[change]:
                # Written out, not by _put(): every decision comes by here.
                level = cpu * self._scale.cpu + self._memory[change] * self._scale.memory
                shelves.put(change, cpu, level, 0, self._rings[change])
            else:
                self._put(roster, change, node)

    def _file(self, roster: _Roster, slot: int) -> None:
        node = self._nodes[slot]
        if node is None or self._sizes[slot] is None or not self._belongs(roster, slot, node):
            roster.shelves.drop(slot)
            return
        self._put(roster, slot, node)

    def _put(self, roster: _Roster, slot: int, node: Candidate) -> None:
        free = self._free[slot]
        bonus = self._bonus(roster.images, node) if roster.images else 0
        amount = free.get(roster.main) if roster.extras else self._cpu[slot]
        if isinstance(roster.shelves, Grid):
            roster.shelves.put(slot, amount, self._scale.level(free), bonus, self._rings[slot])
        else:
            roster.shelves.put(slot, amount, self._level(free, node.permitted) - bonus, self._rings[slot])

    def _belongs(self, roster: _Roster, slot: int, node: Candidate) -> bool:
        if not roster.constraints and not roster.extras:
            return True
        known = roster.meets.get(slot)
        if known is None or known[0] is not node.labels:
            meets = unmet(roster.constraints, node.labels) is None
            known = roster.meets[slot] = (node.labels, meets)
        return known[1] and all(node.permitted.get(name) > 0 for name in roster.extras)

    def _level(self, free: Resources, permitted: Resources) -> int:
        """Return where a node lies in the policy's order, before bonuses."""
        if not self._policy.emptiest:
            return self._scale.level(free) >> FRACTION_BITS
        shares = [free.get(dimension) * self._steps // most for dimension, most in permitted.items() if most > 0]
        return -(sum(shares) // len(shares)) if shares else 0

    def _bonus(self, images: tuple[bytes, ...], node: Candidate) -> int:
        return int(locality(images, node.images) * self._steps) if images else 0

    # --- one decision

    def _scan(self, request: Resources, avoid: Container[str], full: set[int]) -> Scan:
        """Return the search for the first slot that suits a request."""
        cpu, memory, cpus, memories = request.cpu_milli, request.memory_bytes, self._cpu, self._memory
        if request.extra or avoid is not NONE or min(cpu, memory) <= 0:
            nodes, free = self._nodes, self._free

            def suits(slot: int) -> bool:
                if slot in full or not fits(request, free[slot]):
                    return False
                node = nodes[slot]
                return node is not None and node.name not in avoid

            def scan_rarely(places: Sequence[int], begin: int, last: int) -> int:
                for at in range(begin, len(places)):
                    place = places[at]
                    if place > last:
                        break
                    if suits(place & SLOT_MASK):
                        return at
                return -1

            return scan_rarely

        def scan(places: Sequence[int], begin: int, last: int) -> int:
            # Most of a decision's time goes here.
            for at in range(begin, len(places)):
                place = places[at]
                if place > last:
                    break
                slot = place & SLOT_MASK
                if memories[slot] >= memory and cpus[slot] >= cpu and slot not in full:
                    return at
            return -1

        return scan

    def _all(
        self, roster: _Roster, request: Resources, seed: int, scan: Scan, avoid: Container[str]
    ) -> Iterator[int] | None:
        """Return the search for all slots that suit, the best first; None where one is to be found after the other."""
        if not isinstance(roster.shelves, Grid):
            return None
        main, rest, plain = self._amounts(roster, request)
        bonus = self._bonus_max if roster.images else 0
        return roster.shelves.all(main, rest, bonus, self._seed(seed), scan, plain, avoid is NONE)

    def _amounts(self, roster: _Roster, request: Resources) -> tuple[int, int, bool]:
        """Return what is asked for of the main resource, the level of all else, and whether only CPU and memory are."""
        main = request.get(roster.main) if roster.extras else request.cpu_milli
        rest = self._scale.level(request) - main * self._scale.growth(roster.main)
        return main, rest, not request.extra and request.cpu_milli > 0 and request.memory_bytes > 0

    def _find(self, roster: _Roster, request: Resources, seed: int, scan: Scan, every: bool = False) -> int:
        """Return the best slot, -1 when there is none."""
        main, rest, plain = self._amounts(roster, request)
        bonus = self._bonus_max if roster.images else 0
        shelves = roster.shelves
        if isinstance(shelves, Grid):
            return shelves.first(main, rest, bonus, seed, scan, plain, every)
        if self._policy.fine is None and self._residue is None:
            return shelves.first(main, rest, bonus, seed, scan)
        slots = shelves.firsts(main, rest, bonus, seed, scan, SHORT_LIST)
        if len(slots) < 2:
            return slots[0] if slots else -1
        asked = self._scale.shares(request)
        return max(
            slots,
            key=lambda slot: int(
                self._fine(request, asked, self._free[slot], self._scale.shares(self._free[slot])) * self._steps
            ),
        )

    def _fine(self, request: Resources, asked: tuple[float, ...], free: Resources, shares: tuple[float, ...]) -> float:
        if self._policy.fine is not None:
            return self._policy.fine(asked, shares)
        assert self._residue is not None, "a policy has a score, learns, or is an order"
        growth = self._residue.growth((request.cpu_milli, request.memory_bytes), (free.cpu_milli, free.memory_bytes))
        return -RESIDUE_WEIGHT * growth - (sum(shares) - sum(asked)) / len(shares)


def _within(free: Resources, old: Resources) -> bool:
    return free.cpu_milli <= old.cpu_milli and free.memory_bytes <= old.memory_bytes and free.extra == old.extra


def _extras(request: Resources) -> tuple[str, ...]:
    return tuple([name for name, need in request.extra if need > 0]) if request.extra else ()


def _times(request: Resources, free: Resources) -> int:
    """Return how many such tasks fit into what is free."""
    if not request.extra and request.cpu_milli > 0 and request.memory_bytes > 0:
        return min(free.cpu_milli // request.cpu_milli, free.memory_bytes // request.memory_bytes)
    have = dict(free.items())
    return min(have.get(dimension, 0) // need for dimension, need in request.items() if need > 0)
