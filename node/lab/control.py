"""
What can be done to a lab: up, down, switch a node off and on, cut and heal links, look.

One operation at a time: each takes the lab's lock. Progress is told to a callback; whoever shows it is not known
here. Errors are LabFailure with one line fit for people.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from node import rootfs
from node.caller import Agents, parse_address
from node.errors import AgentUnreachable, ApiProblem
from node.lab import configuration, layout, leftovers, network, record
from node.lab.configuration import NodeShape
from node.lab.record import Lab, LabNode

MEET_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 12.0
POLL_S = 0.1
IMPORT_TIMEOUT_S = 60.0
IMAGE = "busybox"
ASK_TIMEOUT_S = 2.0
LOG_LINES_SHOWN = 8
Progress = Callable[[str], None]


class LabFailure(Exception):
    """The lab could not do it; the message says what and why, `details` are further lines such as the end of a log."""

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class LabMisuse(LabFailure):
    """The caller asked for what can't be: no lab, no such node."""


@dataclass(frozen=True)
class Plan:
    """What `lab up` is asked for."""

    nodes: int = 3
    runtime: str = "auto"
    shape: NodeShape = field(default_factory=NodeShape)
    image: bool = True


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the lab's lock: one operation at a time. The lock's file goes with the lab."""
    path = layout.lock_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _take_lock(path)
    try:
        yield
        if not layout.state_folder().exists():
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _take_lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the file: then this lock keeps nobody out.
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise LabFailure("another lab command is at work; try again when it is done") from None
        except FileNotFoundError:
            pass
        os.close(descriptor)


def running() -> Lab:
    """The lab that is up. Raises LabMisuse."""
    lab = record.load()
    if lab is None:
        raise LabMisuse("no lab is up; start one with `fofoca lab up`")
    return lab


def node_of(lab: Lab, name: str) -> LabNode:
    node = lab.node(name)
    if node is None:
        raise LabMisuse(f"the lab has no node {name!r}; it has {', '.join(each.name for each in lab.nodes)}")
    return node


def require_on(node: LabNode) -> None:
    """Raises LabMisuse when the node is switched off."""
    if not record.is_on(node):
        raise LabMisuse(f"{node.name} is switched off; `fofoca lab start {node.name}` brings it back")


def up(plan: Plan, progress: Progress) -> Lab:
    """Start a lab and return when all nodes see each other. On failure nothing is left behind."""
    with locked():
        _refuse_second_lab()
        if list(leftovers.remains()):
            progress("removing what an earlier lab left")
            _clean()
        try:
            return _build(plan, progress)
        except BaseException:
            leftovers.remove_all()
            raise


def down(progress: Progress) -> bool:
    """Remove the lab and all its traces; False if there was none."""
    with locked():
        if not list(leftovers.remains()):
            return False
        lab = record.load()
        if lab is not None:
            progress("stopping the agents")
            _stop_agents(lab)
        progress("removing containers, namespaces and files")
        _clean()
        return True


def kill_agent(name: str) -> None:
    """SIGKILL the agent of a node; its containers run on."""
    with locked():
        node = node_of(running(), name)
        require_on(node)
        os.kill(node.keeper_pid, signal.SIGUSR2)


def kill_host(name: str) -> None:
    """Take a node away: its link, its agent and its containers, all at once. Its disk stays."""
    with locked():
        lab = running()
        node = node_of(lab, name)
        require_on(node)
        if lab.isolated:
            # The link goes first: nobody may hear a dying host's last words, or be refused by its empty ports.
            network.unplug(node.number)
        leftovers.stop_processes([node.keeper_pid])
        leftovers.kill_containers(f"{layout.cgroup_root()}/{name}")
        leftovers.remove_cgroups(f"{layout.cgroup_root()}/{name}")
        if lab.isolated:
            network.remove_node(node.number)
        else:
            _keep_silent(node)
        Path(node.api_socket).unlink(missing_ok=True)
        record.store(lab.with_node(replace(node, keeper_pid=0, keeper_start_ticks=0)))


def start(name: str) -> None:
    """Bring a node back: its agent where the host still runs, else the host and its agent."""
    with locked():
        lab = running()
        node = node_of(lab, name)
        if record.is_on(node):
            os.kill(node.keeper_pid, signal.SIGUSR1)
            return
        leftovers.stop_processes(leftovers.keepers(node.data))
        if lab.isolated:
            network.remove_node(node.number)
            network.make_node(node.number, [other.number for other in lab.nodes])
        record.store(lab.with_node(_switch_on(node)))


def cut(name: str, others: Sequence[str]) -> list[str]:
    """Cut the links between a node and others (all others where none is named); returns the others' names."""
    with locked():
        lab = _isolated_lab()
        node = node_of(lab, name)
        far = [node_of(lab, other) for other in others] or [other for other in lab.nodes if other != node]
        if node in far:
            raise LabMisuse(f"{name} cannot be cut from itself")
        network.cut([(node.number, other.number) for other in far])
        return [other.name for other in far]


def heal() -> None:
    """Undo all cuts."""
    with locked():
        _isolated_lab()
        network.heal()


def agents(lab: Lab) -> Agents:
    """All agents of the lab that are switched on, as the lab's administrator."""
    places = [parse_address(f"unix://{node.api_socket}") for node in lab.nodes if record.is_on(node)]
    return Agents(places, lab.token)


def agent_of(lab: Lab, node: LabNode) -> Agents:
    return Agents([parse_address(f"unix://{node.api_socket}")], lab.token)


def view_of(lab: Lab, node: LabNode) -> list[dict[str, Any]] | None:
    """What one node's agent says of all nodes; None where it does not answer."""
    try:
        answer = agent_of(lab, node).get("/v1/nodes", read_timeout_s=ASK_TIMEOUT_S).json()
    except (AgentUnreachable, ApiProblem, ValueError):
        return None
    return answer if isinstance(answer, list) else None


def agent_pid(node: LabNode) -> int:
    """The agent's process id as this machine sees it; 0 if it does not run."""
    wanted = os.fsencode(node.config)
    return next((pid for pid in leftovers.children(node.keeper_pid) if wanted in leftovers.command_line(pid)), 0)


def last_log_lines(node: LabNode, count: int = LOG_LINES_SHOWN) -> list[str]:
    try:
        lines = Path(node.log).read_text(errors="replace").splitlines()
    except OSError:
        return []
    return lines[-count:]


def wait_until_met(lab: Lab, timeout_s: float, progress: Progress) -> None:
    """Return when every node sees every other alive. Raises LabFailure with the log of a node that does not."""
    deadline = time.monotonic() + timeout_s
    while True:
        waiting = [node for node in lab.nodes if not _sees_all(lab, node)]
        if not waiting:
            return
        for node in waiting:
            if _has_ended(node):
                raise LabFailure(f"the agent of {node.name} ended; its log {node.log} ends with:", last_log_lines(node))
        if time.monotonic() > deadline:
            names = ", ".join(node.name for node in waiting)
            raise LabFailure(
                f"after {timeout_s:g} s {names} did not see all nodes; the log of {waiting[0].name} ends with:",
                last_log_lines(waiting[0]),
            )
        progress(f"{len(lab.nodes) - len(waiting)} of {len(lab.nodes)} nodes see all others")
        time.sleep(POLL_S)


def import_busybox(lab: Lab) -> dict[str, Any] | None:
    """Build the image `busybox` of the machine's own static busybox and store it; None where the machine has none."""
    from node.host.busybox import build_busybox_rootfs
    from node.host.errors import HostError

    folder = layout.state_folder() / IMAGE
    try:
        build_busybox_rootfs(folder)
    except HostError:
        return None
    try:
        answer = agents(lab).put_stream(f"/v1/images/{IMAGE}", rootfs.read(folder), IMPORT_TIMEOUT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    stored: dict[str, Any] = answer.json()
    return stored


def _has_ended(node: LabNode) -> bool:
    if agent_pid(node):
        return False
    # A process that is just replacing its program has no command line for a moment.
    time.sleep(POLL_S)
    return not agent_pid(node)


def _refuse_second_lab() -> None:
    lab = record.load()
    if lab is not None and any(record.is_on(node) for node in lab.nodes):
        raise LabMisuse(f"a lab of {len(lab.nodes)} nodes is already up; `fofoca lab down` removes it")


def _clean() -> None:
    remains = leftovers.remove_all()
    if remains:
        raise LabFailure("some traces of the lab could not be removed:", remains)


def _build(plan: Plan, progress: Progress) -> Lab:
    isolated = layout.is_root() and can_isolate()
    lab, endpoints = _describe(plan, isolated)
    record.store(lab)
    progress(f"making {plan.nodes} nodes")
    if isolated:
        network.make_fabric()
        for node in lab.nodes:
            network.make_node(node.number, [other.number for other in lab.nodes])
    key, token = configuration.create_key(layout.state_folder())
    lab = replace(lab, token=token)
    for node, endpoint in zip(lab.nodes, endpoints, strict=True):
        Path(node.data).mkdir(mode=0o711, parents=True)  # containers, being nobody here, pass through
        configuration.write(node, endpoint, endpoints, plan.shape, lab.runtime, key)
        lab = lab.with_node(_switch_on(node))
        record.store(lab)
    wait_until_met(lab, MEET_TIMEOUT_S + plan.nodes, progress)
    if plan.image:
        progress(f"importing the image {IMAGE}")
        import_busybox(lab)
    return lab


def can_isolate() -> bool:
    """Whether this process may make namespaces (in an unprivileged container even root may not)."""
    probe = ["unshare", "--net", "--pid", "--mount", "--fork", "mount", "-t", "sysfs", "sysfs", "/sys"]
    try:
        return subprocess.run(probe, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _describe(plan: Plan, isolated: bool) -> tuple[Lab, list[configuration.Endpoint]]:
    endpoints = configuration.endpoints(plan.nodes, isolated)
    nodes = []
    for number, endpoint in enumerate(endpoints, start=1):
        name = layout.node_name(number)
        folder = layout.data_folder() / name
        nodes.append(
            LabNode(
                name=name,
                number=number,
                host=endpoint.host,
                api_port=endpoint.api_port,
                gossip_port=endpoint.gossip_port,
                api_socket=str(folder / "run" / "api.sock"),
                data=str(folder),
                config=str(layout.state_folder() / f"{name}.toml"),
                log=str(layout.state_folder() / f"{name}.log"),
                netns=layout.namespace(name) if isolated else "",
            )
        )
    return Lab(_runtime(plan, isolated), isolated, "", tuple(nodes), os.geteuid()), endpoints


def _runtime(plan: Plan, isolated: bool) -> str:
    if plan.runtime != "auto":
        return plan.runtime
    from node.runtime.opening import lxc_obstacles

    return "lxc" if isolated and not lxc_obstacles() else "process"


def _switch_on(node: LabNode) -> LabNode:
    """Start a node's keeper, which starts its agent."""
    pid = _start_keeper(node, configuration.agent_command(node))
    return replace(node, keeper_pid=pid, keeper_start_ticks=record.start_ticks(pid))


def _keep_silent(node: LabNode) -> None:
    """Let the ports of a node without a network of its own behave as a missing host's."""
    ports = [str(node.api_port), str(node.gossip_port)]
    _start_keeper(node, [sys.executable, "-m", "node.lab.silence", node.host, *ports])


def _start_keeper(node: LabNode, command: list[str]) -> int:
    keeper = [sys.executable, "-m", "node.lab.keeper", node.netns or "-", node.data, node.log]
    done = subprocess.run([*keeper, *command], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0 or not done.stdout.strip().isdigit():
        raise LabFailure(f"cannot start {node.name}: {(done.stderr or done.stdout).strip()}")
    return int(done.stdout)


def _stop_agents(lab: Lab) -> None:
    on = [node for node in lab.nodes if record.is_on(node)]
    for node in on:
        with contextlib.suppress(ProcessLookupError):
            os.kill(node.keeper_pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while any(record.is_on(node) for node in on) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _isolated_lab() -> Lab:
    lab = running()
    if not lab.isolated:
        raise LabMisuse("cutting links needs network namespaces: a lab started by root")
    return lab


def _sees_all(lab: Lab, node: LabNode) -> bool:
    view = view_of(lab, node)
    if view is None:
        return False
    alive = {str(other.get("name")) for other in view if other.get("state") == "alive" and other.get("accepting", True)}
    return {other.name for other in lab.nodes} <= alive
