"""A cluster to be simulated, from TOML: any mix of node types, with what each costs.

    [[node]]
    name = "big"            # nodes are called big-1, big-2, ...
    count = 40
    cpu = 64                # cores, or "250m"
    memory = "256G"         # powers of 1024
    gpus = 4
    model = "A100"
    price = 3.2             # an hour, in any currency
    labels = {rack = "r1"}

Owns the format and its bounds. `processors` is the same cluster as a pool of cores, for batch traces.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from sim.errors import BadTrace
from sim.nodes import NodeSpec

NODES_MAX = 1_000_000
MIB = 1 << 20
_CPU = re.compile(r"(\d+(?:\.\d+)?)(m?)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGTP]?)i?B?", re.IGNORECASE)


class NodeType(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes of one make."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    cpu: int | float | str
    memory: int | str
    count: Annotated[int, msgspec.Meta(ge=0, le=NODES_MAX)] = 1
    gpus: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    model: str = ""
    price: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    labels: dict[str, str] = {}

    @property
    def cpu_milli(self) -> int:
        """Cores, in thousandths."""
        match = _CPU.fullmatch(str(self.cpu))
        if match is None:
            raise ValueError(f"cpu: {self.cpu!r} is not valid; cores such as 64, 1.5 or 250m")
        return int(Fraction(match[1]) * (1 if match[2] else 1000))

    @property
    def memory_bytes(self) -> int:
        """Memory, in bytes."""
        match = _SIZE.fullmatch(str(self.memory))
        if match is None:
            raise ValueError(f"memory: {self.memory!r} is not valid; bytes, or a size such as 256G")
        return int(Fraction(match[1]) * 1024 ** " KMGTP".index(match[2].upper() or " "))

    def specs(self, count: int | None = None) -> list[NodeSpec]:
        """Return `count` such nodes (as many as the file says)."""
        cpu_milli, memory_mib = self.cpu_milli, self.memory_bytes // MIB
        number = self.count if count is None else count
        return [
            NodeSpec(f"{self.name}-{place}", cpu_milli, memory_mib, self.gpus, self.model)
            for place in range(1, number + 1)
        ]


class Cluster(NamedTuple):
    """Node types in the order of the file."""

    types: tuple[NodeType, ...]

    @property
    def specs(self) -> list[NodeSpec]:
        """All nodes."""
        return [spec for each in self.types for spec in each.specs()]

    @property
    def processors(self) -> int:
        """All whole cores."""
        return sum(each.cpu_milli // 1000 * each.count for each in self.types)

    @property
    def price(self) -> float:
        """What all nodes cost an hour."""
        return sum(each.price * each.count for each in self.types)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node: Annotated[list[NodeType], msgspec.Meta(min_length=1, max_length=1000)]


def read_cluster(path: str | Path) -> Cluster:
    """Read a cluster file, or a copy of a live one (`sim.live`); raises BadTrace, naming the field that is wrong."""
    try:
        content = Path(path).read_bytes()
        if content.lstrip().startswith(b"{"):
            from sim.live import read_live, to_cluster

            return to_cluster(read_live(path))
        types = msgspec.toml.decode(content, type=_File).node
    except OSError as error:
        raise BadTrace(str(path), (error.strerror or str(error)).lower()) from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadTrace(str(path), str(error)) from None
    names = [each.name for each in types]
    for each in types:
        try:
            amounts = each.cpu_milli, each.memory_bytes
        except ValueError as error:
            raise BadTrace(str(path), f"node {each.name}: {error}") from None
        if min(amounts) <= 0 or names.count(each.name) > 1:
            why = "is there twice" if min(amounts) > 0 else "has no CPU or no memory"
            raise BadTrace(str(path), f"node {each.name}: {why}")
    if not 1 <= sum(each.count for each in types) <= NODES_MAX:
        raise BadTrace(str(path), f"count: all nodes together must be from 1 to {NODES_MAX}")
    return Cluster(tuple(types))


def parse_node_type(text: str) -> NodeType:
    """Read `NAME:cpu=64,memory=256G,price=1.2,gpus=4,model=A100`; raises ValueError, naming what is wrong."""
    name, _, rest = text.partition(":")
    fields: dict[str, object] = {"name": name}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} is not valid; KEY=VALUE")
        fields[key] = value
    try:
        found = msgspec.convert(fields, NodeType, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    if min(found.cpu_milli, found.memory_bytes) <= 0:
        raise ValueError("cpu and memory: must be more than 0")
    return found
