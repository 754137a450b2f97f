"""Stands in for an agent, as a process of its own that tests may kill or put into namespaces (no test module).

runtime_agent.py census ROOT CGROUP_ROOT IMAGE COUNT SEED    lives through COUNT containers with random deaths
runtime_agent.py start ROOT CGROUP_ROOT IMAGE KIND           starts containers for ever, to be killed meanwhile
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import trio

from node.host.network import ensure_bridge, remove_interface
from node.host.network_pools import AddressPool, Range
from node.host.staging import scratch_obstacle
from node.host.volumes import VolumeRoot
from node.runtime import ContainerSpec, NetworkSpec, StartError, supervisor
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.parts import FileMounts, VolumeMount
from node.runtime.process import ProcessRuntime
from node.runtime.spares import PREFIX
from scheduler.spec.files import Scratch

BRIDGE, POOL = "ffcensus", Range.parse("10.213.9.0/24")
FATES = ("exits", "stopped", "removed", "supervisor", "lxc-execute", "command", "early supervisor", "early lxc-execute")
TOGETHER = 8


def opened(kind: str, root: Path, cgroup_root: str) -> LxcRuntime | ProcessRuntime:
    program = supervisor.build(root / "bin")
    return LxcRuntime(root, program, cgroup_root) if kind == "lxc" else ProcessRuntime(root, program)


def spec(name: str, image: Path | None, line: str, network: NetworkSpec | None = None) -> ContainerSpec:
    if image is None:
        return ContainerSpec(name=name, argv=("sh", "-c", line))
    return ContainerSpec(
        name=name,
        argv=("sh", "-c", line),
        rootfs=image,
        user_base=300_000,
        memory_bytes=64 << 20,
        cpu_milli=100,
        pids_max=20,
        network=network,
    )


class Census:
    def __init__(self, runtime: LxcRuntime, image: Path, pool: AddressPool, chance: random.Random) -> None:
        self.runtime = runtime
        self.image = image
        self.pool = pool
        self.chance = chance
        self.wrong: list[str] = []

    async def life(self, name: str, fate: str, limit: trio.CapacityLimiter) -> None:
        async with limit:
            network = NetworkSpec(BRIDGE, f"{self.pool.take(name, trio.current_time())}/24", POOL.gateway)
            container = spec(name, self.image, "exit 7" if fate == "exits" else "sleep 60", network)
            if self.chance.random() < 0.3:
                container = replace(container, files=self.files())
            await self.runtime.prepare(container)
            with trio.fail_after(30):
                try:
                    async with trio.open_nursery() as nursery:
                        if fate.startswith("early"):
                            nursery.start_soon(self.kill_early, name, fate)
                        await self.runtime.start(container)
                    await self.end(name, fate)
                except* StartError:
                    if not fate.startswith("early"):
                        self.wrong.append(f"{name} ({fate}) did not start")
            with trio.fail_after(30):
                await self.runtime.remove(name)
            self.pool.give_back(name, trio.current_time())

    def files(self) -> FileMounts:
        """A volume and a loop device; the image's folder serves as any other would."""
        volume = VolumeMount(VolumeRoot("image", self.image), "ana", "", "/volume", writable=False)
        return FileMounts(volumes=(volume,), scratch=None if scratch_obstacle() else Scratch(size_bytes=8 << 20))

    async def kill_early(self, name: str, fate: str) -> None:
        await trio.sleep(self.chance.uniform(0.0, 0.04))
        self.shoot(name, fate)

    async def end(self, name: str, fate: str) -> None:
        await trio.sleep(self.chance.uniform(0.0, 0.1))
        if fate == "removed":
            return
        if fate == "stopped" or fate.startswith("early"):  # an early shot may have missed
            await self.runtime.stop(name, 10)
        elif fate != "exits":
            while not self.shoot(name, fate):  # its target may not be there yet
                await trio.sleep(0.005)
        ending = await self.runtime.wait(name)
        expected = {"exits": 7, "stopped": 143}
        if fate in expected and ending.exit_code != expected[fate]:
            self.wrong.append(f"{name} ({fate}): {ending}")
        if fate == "supervisor" and ending.error is None:
            self.wrong.append(f"{name}: nobody noticed its supervisor's death: {ending}")

    def shoot(self, name: str, fate: str) -> bool:
        """False if it missed."""
        directory = self.runtime._directory(name)
        if fate.endswith("supervisor"):
            return supervisor.send_signal(directory, signal.SIGKILL)
        for pid in sorted(self.runtime._cgroups.processes(name)):
            with suppress(OSError):
                is_lxc = Path(f"/proc/{pid}/comm").read_text().strip() == "lxc-execute"
                if is_lxc == fate.endswith("lxc-execute"):
                    os.kill(pid, signal.SIGKILL)
                    return True
        return False

    def leftovers(self) -> list[str]:
        interfaces = set(os.listdir("/sys/class/net")) - {"lo", BRIDGE}
        left = [f"interface {name}" for name in interfaces]
        left += [f"group {name}" for name in self.runtime._cgroups.names()]
        left += [f"file {entry}" for entry in self.runtime._root.iterdir() if not entry.name.startswith(PREFIX)]
        left += [f"mount of {name}" for name in self.runtime._staging.names()]
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):  # another test's, just gone
                if path.read_text().startswith(str(self.runtime._root)):
                    left.append(f"loop device {path}")
        left += [f"address {address}" for address in self.pool.holders().values()]
        left += [f"child {pid}" for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
        return left


async def census(root: Path, cgroup_root: str, image: Path, number: int, seed: int) -> None:
    chance = random.Random(seed)
    ensure_bridge(BRIDGE, f"{POOL.gateway}/24")
    runtime = opened("lxc", root, cgroup_root)
    assert isinstance(runtime, LxcRuntime)
    descriptors = len(os.listdir("/proc/self/fd"))
    one = Census(runtime, image, AddressPool(POOL, {}, {}), chance)
    limit = trio.CapacityLimiter(TOGETHER)
    try:
        async with trio.open_nursery() as nursery:
            for index in range(number):
                nursery.start_soon(one.life, f"{index}.1.1", FATES[index % len(FATES)], limit)
        await trio.sleep(0.2)  # the kernel removes the interfaces of a dead network namespace in its own time
        left = one.leftovers()
        runtime._staging._maps.close()  # descriptors that are kept on purpose
        if len(os.listdir("/proc/self/fd")) != descriptors:
            left.append(f"descriptors: {descriptors} before, {os.listdir('/proc/self/fd')} after")
    finally:
        with trio.CancelScope(shield=True):
            await runtime.purge()
        remove_interface(BRIDGE)
    print(json.dumps({"wrong": one.wrong, "left": left}))


async def start_for_ever(root: Path, cgroup_root: str, image: Path, kind: str) -> None:
    runtime = opened(kind, root, cgroup_root)
    print("ready", flush=True)
    for number in count():
        container = spec(f"{number}.1.1", image if kind == "lxc" else None, "sleep 60" if number % 2 else "exit 3")
        await runtime.prepare(container)
        await runtime.start(container)
        if number % 3 == 2:
            await runtime.remove(container.name)


if __name__ == "__main__":
    mode, root, cgroup_root, image, *rest = sys.argv[1:]
    if mode == "census":
        trio.run(census, Path(root), cgroup_root, Path(image), int(rest[0]), int(rest[1]))
    else:
        trio.run(start_for_ever, Path(root), cgroup_root, Path(image), rest[0])
