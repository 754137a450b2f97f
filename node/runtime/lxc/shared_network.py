"""Network namespaces that several containers of one owner share: one for each group of them.

A namespace lives in the processes that are in it: nothing is mounted for it, and no record is kept beside those of its
containers. As long as an agent has containers of a group, a keeper of it (`cat` on a pipe of the agent's) is inside,
so that there is a place before the first container and a process to name to LXC. When the agent dies the keeper ends,
the containers keep their network, and the next agent puts a keeper beside one of them. What is left by the last
process of all goes by itself, its interfaces with it.

LXC mounts sysfs inside, which the kernel allows only to who owns the network namespace: so the containers share a user
namespace, too, made here with the range that each of them would have had for itself.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from node.host import network_rates
from node.host.network import NetworkError, mac_address, remove_interface
from node.runtime.lxc.network import host_end, host_ends
from node.runtime.protocol import USER_RANGE, ContainerSpec, NetworkSpec

TIMEOUT_S = 10.0
RETRY_S = 0.05
READY = b"here\n"
KEEP = ("sh", "-c", "echo here; exec cat >/dev/null")


class SharedNetworks:
    """`cgroup_root` makes the names of the host's ends unique to this agent; `first_process` finds a container's, if it
    runs. All calls block, for some ten milliseconds where a namespace is made or goes."""

    def __init__(self, cgroup_root: str, first_process: Callable[[str], int | None]) -> None:
        self._cgroup_root = cgroup_root
        self._first_process = first_process
        self._members: dict[str, set[str]] = {}
        self._keepers: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def know(self, spec: ContainerSpec) -> None:
        """Count a container that a former agent made."""
        if spec.network is not None and spec.network.group:
            with self._lock:
                self._members.setdefault(spec.network.group, set()).add(spec.name)

    def enter(self, spec: ContainerSpec) -> int | None:
        """Return a process whose network and user namespaces the container is to have; None: its own. NetworkError."""
        if spec.network is None or not spec.network.group:
            return None
        group = spec.network.group
        with self._lock:
            members = self._members.setdefault(group, set())
            members.add(spec.name)
            keeper = self._keepers.get(group)
            if keeper is None or keeper.poll() is not None:
                living = next(filter(None, map(self._first_process, members)), None)
                keeper = _keeper_beside(living) if living is not None else self._made(spec, spec.network)
                self._keepers[group] = keeper
            return keeper.pid

    def leave(self, name: str) -> None:
        """A container is gone; with the last of its group its network goes. Idempotent."""
        with self._lock:
            for group in [group for group, members in self._members.items() if name in members]:
                self._members[group].discard(name)
                if not self._members[group]:
                    self._end(group)

    def _end(self, group: str) -> None:
        del self._members[group]
        if group in self._keepers:
            _close(self._keepers.pop(group))
        for name in host_ends(f"{self._cgroup_root}/{group}"):
            remove_interface(name)

    def _made(self, spec: ContainerSpec, network: NetworkSpec) -> subprocess.Popen[bytes]:
        """Whoever makes the namespaces is root of the host in them; the keeper is what root inside is."""
        maker = _inside("unshare", "--user", "--net")
        try:
            for kind in ("uid", "gid"):
                Path(f"/proc/{maker.pid}/{kind}_map").write_bytes(b"0 %d %d" % (spec.user_base, USER_RANGE))
            keeper = _keeper_beside(maker.pid)
        except OSError as error:
            raise NetworkError(f"no user namespace can be made for a shared network: {error}") from error
        finally:
            _close(maker)
        try:
            for index, interface in enumerate((network, *network.more)):
                name = host_end(f"{self._cgroup_root}/{network.group}", index)
                _connect(keeper.pid, name, f"eth{index}", interface)
        except BaseException:
            _close(keeper)
            raise
        return keeper


def _connect(pid: int, name: str, inside: str, interface: NetworkSpec) -> None:
    """Make one pair of interfaces as LXC would, loopback with the first. The host's end has a hardware address above
    all others', or the bridge would take it for its own."""
    remove_interface(name)
    mtu = ("mtu", str(interface.mtu)) if interface.mtu else ()
    address = "fe" + mac_address(name)[2:]
    made = ("link", "add", name, "address", address, *mtu, "type", "veth", "peer", "name", inside, *mtu)
    _ip_when_free(*made, "netns", str(pid))
    _run("ip", "link", "set", name, "master", interface.bridge, "up")
    if interface.rate_in:
        script = network_rates.script(shutil.which("tc") or "tc", name, interface.rate_in)
        _run("sh", "-c", script)
    lines = "".join(f"{line}\n" for line in _lines(inside, interface))
    _run("nsenter", "--target", str(pid), "--net", "--", "ip", "-batch", "-", text=lines)


def _lines(inside: str, interface: NetworkSpec) -> Iterable[str]:
    yield "link set lo up"
    if interface.mac:
        yield f"link set {inside} address {interface.mac}"
    yield f"link set {inside} up"
    yield f"address add {interface.address} broadcast + dev {inside}"
    if interface.address6:
        yield f"address add {interface.address6} dev {inside} nodad"
    if interface.gateway:
        yield f"route add default via {interface.gateway} dev {inside}"
    if interface.gateway6:
        yield f"route add ::/0 via {interface.gateway6} dev {inside}"


def _ip_when_free(*arguments: str) -> None:
    """The kernel takes a moment to clear away the interfaces of a namespace that has just ended."""
    deadline = time.monotonic() + TIMEOUT_S / 4
    while True:
        try:
            return _run("ip", *arguments)
        except NetworkError as error:
            if "File exists" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def _keeper_beside(pid: int) -> subprocess.Popen[bytes]:
    return _inside("nsenter", "--target", str(pid), "--user", "--net")


def _inside(*entering: str) -> subprocess.Popen[bytes]:
    """Start a process that is in other namespaces, and stays there until its input ends, or we do."""
    command, both = [*entering, "--", *KEEP], subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=both, stdout=both, stderr=subprocess.STDOUT, start_new_session=True)
    except OSError as error:
        raise NetworkError(f"{entering[0]}: {error}") from error
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline()
    if said != READY:
        _close(process)
        raise NetworkError(f"{' '.join(entering)}: {said.decode(errors='replace').strip() or 'ended'}")
    return process


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(TIMEOUT_S)


def _run(*command: str, text: str = "") -> None:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise NetworkError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
