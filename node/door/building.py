"""From a wish and the catalogue to a site: the container that would answer. Pure translation."""

from __future__ import annotations

from node.door.catalogue import Catalogue, Chosen
from node.door.wish import Wish
from node.quantities import parse_cpu, parse_duration, parse_size
from scheduler.model import JobKind, JobSpec, Resources
from scheduler.sites.site import Site
from scheduler.spec.files import Files, Volume

MIB = 1 << 20
ATTEMPTS_MAX = 1000
HOMES = "homes"
"""The name of the volume, allowed by the nodes' operators, below which users' homes are."""


def build(wish: Wish, catalogue: Catalogue) -> Site:
    """Return the site for a wish; NotFound and InvalidValue for an application the catalogue does not have."""
    chosen = catalogue.choose(wish.application)
    app = chosen.app
    idle_s = parse_duration(app.idle) if wish.idle_minutes is None else wish.idle_minutes * 60
    return Site(
        key=wish.backend,
        owner=wish.user,
        spec=_spec(wish, chosen),
        port=chosen.port,
        hosts=tuple(dict.fromkeys([*wish.domains, *([wish.realhost] if wish.realhost else [])])),
        application=wish.application,
        idle_s=idle_s,
        frozen_s=parse_duration(app.frozen) if wish.frozen_minutes is None else wish.frozen_minutes * 60,
        weight=wish.weight,
        always_on=wish.always_on,
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
        "FOFOCA_SITE_HOST": wish.realhost or (wish.domains[0] if wish.domains else ""),
        "FOFOCA_SITE_PORT": str(chosen.port),
        **{name: chosen.fill(value) for name, value in app.env.items()},
    }
    return JobSpec(
        name=f"site-{wish.user}-{wish.instance}",
        argv=tuple(chosen.fill(word) for word in app.command),
        request=Resources(max(1, request_milli), memory_bytes),
        limit=Resources(limit_milli, memory_bytes),
        image=chosen.fill(app.image),
        env=tuple(sorted(env.items())),
        kind=JobKind.SERVICE,
        attempts_max=ATTEMPTS_MAX,
        pids_max=app.pids,
        files=_files(wish, chosen),
    )


def _files(wish: Wish, chosen: Chosen) -> Files:
    if not wish.home:
        return Files()
    target = chosen.fill(chosen.app.home, user=wish.user)
    return Files(volumes=(Volume(name=HOMES, target=target, folder=wish.home),))
