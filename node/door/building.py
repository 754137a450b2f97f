"""From a wish and the catalogue to a site: the container that would answer. Pure translation."""

from __future__ import annotations

import re

from node.door.catalogue import Catalogue, Chosen
from node.door.wish import Wish, is_host
from node.quantities import parse_cpu, parse_duration, parse_size
from scheduler.model import JobKind, JobSpec, Resources
from scheduler.sites.site import Site
from scheduler.spec.files import Files, Volume
from scheduler.spec.health import Health, HttpCheck
from scheduler.spec.life import Life
from scheduler.spec.networking import Networking
from scheduler.spec.placement import Placement

MIB = 1 << 20
ATTEMPTS_MAX = 1000
HOMES = "homes"
"""The name of the volume, allowed by the nodes' operators, below which users' homes are."""


def build(wish: Wish, catalogue: Catalogue, *, host: str = "", field: str = "application") -> Site:
    """Return the site for a wish; NotFound and InvalidValue for an application the catalogue does not have.

    `host` is the name that a request asked for, "" for none; `field` what the application is called where the wish came
    from.
    """
    chosen = catalogue.choose(wish.application, field)
    app = chosen.app
    declared = tuple(dict.fromkeys((*wish.domains, *([wish.realhost] if wish.realhost else []))))
    min_instances = _min_instances(wish, chosen)
    idle_s = parse_duration(app.idle) if wish.idle_minutes is None else wish.idle_minutes * 60
    return Site(
        key=wish.backend,
        owner=wish.user,
        spec=_spec(wish, chosen),
        port=chosen.port,
        hosts=tuple(dict.fromkeys((*declared, *([host] if is_host(host) else [])))),
        declared=declared,
        realhost=wish.realhost,
        application=wish.application,
        idle_s=idle_s,
        frozen_s=parse_duration(app.frozen) if wish.frozen_minutes is None else wish.frozen_minutes * 60,
        weight=wish.weight,
        always_on=wish.always_on or wish.number <= min_instances,
        ready_s=parse_duration(app.ready_timeout),
        ready_path=app.ready_path,
    )


def _spec(wish: Wish, chosen: Chosen) -> JobSpec:
    app = chosen.app
    memory_bytes = parse_size(app.memory) if wish.memory_mib is None else wish.memory_mib * MIB
    limit_milli = 0
    if wish.cpu_percent is not None:
        limit_milli = wish.cpu_percent * 10
    elif app.cpu_limit:
        limit_milli = parse_cpu(app.cpu_limit)
    request_milli = min(parse_cpu(app.cpu), limit_milli or parse_cpu(app.cpu))
    env = {
        "FOFOCA_SITE": wish.backend,
        "FOFOCA_SITE_PORT": str(chosen.port),
        **({"HOME": _home(wish, chosen)} if wish.home else {}),
        **{name: chosen.fill(value) for name, value in app.env.items()},
    }
    return JobSpec(
        name=f"site-{wish.user}-{wish.number}",
        argv=tuple(chosen.fill(word) for word in app.command),
        request=Resources(max(1, request_milli), memory_bytes),
        limit=Resources(limit_milli, memory_bytes),
        image=chosen.fill(app.image),
        env=tuple(sorted(env.items())),
        kind=JobKind.SERVICE,
        attempts_max=ATTEMPTS_MAX,
        pids_max=app.pids,
        files=_files(wish, chosen),
        networking=Networking(hostname=host_name(wish.backend)),
        life=_life(chosen),
        placement=_placement(wish, chosen),
    )


def _min_instances(wish: Wish, chosen: Chosen) -> int:
    return chosen.app.min_instances if wish.min_instances is None else wish.min_instances


def _placement(wish: Wish, chosen: Chosen) -> Placement:
    """Have several instances run on different nodes where that is possible. Not for one alone: what nodes tell each
    other of what they run has little room."""
    if max(wish.number, _min_instances(wish, chosen)) < 2:
        return Placement()
    label = f"site={wish.user}"
    return Placement(labels=(label,), prefer_apart=(f"label:{label}",))


def host_name(key: str) -> str:
    """Return the host name of a site's container: its key as one label, `b-u-shimoo-1`."""
    return re.sub(r"[^a-z0-9]", "-", key)


def _life(chosen: Chosen) -> Life:
    """Return what is looked at while it runs: one that is not well is restarted, as any task."""
    app = chosen.app
    if not app.health_path:
        return Life()
    check = HttpCheck(port=chosen.port, path=app.health_path, status_max=499)
    start_s = parse_duration(app.ready_timeout)
    return Life(health=Health(http=check, interval_s=parse_duration(app.health_interval), start_period_s=start_s))


def _files(wish: Wish, chosen: Chosen) -> Files:
    if not wish.home:
        return Files()
    return Files(volumes=(Volume(name=HOMES, target=_home(wish, chosen), folder=wish.home),))


def _home(wish: Wish, chosen: Chosen) -> str:
    return chosen.fill(chosen.app.home, user=wish.user)
