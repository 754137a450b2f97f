"""The gossip part alone as a program, for a harness; agent.py starts it.

stdout, one JSON object a line: {"ev": "ready"}, {"ev": "join"|"suspect"|"recovered"|"dead"|"left", "node": NAME},
{"ev": "update", "node": NAME, "tags": {...}}, {"ev": "user", "node": NAME, "data": TEXT}
stdin: {"op": "tag", "k": KEY, "v": VALUE}, {"op": "user", "data": TEXT}, {"op": "stats"}

KEY is 32 bytes as base64, or `none`. An agent that is down (its host refused three nodes) counts as dead here, and so
does a failed one; a down one that fails later is not told twice.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence

import msgspec
import trio

from cluster import GossipConfig, MemberChanged, StateChanged, Status
from node.footprint import settle
from node.gossip_io import GossipService, GossipSettings

LIVE = (Status.ALIVE, Status.SUSPECT)
USER_KEY = "user"


def tell(**event: object) -> None:
    """Print one event."""
    os.write(1, msgspec.json.encode(event) + b"\n")


def on_member(change: MemberChanged) -> None:
    """Print a change of membership."""
    name, old, new = change.member.name, change.old, change.new
    if new == Status.ALIVE:
        tell(ev="recovered" if old == Status.SUSPECT else "join", node=name)
    elif new == Status.SUSPECT:
        tell(ev="suspect", node=name)
    elif new in (Status.DOWN, Status.FAILED) and old in LIVE:
        tell(ev="dead", node=name)
    elif new == Status.LEFT:
        tell(ev="left", node=name)


def on_state(change: StateChanged) -> None:
    """Print a change of state: the key `user` carries messages, the others are tags."""
    if change.value is None:
        return
    text = change.value.decode("utf-8", "replace")
    if change.key == USER_KEY:
        tell(ev="user", node=change.name, data=text)
    else:
        tell(ev="update", node=change.name, tags={change.key: text})


def obey(service: GossipService, line: bytes) -> None:
    """Carry out one command."""
    command = msgspec.json.decode(line)
    if command["op"] == "tag":
        service.set_state(command["k"], command["v"].encode())
    elif command["op"] == "user":
        service.set_state(USER_KEY, command["data"].encode())
    elif command["op"] == "stats":
        tell(ev="stats", stats=dict(service.counters))


async def run(name: str, bind: str, seed: str, key: str, **overrides: float) -> None:
    """Gossip until stdin ends."""
    host, port = bind.rsplit(":", 1)
    seed_host, seed_port = seed.rsplit(":", 1)
    settings = GossipSettings(
        name=name,
        host=host,
        port=int(port),
        cluster_key=None if key == "none" else base64.b64decode(key),
        seeds=((seed_host, int(seed_port)),) if seed != bind else (),
        config=GossipConfig(**overrides),  # type: ignore[arg-type]
    )
    service = GossipService(settings)
    service.subscribe(on_member, on_state)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        tell(ev="ready")
        settle()
        pending = b""
        while True:
            await trio.lowlevel.wait_readable(0)
            data = os.read(0, 65536)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                obey(service, line)
        nursery.cancel_scope.cancel()


def main(arguments: Sequence[str]) -> None:
    """Run with NAME, HOST:PORT, SEED and KEY."""
    trio.run(run, *arguments)
