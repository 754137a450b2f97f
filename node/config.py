"""The agent's configuration: a TOML file, every field declared once with meaning, trade-off, default and bound.

Owns what an operator may set and the relations between settings; knows nothing of who uses them. docs/config.md is
generated from these declarations (node/config_text.py). Whatever is wrong is said in one line that names the field, the
value and what would be right (InvalidConfig).
"""

from __future__ import annotations

import ipaddress
import socket
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.api_config import Api
from node.door.config import Door
from node.errors import InvalidConfig
from node.host.volumes import read_roots
from node.keys import ClusterKeys, read_keys
from node.ledger_settings import LedgerSettings
from node.limit_settings import Limits
from node.settings import Section, setting, unknown_key
from scheduler.spec.security import CAPABILITIES

CONFIG_BYTES_MAX = 1 << 20

NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NAME_EXPECTED = "1 to 63 small letters, digits and dashes, such as n1, with no dash at either end"
LABEL = r"[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?"


@dataclass(frozen=True, kw_only=True)
class Node(Section, name="node", about="Who this node is, and where it keeps what it must not forget."):
    """The node's identity and its directory."""

    name: str | None = setting(
        None,
        "The node's name in the cluster; no two nodes may share one.",
        unset="the host's name, up to its first dot",
        pattern=NAME,
        expected=NAME_EXPECTED,
    )
    number: int | None = setting(
        None,
        "The node's number; it is the last three digits of the id of every job whose home this node is.",
        trade_off="Set it by hand only where numbers must be known beforehand; two nodes with one number is an error.",
        unset="the node claims the smallest free number when it first joins, and keeps it",
        low=1,
        high=999,
    )
    address: str | None = setting(
        None,
        "The address other nodes reach this one at.",
        unset="gossip.host; where that is 0.0.0.0 or ::, the address of the route to the first seed",
    )
    data_dir: str = setting(
        "/var/lib/fofoca",
        "Directory of the ledger, the images, the containers and the local socket; made with mode 0700 if missing.",
        trade_off="Acknowledged jobs are only as durable as this disk.",
        pattern=r"/.*",
        expected="an absolute path",
    )
    labels: dict[str, str] = setting(  # noqa: RUF009 (it is a field, with a factory of its own)
        dict,
        'What jobs may ask for by constraint, such as { disk = "ssd", rack = "a3" }.',
        unset="no labels",
        pattern=LABEL,
        expected="labels of letters, digits and _ . / -, 63 at most each",
    )


@dataclass(frozen=True, kw_only=True)
class Cluster(Section, name="cluster", about="Which cluster this node belongs to."):
    """Name, key and seeds."""

    name: str = setting(
        "fofoca",
        "The cluster's name; nodes of other names are not listened to.",
        pattern=NAME,
        expected=NAME_EXPECTED,
    )
    key_file: str | None = setting(
        None,
        "File with the cluster's key: 32 random bytes as base64, mode 0600. "
        "`(umask 077; head -c 32 /dev/urandom | base64 > FILE)` makes one. "
        "Of several keys, a line each, the first one seals; orders by `fofoca keys` rewrite the file. "
        "All that nodes say to each other is sealed with it, and users' tokens are signed under it.",
        trade_off="Whoever reads it owns the cluster.",
        unset="no key: the node listens on loopback addresses only, and every local caller is an administrator",
        pattern=r"/.*",
        expected="an absolute path",
    )
    seeds: tuple[str, ...] = setting(
        (),
        "Gossip addresses (`host:port`) of nodes to join by; a few that are likely to be up.",
        trade_off="Without any, the node starts a cluster of its own and waits to be found.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for seed in self.seeds:
            split_address("cluster.seeds", seed)


@dataclass(frozen=True, kw_only=True)
class Gossip(Section, name="gossip", about="How nodes hear of each other (UDP and TCP on one port)."):
    """The membership protocol's socket and the timings an operator may tune."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(7946, "UDP and TCP port.", low=1, high=65_535)
    probe_interval_s: float = setting(
        1.0,
        "How often a node checks one other.",
        trade_off="Shorter finds dead nodes sooner and costs every node more packets and CPU.",
        low=0.05,
        high=60,
    )
    probe_timeout_s: float = setting(
        0.4,
        "How long a direct answer may take before others are asked to check as well; at most half the interval.",
        trade_off="Below the network's round trip every probe turns into several.",
        low=0.01,
        high=30,
    )
    suspicion_min_s: float = setting(
        3.0,
        "The shortest time a silent node stays suspect before it counts as failed.",
        trade_off="Smaller moves lost work sooner; larger forgives busy hosts and bad networks.",
        low=0.1,
        high=600,
    )
    sync_interval_s: float = setting(
        30.0,
        "How often a node compares all it knows with one other, over TCP.",
        trade_off="Shorter repairs what lost packets left behind sooner, and costs one exchange of everything known.",
        low=0.1,
        high=3_600,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if 2 * self.probe_timeout_s > self.probe_interval_s:
            raise InvalidConfig(
                "gossip.probe_timeout_s",
                self.probe_timeout_s,
                f"expected at most half of gossip.probe_interval_s ({self.probe_interval_s:g})",
            )
        if self.suspicion_min_s < self.probe_interval_s:
            raise InvalidConfig(
                "gossip.suspicion_min_s",
                self.suspicion_min_s,
                f"expected at least gossip.probe_interval_s ({self.probe_interval_s:g})",
            )


@dataclass(frozen=True, kw_only=True)
class Resources(Section, name="resources", about="What the node has, and what it offers to tasks."):
    """Capacity, reserve and permitted overcommit."""

    cpu_milli: int | None = setting(
        None,
        'The node\'s capacity: thousandths of a core, or a text such as "4" (cores).',
        unset="all cores this process may use",
        low=1,
        high=1_000_000_000,
    )
    memory_bytes: int | None = setting(None, "The node's capacity.", unset="the host's memory", low=1 << 20)
    extra: dict[str, str] = setting(  # noqa: RUF009 (it is a field, with a factory of its own)
        dict,
        'What the node has besides, by name and number, such as { gpu = "2" }: tasks ask for it, and it is never '
        "overcommitted.",
        unset="nothing besides",
        values=r"[0-9]{1,12}",
        expected="numbers, as texts",
    )
    reserve_cpu_milli: int = setting(
        0, "CPU kept back for the system and the agent; the rest is allocatable.", low=0, high=1_000_000_000
    )
    reserve_memory_bytes: int = setting(
        256 << 20,
        "Memory kept back for the system and the agent; the rest is allocatable.",
        trade_off="Too little, and a full node's agent and kernel fight with the tasks for memory.",
        low=0,
    )
    reserve_disk_bytes: int = setting(
        128 << 20,
        "Room kept free on the data directory's file system: with less, the node takes no new jobs and tasks.",
        trade_off="Too little, and what runs may fill the disk before anybody notices.",
        low=0,
    )
    overcommit_cpu: float = setting(
        1.0,
        "Permitted ratio of committed to allocatable CPU.",
        trade_off="CPU overcommit slows tasks down when all want their share at once; it breaks nothing.",
        low=1.0,
        high=100.0,
    )
    overcommit_memory: float = setting(
        1.0,
        "Permitted ratio of committed to allocatable memory.",
        trade_off="Above 1, tasks that all use what they asked for are killed by the kernel.",
        low=1.0,
        high=10.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cpu_milli", "memory_bytes"):
            capacity, reserve = getattr(self, name), getattr(self, f"reserve_{name}")
            if capacity is not None and reserve >= capacity:
                raise InvalidConfig(
                    f"resources.reserve_{name}", reserve, f"expected less than resources.{name} ({capacity})"
                )

    @property
    def cpu_ratio_permille(self) -> int:
        """The permitted CPU ratio in thousandths, as reports carry it."""
        return round(self.overcommit_cpu * 1000)

    @property
    def memory_ratio_permille(self) -> int:
        """The permitted memory ratio in thousandths."""
        return round(self.overcommit_memory * 1000)


@dataclass(frozen=True, kw_only=True)
class Runtime(Section, name="runtime", about="How tasks run on this node."):
    """Containers: where, with which network and users, and their defaults."""

    kind: str = setting(
        "auto",
        "What runs tasks: LXC containers, or plain processes.",
        trade_off="`process` isolates nothing; it is for machines where LXC can't run. `auto` says at start what it "
        "took, and why.",
        choices=("auto", "lxc", "process"),
    )
    cgroup_root: str = setting(
        "fofoca",
        "The cgroup, below the root of each hierarchy, that holds this node's containers.",
        trade_off="Two agents on one host need two.",
        pattern=r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*){0,7}",
        expected="a relative path of letters, digits and _ . -, such as fofoca/n1",
    )
    bridge: str = setting(
        "br0",
        "The network bridge containers are attached to.",
        pattern=r"[A-Za-z0-9_.-]{1,15}",
        expected="a network interface's name, 15 characters at most",
    )
    address_pool: str = setting(
        "10.77.0.0/24",
        "Network (CIDR) that containers get addresses of; the bridge has the first one.",
        trade_off="Its size bounds how many containers with a network run at once; nodes must not share one.",
    )
    first_user_id: int = setting(
        100_000,
        "First host user and group id given to containers; ids below it are the host's own. Every owner has a range of "
        "65,536 ids from there on, so that two owners' containers never share one.",
        low=65_536,
        high=2**31,
    )
    pids_max: int = setting(512, "Processes and threads a task may have unless it asks for less.", low=8, high=1 << 22)
    log_bytes_max: int = setting(
        64 << 20,
        "What is kept of each of a task's outputs (stdout, stderr).",
        trade_off="Beyond it the oldest bytes go.",
        low=16 << 10,
        high=1 << 40,
    )
    tmpfs_bytes: int = setting(
        64 << 20, "Size of a container's /tmp; counts as the task's memory.", low=1 << 20, high=1 << 40
    )
    start_timeout_s: float = setting(
        30.0,
        "How long the set-up of a container may take before the attempt has failed.",
        trade_off="Fetching an image does not count.",
        low=1,
        high=3_600,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            network = ipaddress.ip_network(self.address_pool)
        except ValueError:
            network = None
        if network is None or network.num_addresses < 4:
            raise InvalidConfig(
                "runtime.address_pool", self.address_pool, "expected a network such as 10.77.1.0/24, /30 or larger"
            )


@dataclass(frozen=True, kw_only=True)
class Network(Section, name="network", about="Containers' network beyond runtime.bridge and runtime.address_pool."):
    """IPv6, ways between nodes, named networks, published ports, names."""

    mode: str = setting(
        "nat",
        "How containers reach other nodes: with addresses of their own, by routes that the agents set (routed), or "
        "with their node's address (nat).",
        trade_off="`routed` needs pools that differ from node to node, and a network that carries them; with `nat` "
        "tasks on different nodes reach each other by published ports alone, and have no names there.",
        choices=("nat", "routed"),
    )
    address_pool6: str = setting(
        "",
        "Network (CIDR) that containers get IPv6 addresses of, such as fd77:0:0:1::/64; the bridge has the first one.",
        unset="no IPv6 for containers",
    )
    networks: dict[str, str] = setting(  # noqa: RUF009 (it is a field, with a factory of its own)
        dict,
        'Further networks that jobs may join by name: `BRIDGE POOL [POOL6]`, such as { storage = "br1 10.90.1.0/24" }.',
        unset="no further networks",
        pattern=r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?",
        values=r"[A-Za-z0-9_.-]{1,15}( [0-9a-fA-F.:]+/[0-9]{1,3}){1,2}",
        expected="BRIDGE POOL [POOL6], parted by blanks",
    )
    classes: dict[str, str] = setting(  # noqa: RUF009 (it is a field, with a factory of its own)
        dict,
        "Classes of traffic that jobs may choose, by name: MAJOR:MINOR in hexadecimal, as tc counts the classes of the "
        'queue at the uplink; 0:0 to 0:f are the priorities of a queue without classes. Such as { bulk = "1:20" }.',
        trade_off="What is marked counts at queues that the operator has set up; the agent makes none.",
        unset="no classes",
        pattern=r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?",
        values=r"[0-9a-f]{1,4}:[0-9a-f]{1,4}",
        expected="MAJOR:MINOR in hexadecimal, by a name of small letters, digits, _ and -",
    )
    published_ports: str = setting(
        "1024-32767",
        "Ports of this node that jobs may publish theirs at.",
        trade_off="Ports that this host listens on are never given away; ones it needs later should be left out here.",
        pattern=r"[0-9]{1,5}-[0-9]{1,5}",
        expected="FIRST-LAST",
    )
    picked_ports: str = setting(
        "20000-29999",
        "Of these the node picks one where a job names none; within network.published_ports.",
        pattern=r"[0-9]{1,5}-[0-9]{1,5}",
        expected="FIRST-LAST",
    )
    names: bool = setting(
        True,
        "Whether a resolver on the bridges answers for tasks' names, and passes other questions on to the host's own.",
        trade_off="Without it containers keep their image's /etc/resolv.conf.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = self.ports("published_ports")
        if not set(self.ports("picked_ports")) <= set(allowed):
            raise InvalidConfig("network.picked_ports", self.picked_ports, f"expected ports of {self.published_ports}")

    def ports(self, name: str) -> range:
        """Return a range of ports by its setting's name."""
        first, _, last = getattr(self, name).partition("-")
        if not 1 <= int(first) <= int(last) <= 65_535:
            raise InvalidConfig(f"network.{name}", getattr(self, name), "expected FIRST-LAST, from 1 to 65535")
        return range(int(first), int(last) + 1)


@dataclass(frozen=True, kw_only=True)
class Files(
    Section,
    name="files",
    about="Directories of this node that jobs may have as volumes, and the size of their root file systems.",
):
    """Roots of volumes; what each may hold is read by node/host/volumes.py."""

    volumes: dict[str, str] = setting(  # noqa: RUF009 (it is a field, with a factory of its own)
        dict,
        'Roots by name, each PATH[:OPTION,...], such as { homes = "/srv/homes:rw,create,by-owner" }. `rw`: jobs may '
        "write there. `create`: folders a job names are made. `by-owner`: everybody has a folder of their own, named "
        "as they are, and sees nothing above it. `owners=ana+bob`: for them alone. `ids=FIRST[-LAST]`: the ids on disk "
        "that are 0, 1, ... in containers, by default 0-65535.",
        trade_off="With `rw` and id 0 on disk containers can leave set-user-id files of root there, so such a root "
        "must be closed to local users (mode 0700) or mounted nosuid; otherwise it is not offered.",
        unset="no volumes",
        pattern=r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?",
        expected="a table of texts, its names 1 to 32 small letters, digits, _ and -",
    )
    root_bytes: int = setting(
        0,
        "The most that a task may write over its image where its job names no size; 0: not limited.",
        trade_off="Each container then starts about 30 ms later and takes a loop device; without it one task can fill "
        "the node's disk. For LXC alone: a node of plain processes refuses all tasks with it.",
        low=0,
        high=1 << 50,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        read_roots(self.volumes)


@dataclass(frozen=True, kw_only=True)
class Security(Section, name="security", about="What jobs may ask for beyond every container's confinement."):
    """Filters, capabilities and contexts that the operator allows."""

    seccomp_directory: str | None = setting(
        None,
        "Directory of system call filters in LXC's format, NAME.seccomp each; jobs choose one by its name. It replaces "
        "the one every container has.",
        trade_off="A filter that lacks what LXC itself needs makes starts time out.",
        unset="no filters to choose from",
        pattern=r"/.*",
        expected="an absolute path",
    )
    capabilities: tuple[str, ...] = setting(
        (),
        'Capabilities that jobs may add to the usual ones, such as ["net_raw", "sys_nice"]. They count inside the '
        "container's user namespace only.",
        trade_off="Each opens kernel code to strangers; with net_raw a container can pose as its neighbours.",
        pattern="|".join(sorted(CAPABILITIES)),
        expected="names of capabilities in small letters without CAP_",
    )
    selinux_context: str | None = setting(
        None,
        "SELinux context of all containers, such as system_u:system_r:container_t:s0.",
        unset="what the policy of the host says",
        pattern=r"[A-Za-z0-9_.,:-]{1,255}",
        expected="a context of letters, digits and _ . , : -",
    )


@dataclass(frozen=True, kw_only=True)
class Images(Section, name="images", about="What this node keeps of images, and how it builds them."):
    """Bounds of the image store, and the builder's settings."""

    disk_bytes_max: int = setting(
        64 << 30,
        "How much all images' files may be. Beyond it, images that nobody uses go, longest unused first, when another "
        "needs the room; those that only this node has stay as long as they have a name.",
        trade_off="Smaller fetches more often. Up to two images that are being unpacked come on top.",
        low=1 << 20,
        high=1 << 50,
    )
    unnamed_keep_s: float = setting(
        86_400.0,
        "How long an image that lost its name is kept after its last use.",
        trade_off="Jobs that were submitted before the name moved still mean it; they fail if it is gone everywhere.",
        low=0,
        high=366 * 86_400,
    )
    build_mirror: str | None = setting(
        None,
        "Where `fofoca image build` gets packages: the URL of a mirror.",
        unset="the host's own sources where they have the suite, else mmdebstrap's choice",
        pattern=r"(https?|copy|file):/[!-~]{1,500}",
        expected="a URL without blanks",
    )
    build_timeout_s: float = setting(1_800.0, "How long a build may take.", low=10, high=86_400)


@dataclass(frozen=True, kw_only=True)
class Scheduling(Section, name="scheduler", about="How this node decides as a home and as queue leader."):
    """Placement policy, grace for lost nodes and the bound on history."""

    policy: str = setting(
        "best-fit",
        "Which fitting node a task gets: the fullest (best-fit), the emptiest (spread), or of full ones that whose "
        "rest is most use (the others).",
        trade_off="best-fit keeps room for large tasks and lets nodes idle; spread hurts less when a node is lost; "
        "residue packs tightest and takes several times as long to decide.",
        choices=("best-fit", "spread", "balance", "dot-product", "cosine", "norm", "residue"),
    )
    lost_grace_s: float = setting(
        10.0,
        "How long a failed node may come back before its tasks are started elsewhere.",
        trade_off="Shorter moves work sooner; longer runs fewer tasks twice after short outages.",
        low=0,
        high=86_400,
    )
    handover_s: float = setting(
        300.0,
        "How long a service of this home may run on at most, on a node that is drained, while it starts elsewhere.",
        trade_off="0 stops it first: never two at once, and a gap.",
        low=0,
        high=86_400,
    )
    history_jobs_max: int = setting(
        10_000,
        "How many ended jobs of this home are remembered; the oldest are forgotten first.",
        trade_off="About 1 KB of disk and memory a job, and one row a task.",
        low=10,
        high=10_000_000,
    )


@dataclass(frozen=True, kw_only=True)
class Logging(Section, name="log", about="What the agent writes to stderr."):
    """Level and form of the agent's own log."""

    level: str = setting(
        "info", "The least important events that are written.", choices=("debug", "info", "warning", "error")
    )
    format: str = setting("text", "One JSON object a line, or lines for people.", choices=("text", "json"))


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """The whole configuration; relations between sections are checked at construction (InvalidConfig)."""

    node: Node = field(default_factory=Node)
    cluster: Cluster = field(default_factory=Cluster)
    gossip: Gossip = field(default_factory=Gossip)
    api: Api = field(default_factory=Api)
    resources: Resources = field(default_factory=Resources)
    runtime: Runtime = field(default_factory=Runtime)
    network: Network = field(default_factory=Network)
    images: Images = field(default_factory=Images)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    scheduler: Scheduling = field(default_factory=Scheduling)
    files: Files = field(default_factory=Files)
    security: Security = field(default_factory=Security)
    limits: Limits = field(default_factory=Limits)
    door: Door = field(default_factory=Door)
    log: Logging = field(default_factory=Logging)

    def __post_init__(self) -> None:
        if self.cluster.key_file is None:
            for name, host in (("gossip.host", self.gossip.host), ("api.host", self.api.host)):
                if not is_loopback(host):
                    raise InvalidConfig(name, host, "expected a loopback address, or cluster.key_file to be set")
        if self.door.listen is not None:
            split_address("door.listen", self.door.listen)
        if len(str(self.socket_path)) > 101:
            raise InvalidConfig("node.data_dir", self.node.data_dir, "expected a shorter path, or api.unix_socket set")

    @property
    def node_name(self) -> str:
        """The configured name, or the host's."""
        return self.node.name or host_name()

    @property
    def data_dir(self) -> Path:
        """The data directory."""
        return Path(self.node.data_dir)

    @property
    def socket_path(self) -> Path:
        """The local socket of the HTTP API."""
        return Path(self.api.unix_socket) if self.api.unix_socket else self.data_dir / "run" / "api.sock"

    @property
    def key_file(self) -> Path | None:
        """The file of the cluster's keys, None where the node has none."""
        return None if self.cluster.key_file is None else Path(self.cluster.key_file)

    def cluster_keys(self) -> ClusterKeys | None:
        """Return the cluster's keys, None where the node has none; InvalidConfig if the file is not as it should be."""
        return None if self.key_file is None else read_keys(self.key_file)


def load(path: Path) -> AgentConfig:
    """Read and check a configuration file."""
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise InvalidConfig("config", str(path), "expected a file of 1 MiB at most")
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig("config", str(path), f"expected a readable file ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig("config", str(path), f"expected TOML: {error}") from None
    return from_tables(tables)


def from_tables(tables: Mapping[str, Any]) -> AgentConfig:
    """Make a configuration of parsed TOML, a table a section."""
    sections = {section.section: section for section in all_sections()}
    values: dict[str, Any] = {}
    for name, table in tables.items():
        if name not in sections:
            raise InvalidConfig(name, table, unknown_key(name, list(sections)))
        values[name] = sections[name].read(table)
    return AgentConfig(**values)


def all_sections() -> list[type[Section]]:
    """Return the sections in the order of the file."""
    return list(typing.get_type_hints(AgentConfig).values())


def split_address(name: str, address: str) -> tuple[str, int]:
    """Take `host:port` or `[v6]:port` apart; InvalidConfig otherwise."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
        raise InvalidConfig(name, address, "expected host:port, such as 10.78.0.1:7946")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name() -> str:
    """Return the host's name as a node's name."""
    name = socket.gethostname().split(".")[0].lower()
    return (
        "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)[:63].strip("-") or "node"
    )
