"""The text of an LXC configuration, from a spec and the places that the runtime has made for it.

Owns: which LXC keys a container gets. Pure: paths and values in, text out; nothing is looked up or touched.
May not know: processes, control group files (only the names of directories LXC is to use).

Limits are not here: they are set on the control group above LXC's own and read back there, since LXC passes over keys
of the other cgroup version in silence. Only v2's device filter is LXC's to load. Key names are those of LXC 3 to 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from node.runtime.lxc import files, limits, network, security
from node.runtime.lxc.places import Host, Line, Places
from node.runtime.protocol import USER_RANGE, ContainerSpec

SAFE_PATH = re.compile(r"/[A-Za-z0-9_./+-]*")
"""LXC parts overlay paths at colons and mount entries at blanks, without quoting."""


DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def text(spec: ContainerSpec, places: Places, host: Host) -> str:
    lines = [
        *_identity(spec, host),
        *files.lines(spec, places),
        *network.lines(spec.network, places.cgroup, places.network_up, places.network_of),
        *_cgroups(places),
        *limits.lines(spec, places.devices, host),
        *security.lines(spec, places, host),
        *_environment(spec),
    ]
    return "".join(f"{key} = {value}\n" for key, value in lines)


def arguments(spec: ContainerSpec) -> list[str]:
    """What the configuration file cannot express: options for lxc-execute, before the command."""
    options = []
    for key, value in spec.env:
        if "\n" in value:
            options += ["-s", f"lxc.environment={key}={value}"]
    return [*options, "--", *spec.argv]


def _identity(spec: ContainerSpec, host: Host) -> Iterator[Line]:
    yield "lxc.uts.name", spec.hostname or spec.name.replace(".", "-")
    if spec.user_base:
        yield "lxc.idmap", f"u 0 {spec.user_base} {USER_RANGE}"
        yield "lxc.idmap", f"g 0 {spec.user_base} {USER_RANGE}"
    if host.apparmor_profile is not None:
        yield "lxc.apparmor.profile", host.apparmor_profile
        yield "lxc.apparmor.allow_incomplete", 1  # kernels differ in what of AppArmor they have
    yield "lxc.init.cwd", spec.workdir
    if spec.user != (0, 0):
        yield "lxc.init.uid", spec.user[0]
        yield "lxc.init.gid", spec.user[1]


def _cgroups(places: Places) -> Iterator[Line]:
    yield "lxc.cgroup.dir.container", f"{places.cgroup}/payload/lxc"
    yield "lxc.cgroup.dir.monitor", f"{places.cgroup}/monitor"
    yield "lxc.cgroup.dir.monitor.pivot", places.cgroup_pivot
    yield from ((f"lxc.cgroup.{file}", value) for file, value in places.own_limits)


def _environment(spec: ContainerSpec) -> Iterator[Line]:
    """In quotes, of which LXC takes the outermost pair off: blanks at the ends stay."""
    for key, value in {"PATH": DEFAULT_PATH, **dict(spec.env)}.items():
        if "\n" not in value:
            yield "lxc.environment", f'"{key}={value}"'
