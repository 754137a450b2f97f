"""Homes whose hosts are lost, carried on here: a home is a name, a number and a record, and any host can run it.

When a member has failed for long enough, and the lease on its record in etcd has run out, one of the others takes the
record and runs a second agent, which has the lost one's name and number, nothing to offer to tasks, and ports of its
own. To everybody else the home has restarted at another address: what restarts make of attempts, ends and places in the
line holds for it too. Who takes the record is settled in etcd; that nodes come one after the other only saves futile
attempts. A home that comes back asks for its record, and the stand-in ends (docs/decisions/0025).

Owns when, and with which configuration. May not know: how an agent runs.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

import trio

from node import logs
from node.config import AgentConfig, Network, Resources
from node.door.config import Door
from node.errors import NodeError
from node.ledger.protocol import LedgerLocked
from node.limit_settings import Limits

LOOK_S = 1.0
TURN_S = 3.0
FAILED = "failed"

Members = Callable[[], Sequence[Mapping[str, object]]]

log = logs.get("stand-ins")


class StandIns:
    """The homes that this node stands in for; `carry_on` runs an agent until its home is back."""

    def __init__(
        self,
        config: AgentConfig,
        members: Members,
        gossip_address: Callable[[], tuple[str, int]],
        carry_on: Callable[[AgentConfig], Awaitable[None]],
    ) -> None:
        self._config = config
        self._me = config.node_name
        self._members = members
        self._gossip_address = gossip_address
        self._carry_on = carry_on
        self._failed_since_s: dict[str, float] = {}
        self._here: set[str] = set()

    async def run(self) -> None:
        """Stand in for whoever needs it, until cancelled."""
        if self._config.ledger.kind != "etcd" or not self._config.ledger.stand_in:
            return
        async with trio.open_nursery() as nursery:
            while True:
                for home in self.due(trio.current_time()):
                    self._here.add(home)
                    nursery.start_soon(self._stand_in, home)
                await trio.sleep(LOOK_S)

    def due(self, now_s: float) -> list[str]:
        """Return the homes that have failed for so long that it is this node's turn."""
        states = {str(member["name"]): member["state"] for member in self._members()}
        failed = {name for name, state in states.items() if state == FAILED and name != self._me}
        self._failed_since_s = {name: self._failed_since_s.get(name, now_s) for name in failed}
        alive = [self._me, *(name for name, state in states.items() if state == "alive" and name != self._me)]
        return [
            name
            for name, since_s in sorted(self._failed_since_s.items())
            if name not in self._here
            and now_s >= since_s + self._config.ledger.stand_in_after_s + TURN_S * _turn(name, self._me, alive)
        ]

    async def _stand_in(self, home: str) -> None:
        try:
            config = stand_in_config(self._config, home, self._gossip_address())
            log.info("standing in for a home that failed", home=home)
            await self._carry_on(config)
            log.info("no longer standing in: the home is back", home=home)
        except Exception as error:  # noqa: BLE001 (whatever ends a stand-in must not end the node)
            _tell(home, _first_leaf(error))
        finally:
            self._here.discard(home)
            self._failed_since_s.pop(home, None)


def _turn(home: str, me: str, alive: Sequence[str]) -> int:
    """Return how many of the living come before this node, for this home; another order for every home."""
    return sorted(alive, key=lambda name: hashlib.blake2b(f"{home} {name}".encode()).digest()).index(me)


def stand_in_config(config: AgentConfig, home: str, gossip_address: tuple[str, int]) -> AgentConfig:
    """Return the configuration of an agent that carries on a home here, and does nothing else. InvalidConfig."""
    host, port = gossip_address
    seed = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    api_port, gossip_port = _free_ports(config.api.host, 2)
    return replace(
        config,
        node=replace(
            config.node,
            name=home,
            number=None,
            data_dir=str(config.data_dir / "stand_ins" / home),
            labels={"stand-in": config.node_name},
        ),
        cluster=replace(config.cluster, seeds=(seed, *config.cluster.seeds)),
        gossip=replace(config.gossip, port=gossip_port),
        api=replace(config.api, port=api_port, unix_socket=str(config.data_dir / "run" / f"{home}.sock")),
        # The least there can be; what there is is never offered (Agent.stand_in).
        resources=Resources(cpu_milli=1, memory_bytes=1 << 20, reserve_memory_bytes=0),
        runtime=replace(config.runtime, kind="process"),
        network=Network(),
        limits=Limits(),
        door=Door(),
        ledger=replace(config.ledger, stand_in=False),
    )


def _free_ports(host: str, count: int) -> list[int]:
    """Return ports that nobody listens on at the moment, for UDP neither."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found: list[int] = []
    held: list[socket.socket] = []
    try:
        while len(found) < count:
            stream, datagram = socket.socket(family, socket.SOCK_STREAM), socket.socket(family, socket.SOCK_DGRAM)
            held += [stream, datagram]
            stream.bind((host, 0))
            port = stream.getsockname()[1]
            try:
                datagram.bind((host, port))
            except OSError:
                continue
            found.append(port)
    finally:
        for each in held:
            each.close()
    return found


def _tell(home: str, error: BaseException) -> None:
    if isinstance(error, LedgerLocked):
        log.info("not standing in: another agent holds the record", home=home, why=str(error))
    elif isinstance(error, NodeError | OSError):
        log.warning("can't stand in for a home", home=home, why=str(error))
    else:
        log.exception("a stand-in ended by an error of its own", home=home)


def _first_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
