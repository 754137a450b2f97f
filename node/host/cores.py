"""The host's cores by memory node, and who owns which: exclusive cores are picked here and given back here.

Owns the record of owners, a file of its own, so that a restarted agent gives no core away twice. Picks from as few
memory nodes as possible, and there from the one that is left the fewest (best fit), so that the next large wish finds
its node whole. May not know: control groups, containers beyond their names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.host.durable_file import write_durably
from node.host.errors import HostError
from scheduler.spec.limits import members

SYSTEM = Path("/sys/devices/system/node")


@dataclass(frozen=True, slots=True)
class Pinned:
    """Cores, and the memory nodes they are nearest to."""

    cores: tuple[int, ...]
    memory_nodes: tuple[int, ...]


def cores_by_memory_node(system: Path = SYSTEM, usable: Sequence[int] | None = None) -> dict[int, tuple[int, ...]]:
    """Return the cores this process may use, by memory node; all under node 0 where the kernel knows of none."""
    mine = set(os.sched_getaffinity(0) if usable is None else usable)
    found = {}
    for folder in sorted(system.glob("node[0-9]*")):
        near = tuple(core for core in members((folder / "cpulist").read_text().strip()) if core in mine)
        if near:
            found[int(folder.name.removeprefix("node"))] = near
    return found or {0: tuple(sorted(mine))}


class CorePool:
    """At most `count_max` cores are owned at a time; the others are everybody's."""

    def __init__(self, path: Path, by_node: Mapping[int, Sequence[int]], count_max: int) -> None:
        """Raises HostError for a record that can't be read."""
        self._path = path
        self._by_node = {node: tuple(cores) for node, cores in by_node.items()}
        self._count_max = count_max
        self._owned = self._read()

    def _read(self) -> dict[str, tuple[int, ...]]:
        try:
            return {name: tuple(cores) for name, cores in json.loads(self._path.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise HostError(f"{self._path}: the record of owned cores can't be read ({error})") from error

    def holders(self) -> Mapping[str, tuple[int, ...]]:
        """Name to the cores it owns."""
        return self._owned

    def shared(self) -> tuple[int, ...]:
        """The cores that nobody owns; empty when nobody owns any, for then nobody has to keep off."""
        if not self._owned:
            return ()
        owned = {core for cores in self._owned.values() for core in cores}
        return tuple(core for core in self._all() if core not in owned)

    def take(self, name: str, count: int, avoided: Collection[int] = ()) -> Pinned:
        """The name's cores, durable when this returns; the same again for a name that has some. `avoided`: cores that
        others asked for by number. Blocks for a sync. Raises HostError when there are not enough."""
        if name not in self._owned:
            free = self._free(avoided)
            most = min(sum(map(len, free.values())), self._count_max - sum(map(len, self._owned.values())))
            if count > most:
                raise HostError(f"{count} exclusive cores are asked for, and {most} can be had")
            self._write({**self._owned, name: _pick(free, count)})
        cores = self._owned[name]
        near = tuple(node for node, all_ in sorted(self._by_node.items()) if set(cores) & set(all_))
        return Pinned(cores, near)

    def give_back(self, name: str) -> bool:
        """Idempotent; True if it had any. Blocks for a sync."""
        if name not in self._owned:
            return False
        self._write({holder: cores for holder, cores in self._owned.items() if holder != name})
        return True

    def _free(self, avoided: Collection[int]) -> dict[int, tuple[int, ...]]:
        taken = {core for cores in self._owned.values() for core in cores} | set(avoided)
        free = {node: tuple(core for core in cores if core not in taken) for node, cores in self._by_node.items()}
        return {node: cores for node, cores in free.items() if cores}

    def _all(self) -> list[int]:
        return sorted(core for cores in self._by_node.values() for core in cores)

    def _write(self, owned: dict[str, tuple[int, ...]]) -> None:
        write_durably(self._path, json.dumps(owned).encode())
        self._owned = owned


def _pick(free: dict[int, tuple[int, ...]], count: int) -> tuple[int, ...]:
    picked: list[int] = []
    while len(picked) < count:
        wanted = count - len(picked)
        enough = [(len(cores), node) for node, cores in free.items() if len(cores) >= wanted]
        # None has enough: the one with the most, so that the fewest are touched.
        node = min(enough)[1] if enough else max(free, key=lambda each: (len(free[each]), -each))
        picked += free.pop(node)[:wanted]
    return tuple(sorted(picked))
