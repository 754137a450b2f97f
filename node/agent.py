"""The agent: one node's nursery tree, and the order in which it starts and stops.

Start: data directory and ledger (which locks out a second agent), runtime, gossip, this node's number, the machine
from the ledger, containers found running, and only then the API: whoever gets an answer gets it from a whole node.
Stop (SIGTERM, SIGINT): the API first, then a goodbye by gossip, the ledger last. Containers run on. A signal during the
start, or a second one, ends the agent at once; nothing but the ledger's own order is needed for that to be safe.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from math import inf
from typing import cast

import trio

from cluster import GossipConfig, KeyRing
from node import logs
from node.allocations import Allocations, Host
from node.allowances import read_allowances
from node.api.app import build
from node.api.auth import Gate
from node.api.rpc import serve_calls
from node.api.server import Listening, serve
from node.api.services import Bounds, Services
from node.api.tls import server_context
from node.config import AgentConfig, split_address
from node.disk_room import DiskRoom
from node.door.opening import NodeSites
from node.effects import Effects
from node.errors import Busy, InvalidConfig, NodeError
from node.footprint import settle
from node.gossip_io import GossipService, GossipSettings
from node.grants import Grants
from node.hands import Hands
from node.health import checks
from node.home import Home
from node.host.boot import BootRecord
from node.host.cores import CorePool, cores_by_memory_node
from node.host.data_directory import DataDirectory
from node.host.image_build import BuildSettings
from node.host.images import ImageStore
from node.host.inventory import CapacitySettings, Inventory, UsageSampler, take_inventory
from node.host.network import NetworkError
from node.host.secret_files import SecretFiles
from node.host.user_ranges import UserRanges
from node.image_exchange import ImageExchange, ImageSettings
from node.image_names import ImageNames
from node.job_secrets import JobSecrets
from node.key_exchange import KeyExchange
from node.ledger.opening import Opened, Whose, open_ledger
from node.ledger.protocol import Content, Ledger
from node.ledger.spare import Spare
from node.limit_policy import LimitPolicy, read_policy
from node.limiter import Limiter
from node.measuring import Meter
from node.members import Members
from node.network import Network
from node.network_joining import join_cluster, open_configured
from node.new_work import NewWork
from node.outbox import Outbox
from node.output import OutputStore
from node.pacing import Paced
from node.peers import Peers, body_sealer
from node.runtime.opening import RuntimeKind, lxc_obstacles, open_runtime
from node.runtime.protocol import ContainerError, Runtime
from node.sessions import Sessions
from node.stand_ins import StandIns
from node.versions import version
from scheduler import Scheduler, SchedulerConfig
from scheduler.errors import SchedulerError
from scheduler.events import Heard, HomeUntil, Put
from scheduler.images import KEY as IMAGES
from scheduler.records import JOBS
from scheduler.spec.health import CHECKS

AGENT_TABLE = "agent"
NUMBER_KEY = "number"
OUTPUTS_MAX = 20_000
OUTPUT_BYTES_MAX = 4 << 30
OWNERS_MAX = 1_000
LEFT_GRACE_S = 600.0
STOP_TIMEOUT_S = 2.0
HOLD_LOOK_S = 0.5

log = logs.get("agent")


class AgentFailed(NodeError):
    """The host's or the operator's fault: what the agent needs is not there (any more)."""


def run(config: AgentConfig) -> None:
    """Run an agent until SIGTERM or SIGINT. A NodeError tells why it can't run; anything else is our bug."""
    os.umask(0o077)
    logs.configure(config.log.level, config.log.format, config.node_name)
    try:
        trio.run(Agent(config).run)
    except BaseException as error:
        raise _explained(_first_leaf(error)) from error


def _explained(error: BaseException) -> BaseException:
    """Return what made the agent fall as its operator should read it; our bugs go to the log with their traceback."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return AgentFailed(f"{where}{error.strerror or error}")
    if isinstance(error, ContainerError | NetworkError | SchedulerError):
        return AgentFailed(str(error))
    if isinstance(error, Exception) and not isinstance(error, NodeError):
        log.exception("ended by an error of its own")
    return error


def _first_leaf(error: BaseException) -> BaseException:
    """Return what made a nursery tree fall: its first exception that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _settle(boot: BootRecord, effects: Effects) -> None:
    """What a restart of the host ended is in the ledger: from now on it tells of this boot."""
    await effects.flush()
    try:
        await trio.to_thread.run_sync(boot.settle)
    except OSError as error:
        log.warning("this boot of the host can't be recorded; a restarted agent tries again", why=str(error))


async def _tell_hold(opened: Opened, effects: Effects) -> None:
    """Tell the machine for how long this is surely the home, where that can end."""
    told = inf
    while (until_s := opened.held_until_s()) < inf:
        if until_s != told:
            effects.post(HomeUntil(until_s))
            told = until_s
        await trio.sleep(HOLD_LOOK_S)


class Agent:
    """One node, from start to stop."""

    def __init__(self, config: AgentConfig, stands_at: str = "") -> None:
        """`stands_at`: the node that this agent carries on a lost home on, empty on the home's own."""
        self._config = config
        self._stands_at = stands_at
        self._name = config.node_name
        self._directory = DataDirectory(config.data_dir)
        self._boot = BootRecord(self._directory.boot)
        self._keys = config.cluster_keys()
        self._tls = server_context(config.api.tls_cert, config.api.tls_key or "") if config.api.tls_cert else None
        self._ready = False
        self._stop = trio.Event()

    async def run(self) -> None:
        """Start, serve until a signal, stop in order."""
        self._directory.prepare()
        spare = Spare(self._directory.ledger_spare)
        whose = Whose(cluster=self._config.cluster.name, home=self._name, node=self._name)
        async with open_ledger(self._config.ledger, self._directory.ledger, whose, spare) as opened:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey, signals, nursery.cancel_scope)
                    nursery.start_soon(opened.hold)
                    await self._run(opened, spare)
                    nursery.cancel_scope.cancel()
        log.info("stopped; containers run on")

    async def stand_in(self) -> None:
        """Carry on a lost home's jobs on another node until the home is back; LedgerLocked if somebody else does."""
        self._directory.prepare()
        spare = Spare(self._directory.ledger_spare)
        whose = Whose(cluster=self._config.cluster.name, home=self._name, node=self._stands_at)
        async with (
            open_ledger(self._config.ledger, self._directory.ledger, whose, spare) as opened,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._until_wanted, opened)
            await self._run(opened, spare)
            nursery.cancel_scope.cancel()

    async def _until_wanted(self, opened: Opened) -> None:
        await opened.hold()
        self._stop.set()

    def _nothing_new(self) -> NodeError:
        return Busy(f"node {self._stands_at} only stands in for {self._name} and takes nothing new; ask another node")

    async def _obey(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            if self._ready and not self._stop.is_set():
                self._stop.set()
            else:
                everything.cancel()

    async def _run(self, opened: Opened, spare: Spare) -> None:
        rows = await opened.ledger.load()
        policy = read_policy(self._config.limits, self._directory.root)
        runtime = await self._open_runtime(policy)
        network = await open_configured(self._config, runtime, self._directory.root)
        inventory = self._inventory(runtime)
        gossip = GossipService(self._gossip_settings())
        peers = Peers(self._name, body_sealer(self._name, gossip.key_ring))
        members = Members(self._name, gossip, peers, self._api_address)
        gossip.subscribe(members.on_member, members.on_state)
        images = await self._images(peers, members)
        keys = self._key_exchange(gossip.key_ring, peers, members)
        grants = self._grants(gossip.key_ring)
        room = self._new_work(opened, spare)
        async with trio.open_nursery() as nursery:
            await nursery.start(gossip.run)
            boot_epoch = gossip.boot_epoch
            number = await self._number(opened.ledger, rows, members, boot_epoch)
            machine = Scheduler(self._scheduling(), self._name, number, boot_epoch, random.getrandbits(64))
            effects = Effects(machine, opened.ledger, lambda action: hands.perform(action), opened.trouble)
            host = await trio.to_thread.run_sync(self._host, runtime, images, inventory, grants, policy, network)
            host = replace(host, address=self._reach_of_containers(gossip, network))
            home = self._home(effects, images, gossip.key_ring, runtime, room)
            allocations = Allocations(host, effects.post, nursery)
            sessions = Sessions(runtime, nursery, allocations.freezer)
            published = network is not None and bool(host.address)
            sites = NodeSites(
                self._config, effects, home, peers, sessions, nursery, fetch=images.ensure, published=published
            )
            hands = Hands(
                effects,
                allocations=allocations,
                home=home,
                sites=sites,
                outbox=Outbox(peers, effects.received, effects.keep_up, nursery),
                publish=Paced(gossip.set_state, nursery).publish,
            )
            meter = self._meter(runtime, inventory, grants, policy, network, room)
            effects.enqueue(machine.restore(trio.current_time(), time.time(), rows))
            effects.enqueue(machine.handle(trio.current_time(), meter.sample()))
            if network is not None:
                await join_cluster(network, self._config, peers, gossip, nursery)
            await sites.listen_inside(network, nursery)
            allocations.freezer.recover(machine.frozen())
            await hands.allocations.recover(machine.allocations(), restarted=self._boot.is_former())
            nursery.start_soon(effects.run)
            nursery.start_soon(_tell_hold, opened, effects)
            nursery.start_soon(_settle, self._boot, effects)
            nursery.start_soon(meter.run, effects.post)
            members.connect(sites.follow, lambda name: nursery.start_soon(self._tell, name, images, keys, sites))
            self._connect_images(images, runtime, gossip, effects)
            nursery.start_soon(images.upkeep.run)
            if keys is not None:
                nursery.start_soon(keys.run)
            nursery.start_soon(sessions.run)
            nursery.start_soon(self._stand_ins(gossip).run)
            services = self._services(hands, peers, images, keys, gossip, number, sessions, sites)
            await self._serve(services, sites, partial(self._announce, members, number, boot_epoch, runtime.name))
            await self._say_goodbye(effects, gossip)
            nursery.cancel_scope.cancel()

    async def _say_goodbye(self, effects: Effects, gossip: GossipService) -> None:
        with trio.move_on_after(STOP_TIMEOUT_S):
            await effects.flush()
            if not self._stands_at:  # A stand-in's home is as lost as before, until it comes back by itself.
                await gossip.leave()

    def _new_work(self, opened: Opened, spare: Spare) -> NewWork:
        disk = DiskRoom(self._directory.root, self._config.resources.reserve_disk_bytes, spare)
        return NewWork(disk, self._nothing_new if self._stands_at else opened.trouble)

    def _stand_ins(self, gossip: GossipService) -> StandIns:
        async def carry_on(config: AgentConfig) -> None:
            await Agent(config, stands_at=self._name).stand_in()

        return StandIns(self._config, gossip.document, lambda: gossip.address, carry_on)

    async def _serve(self, services: Services, sites: NodeSites, announce: Callable[[], None]) -> None:
        """Serve users and other nodes until the agent is told to stop; `announce` that they can come."""
        async with trio.open_nursery() as serving:
            await serving.start(serve, build(services), partial(serve_calls, services), self._listening())
            await serving.start(sites.serve, services.gate.verify)
            announce()
            self._ready = True
            if not self._stands_at:
                settle()
            await self._stop.wait()
            serving.cancel_scope.cancel()

    def _announce(self, members: Members, number: int, boot_epoch: int, runtime: str) -> None:
        members.publish(number, boot_epoch, settled=True)
        log.info("ready", number=number, api=self._api_address, runtime=runtime)

    def _connect_images(self, images: ImageExchange, runtime: Runtime, gossip: GossipService, effects: Effects) -> None:
        """From now on everybody, this node's own machine included, hears which images are here."""

        def publish(held: bytes) -> None:
            gossip.set_state(IMAGES, held)
            effects.post(Heard(self._name, IMAGES, held))

        images.store.removing = runtime.forget_rootfs
        images.announce(publish)

    @staticmethod
    async def _tell(name: str, images: ImageExchange, keys: KeyExchange | None, sites: NodeSites) -> None:
        """Tell a node that appeared what it may have missed; keys first, for without them it hears nothing."""
        if keys is not None:
            await keys.tell(name)
        await sites.keeping.compare(name)
        await images.tell(name)

    def _reach_of_containers(self, gossip: GossipService, network: Network | None) -> str:
        """Return where other nodes reach this one's containers, empty where these have addresses for that."""
        routed = network is not None and self._config.network.mode == "routed"
        return "" if routed else gossip.address[0]

    # --- the parts, from the configuration

    @property
    def _api_address(self) -> str:
        return f"{self._config.node.address or self._config.api.host}:{self._config.api.port}"

    def _gossip_settings(self) -> GossipSettings:
        settings = self._config.gossip
        return GossipSettings(
            name=self._name,
            host=settings.host,
            port=settings.port,
            advertise=self._config.node.address or "",
            cluster_key=self._keys.primary if self._keys else None,
            other_keys=self._keys.keys[1:] if self._keys else (),
            seeds=tuple(split_address("cluster.seeds", seed) for seed in self._config.cluster.seeds),
            label=self._config.cluster.name,
            data_directory=self._directory.root,
            config=GossipConfig(
                probe_interval_s=settings.probe_interval_s,
                probe_timeout_s=settings.probe_timeout_s,
                suspicion_min_s=settings.suspicion_min_s,
                sync_interval_s=settings.sync_interval_s,
            ),
        )

    def _key_exchange(self, ring: KeyRing | None, peers: Peers, members: Members) -> KeyExchange | None:
        path = self._config.key_file
        if self._keys is None or ring is None or path is None:
            return None
        return KeyExchange(self._keys, ring, path, peers, members.alive)

    async def _open_runtime(self, policy: LimitPolicy) -> Runtime:
        settings = self._config.runtime
        runtime = await open_runtime(
            cast(RuntimeKind, settings.kind),
            self._directory.root,
            settings.cgroup_root,
            [device.rule for device in policy.devices.values()],
        )
        if settings.kind == "auto" and runtime.name != "lxc":
            log.warning(
                "containers by LXC can't run here, so tasks are plain processes", why="; ".join(lxc_obstacles())
            )
        return runtime

    def _inventory(self, runtime: Runtime) -> Inventory:
        resources = self._config.resources
        return take_inventory(
            CapacitySettings(
                cpu_milli=resources.cpu_milli,
                memory_bytes=resources.memory_bytes,
                reserve_cpu_milli=resources.reserve_cpu_milli,
                reserve_memory_bytes=resources.reserve_memory_bytes,
                extra=tuple((name, int(count)) for name, count in sorted(resources.extra.items())),
                exclusive_cores=self._exclusive_cores(runtime),
            ),
            runtime.name,
        )

    def _exclusive_cores(self, runtime: Runtime) -> int:
        asked = self._config.limits.exclusive_cores_max
        if "cpuset" not in runtime.abilities:
            return 0
        usable = len(os.sched_getaffinity(0)) - 1
        if asked is None:
            return usable if self._config.resources.cpu_milli is None else 0
        return min(asked, usable)

    def _limiter(self, runtime: Runtime, policy: LimitPolicy) -> Limiter:
        pool = None
        if "cpuset" in runtime.abilities:
            pool = CorePool(self._directory.root / "cores.json", cores_by_memory_node(), self._exclusive_cores(runtime))
        return Limiter(policy, pool, runtime.features, runtime.update)

    def _meter(
        self,
        runtime: Runtime,
        inventory: Inventory,
        grants: Grants,
        policy: LimitPolicy,
        network: Network | None,
        room: NewWork,
    ) -> Meter:
        own = {**grants.allowances.labels(runtime.features), **policy.labels(runtime.abilities)}
        own |= network.labels() if network is not None else {}
        own |= {CHECKS: checks(runtime.features, addressed=network is not None)}
        labels = {"node": self._name, **self._config.node.labels, **own}
        sliced = self._config.resources.memory_bytes is not None
        sampler = None if sliced else UsageSampler(self._directory.root)
        return Meter(inventory, labels, sampler, runtime.usage, room.check)

    async def _images(self, peers: Peers, members: Members) -> ImageExchange:
        settings = self._config.images
        store = await ImageStore.open(self._directory.images, disk_bytes_max=settings.disk_bytes_max)
        names = ImageNames(self._directory.root / "image_names")
        build = BuildSettings(settings.build_mirror or "", settings.build_timeout_s, settings.disk_bytes_max)
        return ImageExchange(store, names, peers, members.alive, ImageSettings(settings.unnamed_keep_s, build))

    @staticmethod
    def _home(effects: Effects, images: ImageExchange, ring: KeyRing | None, runtime: Runtime, room: NewWork) -> Home:
        required = "rootfs" in runtime.features
        return Home(effects, images, JobSecrets(ring), image_required=required, require_room=room.require)

    def _grants(self, ring: KeyRing | None) -> Grants:
        allowances = read_allowances(self._config.files, self._config.security)
        return Grants(allowances, JobSecrets(ring), SecretFiles(self._directory.root / "secrets"))

    def _host(
        self,
        runtime: Runtime,
        images: ImageExchange,
        inventory: Inventory,
        grants: Grants,
        policy: LimitPolicy,
        network: Network | None,
    ) -> Host:
        settings = self._config.runtime
        root = self._directory.root
        return Host(
            node=self._name,
            runtime=runtime,
            images=images,
            ranges=UserRanges(root / "user_ranges.json", settings.first_user_id, OWNERS_MAX),
            network=network,
            output=OutputStore(root / "output", OUTPUTS_MAX, OUTPUT_BYTES_MAX),
            grants=grants,
            limiter=self._limiter(runtime, policy),
            settings=settings,
            cpu_milli=inventory.allocatable.cpu_milli,
        )

    def _scheduling(self) -> SchedulerConfig:
        settings, resources = self._config.scheduler, self._config.resources
        return SchedulerConfig(
            policy=settings.policy,
            cpu_ratio_permille=resources.cpu_ratio_permille,
            memory_ratio_permille=resources.memory_ratio_permille,
            lost_grace_s=settings.lost_grace_s,
            handover_s=settings.handover_s,
            left_grace_s=max(settings.lost_grace_s, LEFT_GRACE_S),
            history_jobs=settings.history_jobs_max,
            sites_max=self._config.door.sites_max,
            sites_per_owner_max=self._config.door.sites_per_user_max,
            sites_up_per_owner_max=self._config.door.sites_up_per_user_max,
        )

    async def _number(self, ledger: Ledger, rows: Content, members: Members, boot_epoch: int) -> int:
        """Return this node's number: configured, remembered, or claimed now and remembered."""
        configured, written = self._config.node.number, rows.get(AGENT_TABLE, {}).get(NUMBER_KEY)
        remembered = int(written) if written else None
        if configured and remembered not in (None, configured) and rows.get(JOBS):
            raise InvalidConfig("node.number", configured, f"expected {remembered}: the ids of this home's jobs end so")
        number = configured or remembered
        if number is None:
            number = await members.claim_number(
                boot_epoch=boot_epoch,
                seeds=self._has_seeds,
                probe_interval_s=self._config.gossip.probe_interval_s,
            )
        if number != remembered:
            await ledger.commit([Put(AGENT_TABLE, NUMBER_KEY, b"%d" % number)])
        return number

    @property
    def _has_seeds(self) -> bool:
        """Whether there is another node to join by: a list of seeds that is the same everywhere names this one too."""
        settings = self._config.gossip
        own = {(host, settings.port) for host in (settings.host, self._config.node.address)}
        return any(split_address("cluster.seeds", seed) not in own for seed in self._config.cluster.seeds)

    def _services(
        self,
        hands: Hands,
        peers: Peers,
        images: ImageExchange,
        keys: KeyExchange | None,
        gossip: GossipService,
        number: int,
        sessions: Sessions,
        sites: NodeSites,
    ) -> Services:
        api = self._config.api
        return Services(
            node=self._name,
            number=lambda: number,
            cluster=self._config.cluster.name,
            version=version(),
            gate=Gate(gossip.key_ring),
            jobs=hands.home,
            logs=hands.allocations,
            images=images,
            peers=peers,
            address=self._api_address,
            members=gossip.document,
            keys=keys,
            inside=sessions,
            sites=sites.sites,
            applications=sites.catalogue,
            bounds=Bounds(
                body_bytes_max=api.body_bytes_max,
                image_bytes_max=api.image_bytes_max,
                stall_timeout_s=api.stall_timeout_s,
            ),
        )

    def _listening(self) -> Listening:
        api = self._config.api
        return Listening(
            host=api.host,
            port=api.port,
            socket_path=self._config.socket_path,
            connections_max=api.connections_max,
            stall_timeout_s=api.stall_timeout_s,
            tls=self._tls,
        )
