"""The text of LXC's configuration: what is always in it, and what never gets into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from node.runtime import ContainerSpec, NetworkSpec
from node.runtime.lxc import seccomp
from node.runtime.lxc.config import Host, Places, arguments, text
from node.runtime.lxc.network import host_end
from node.runtime.parts import Privileges

SPEC = ContainerSpec(name="7.1.1", argv=("sh",), rootfs=Path("/i"), user_base=300_000)
PLACES = Places(
    lowers=(Path("/run/i"),),
    delta=Path("/run/c/fs/delta"),
    ready=Path("/run/c/ready"),
    seccomp=Path("/run/seccomp"),
    cgroup="fofoca/n1/7.1.1",
    cgroup_pivot="fofoca/n1/_pivot",
)


def lines(spec: ContainerSpec = SPEC, host: Host | None = None) -> list[tuple[str, str]]:
    pairs = [line.partition(" = ") for line in text(spec, PLACES, host or Host()).strip("\n").split("\n")]
    return [(key, value) for key, _, value in pairs]


def values(key: str, spec: ContainerSpec = SPEC, host: Host | None = None) -> list[str]:
    return [value for found, value in lines(spec, host) if found == key]


def test_every_container_is_confined() -> None:
    assert values("lxc.idmap") == ["u 0 300000 65536", "g 0 300000 65536"]
    assert values("lxc.no_new_privs") == ["1"]
    assert values("lxc.seccomp.profile") == ["/run/seccomp"]
    (kept,) = values("lxc.cap.keep")
    assert not {"sys_admin", "net_admin", "net_raw", "sys_ptrace", "mknod", "sys_module"} & set(kept.split())
    assert values("lxc.net.0.type") == ["empty"]
    assert values("lxc.monitor.signal.pdeath") == ["SIGKILL"]


def test_lxc_never_deletes_the_image() -> None:
    """lxc.ephemeral, or a `dir:` root, would let LXC remove what all containers share."""
    keys = {key for key, _ in lines()}
    assert "lxc.ephemeral" not in keys
    (root,) = values("lxc.rootfs.path")
    assert root == "overlay:/run/i:/run/c/fs/delta"


def test_a_context_of_selinux_is_passed_on() -> None:
    context = "system_u:system_r:container_t:s0"
    assert values("lxc.selinux.context") == []
    spec = replace(SPEC, privileges=Privileges(selinux_context=context))
    assert values("lxc.selinux.context", spec) == [context]


def test_limits_are_not_left_to_lxc() -> None:
    assert not [key for key, _ in lines() if key.startswith(("lxc.cgroup.memory", "lxc.cgroup.cpu", "lxc.cgroup2"))]


def test_devices_are_lxcs_on_v2_alone() -> None:
    host = Host(devices_v2=("c 1:3", "c 1:5"))
    assert values("lxc.cgroup2.devices.deny", host=host) == ["a"]
    assert values("lxc.cgroup2.devices.allow", host=host) == ["c 1:3 rwm", "c 1:5 rwm"]


def test_a_network_becomes_a_veth_pair_with_a_known_name() -> None:
    spec = replace(SPEC, network=NetworkSpec("br0", "10.0.0.2/24", "10.0.0.1", "02:00:00:00:00:01", 1400))
    found = dict(lines(spec))
    assert found["lxc.net.0.veth.pair"] == host_end(PLACES.cgroup)
    assert found["lxc.net.0.ipv4.address"] == "10.0.0.2/24"
    assert (found["lxc.net.0.hwaddr"], found["lxc.net.0.mtu"]) == ("02:00:00:00:00:01", "1400")
    assert len(found["lxc.net.0.veth.pair"]) <= 15


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    )
)
def test_no_value_of_the_environment_becomes_another_key(env: dict[str, str]) -> None:
    plain = {key for key, _ in lines()}
    spec = replace(SPEC, env=tuple(env.items()))
    assert {key for key, _ in lines(spec)} == plain
    told = [value for option, value in zip(arguments(spec), arguments(spec)[1:], strict=False) if option == "-s"]
    in_file = [value.strip('"') for value in values("lxc.environment", spec)]
    assert len(told) + len(in_file) == len({"PATH", *env})


def test_the_seccomp_profile_is_a_deny_list_of_known_form() -> None:
    head, *rules = seccomp.profile().splitlines()
    assert head == "2"
    assert rules[:3] == ["denylist", "reject_force_umount", "[all]"]
    denied = {rule.split()[0] for rule in rules[3:]}
    assert {"mount", "unshare", "setns", "ptrace", "bpf", "keyctl", "init_module", "clone", "clone3"} <= denied
    assert not denied & {"execve", "capset", "prctl", "setresuid", "setgroups", "close_range", "seccomp"}
