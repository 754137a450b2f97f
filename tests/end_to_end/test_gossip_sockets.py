"""Gossip on real sockets: five agents in network namespaces under loss, cut, heal, kill and restart; loopback too."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from cluster import InvalidConfig, MemberChanged, StateChanged, Status
from node.gossip_io import GossipService, GossipSettings
from node.gossip_memory import FILE_NAME

KEY = bytes(range(32))
AGENT = Path(__file__).parents[2] / "benchmarks" / "gossip" / "agent.py"
COUNT = 5
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nft"), reason="needs root, ip and nft"
)


def sh(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)


class Agent:
    """One agent's process in its namespace, and what it says it sees."""

    def __init__(self, fabric: Fabric, number: int) -> None:
        self.fabric = fabric
        self.number = number
        self.name = f"n{number}"
        self.host = f"10.99.0.{number + 1}"
        self.view: dict[str, str] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.deaths: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.view = {}
        seed = self.fabric.agents[0 if self.number else 1].host
        key = base64.b64encode(KEY).decode()
        command = ["ip", "netns", "exec", self.fabric.namespace(self.number), sys.executable, str(AGENT)]
        self.process = subprocess.Popen(
            [*command, self.name, f"{self.host}:7946", f"{seed}:7946", key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            kind, node = event["ev"], event.get("node", "")
            if kind in ("join", "recovered"):
                self.view[node] = "alive"
            elif kind in ("dead", "left", "suspect"):
                self.view[node] = kind
                if kind == "dead":
                    self.deaths.append(node)
            elif kind == "update":
                self.tags.setdefault(node, {}).update(event["tags"])

    def tag(self, key: str, value: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": "tag", "k": key, "v": value}).encode() + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process = None


class Fabric:
    """A bridge in a namespace of its own, and one namespace an agent hanging on it."""

    def __init__(self) -> None:
        self.prefix = f"ffg{os.getpid() % 10000}"
        self.hub = f"{self.prefix}hub"
        self.agents = [Agent(self, number) for number in range(COUNT)]

    def namespace(self, number: int) -> str:
        return f"{self.prefix}n{number}"

    def build(self) -> None:
        sh("ip", "netns", "add", self.hub)
        sh("ip", "-n", self.hub, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", self.hub, "link", "set", "br0", "up")
        for agent in self.agents:
            space, port = self.namespace(agent.number), f"p{agent.number}"
            sh("ip", "netns", "add", space)
            sh("ip", "-n", self.hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            sh("ip", "-n", self.hub, "link", "set", port, "master", "br0")
            sh("ip", "-n", self.hub, "link", "set", port, "up")
            sh("ip", "-n", space, "addr", "add", f"{agent.host}/24", "dev", "eth0")
            sh("ip", "-n", space, "link", "set", "eth0", "up")
            sh("ip", "-n", space, "link", "set", "lo", "up")

    def unplug(self, number: int) -> None:
        sh("ip", "-n", self.hub, "link", "set", f"p{number}", "down")

    def plug(self, number: int) -> None:
        sh("ip", "-n", self.hub, "link", "set", f"p{number}", "up")

    def lose(self, percent: int) -> None:
        for agent in self.agents:
            rule = f"add rule inet ff in meta l4proto udp numgen random mod 100 < {percent} drop"
            run = ("ip", "netns", "exec", self.namespace(agent.number), "nft")
            sh(*run, "add table inet ff")
            sh(*run, "add chain inet ff in { type filter hook input priority 0 ; }")
            sh(*run, rule)

    def stop_losing(self) -> None:
        for agent in self.agents:
            sh("ip", "netns", "exec", self.namespace(agent.number), "nft", "delete table inet ff")

    def destroy(self) -> None:
        for agent in self.agents:
            agent.kill()
        for space in [self.hub, *(self.namespace(agent.number) for agent in self.agents)]:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, timeout=30, check=False)

    def believe(self, about: int, state: str, within_s: float) -> float:
        """Wait until every other running agent believes it; return how long that took."""
        witnesses = [agent for agent in self.agents if agent.number != about and agent.process is not None]
        name = self.agents[about].name
        return wait_until(
            lambda: all(agent.view.get(name) == state for agent in witnesses), within_s, f"{name} {state}"
        )


def wait_until(condition: Callable[[], bool], within_s: float, what: str) -> float:
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < within_s, f"not within {within_s} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - started_s


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    built = Fabric()
    try:
        built.build()
        for agent in built.agents:
            agent.start()
        yield built
    finally:
        built.destroy()


@pytest.mark.root
@pytest.mark.slow
@needs_namespaces
def test_five_agents_live_through_loss_cut_heal_kill_and_restart(fabric: Fabric) -> None:
    agents = fabric.agents
    for number in range(COUNT):
        fabric.believe(number, "alive", 30)
    fabric.lose(20)
    agents[1].tag("load", "42")
    wait_until(lambda: all(a.tags.get("n1", {}).get("load") == "42" for a in agents if a.number != 1), 10, "tag")
    time.sleep(5)
    assert not [death for agent in agents for death in agent.deaths], "loss of a fifth kills nobody"
    fabric.stop_losing()
    fabric.unplug(2)
    fabric.believe(2, "dead", 20)
    agents[3].tag("load", "43")
    fabric.plug(2)
    fabric.believe(2, "alive", 40)
    wait_until(lambda: agents[2].tags.get("n3", {}).get("load") == "43", 20, "what it missed")
    agents[4].kill()
    fabric.believe(4, "dead", 10)
    agents[4].start()
    fabric.believe(4, "alive", 20)


# -- one process, loopback


def settings(name: str, seeds: tuple[tuple[str, int], ...] = (), directory: Path | None = None) -> GossipSettings:
    return GossipSettings(name, "127.0.0.1", 0, KEY, seeds=seeds, data_directory=directory)


async def test_services_meet_tell_and_notice_a_refused_port() -> None:
    first = GossipService(settings("a"))
    heard: list[StateChanged] = []
    changes: list[MemberChanged] = []
    first.subscribe(changes.append, heard.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(first.run)
        others = [GossipService(settings(name, (first.address,))) for name in ("b", "c")]
        for other in others:
            await nursery.start(other.run)
        last = GossipService(settings("d", (first.address,)))
        scope = trio.CancelScope()

        async def run_last(*, task_status: trio.TaskStatus[object]) -> None:
            with scope:
                await last.run(task_status=task_status)

        await nursery.start(run_last)
        with trio.fail_after(20):
            while len(first.members()) < 4:
                await trio.sleep(0.02)
            last.set_state("load", b"7")
            while first.state_of("d") != {"load": b"7"}:
                await trio.sleep(0.02)
        scope.cancel()
        with trio.fail_after(10):
            while not any(change.new == Status.DOWN for change in changes):
                await trio.sleep(0.02)
        assert StateChanged("d", "load", b"7") in heard
        document = {member["name"]: member for member in first.document()}
        assert document["d"]["state"] == "down"
        assert first.counters["packets_bad"] == 0
        await others[0].leave()
        assert [member.state for member in first.members() if member.name == "b"] == [Status.LEFT]
        nursery.cancel_scope.cancel()


async def test_lives_and_peers_are_remembered_in_one_file(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        first = GossipService(settings("a", directory=tmp_path))
        await nursery.start(first.run)
        other = GossipService(settings("b", (first.address,)))
        await nursery.start(other.run)
        with trio.fail_after(20):
            while len(first.members()) < 2:
                await trio.sleep(0.02)
        first._save_due.set()
        with trio.fail_after(5):
            while not json.loads((tmp_path / FILE_NAME).read_bytes())["peers"]:
                first._save_due.set()
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    kept = json.loads((tmp_path / FILE_NAME).read_bytes())
    kept["boot_epoch"] = 2**40
    (tmp_path / FILE_NAME).write_text(json.dumps(kept))
    async with trio.open_nursery() as nursery:
        again = GossipService(settings("a", directory=tmp_path))
        await nursery.start(again.run)
        assert again.boot_epoch == 2**40 + 1, "lives are counted above the clock"
        assert json.loads((tmp_path / FILE_NAME).read_bytes())["boot_epoch"] == 2**40 + 1
        nursery.cancel_scope.cancel()
    (tmp_path / FILE_NAME).write_text("{broken")
    async with trio.open_nursery() as nursery:
        broken = GossipService(settings("a", directory=tmp_path))
        await nursery.start(broken.run)
        assert broken.boot_epoch >= int(time.time()) - 60
        nursery.cancel_scope.cancel()


async def test_garbage_on_both_ports_is_counted_and_nothing_more() -> None:
    async with trio.open_nursery() as nursery:
        service = GossipService(settings("a"))
        address = await nursery.start(service.run)
        udp = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        for data in (b"", b"x", bytes(1400), b"\xf1" * 100):
            await udp.sendto(data, address)
        for data in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x05hello", b"\x00"):
            stream = await trio.open_tcp_stream(*address)
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(data)
                await stream.send_eof()
                assert await stream.receive_some() == b""
            await stream.aclose()
        with trio.fail_after(5):
            while service.counters["packets_bad"] < 5:
                await trio.sleep(0.02)
        udp.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cluster_key": None, "host": "10.0.0.1"}, "cluster_key"),
        ({"host": "0.0.0.0"}, "advertise"),
        ({"host": "localhost"}, "host"),
        ({"port": 70000}, "port"),
        ({"name": "a b"}, "name"),
    ],
)
def test_settings_that_would_be_unsafe_or_useless_are_refused_by_name(changes: dict[str, object], field: str) -> None:
    good: dict[str, object] = {"name": "a", "host": "127.0.0.1", "port": 0, "cluster_key": KEY}
    with pytest.raises(InvalidConfig, match=f"^{field}:"):
        GossipSettings(**{**good, **changes})  # type: ignore[arg-type]
