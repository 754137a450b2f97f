"""What `fofoca node check` says of hosts that exist in a directory alone: sound ones, poor ones, odd ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from node.host import readiness, sysctls
from node.host.host_view import HostView
from node.host.readiness import Finding, Severity

PROGRAMS = frozenset({"lxc-execute", "ip", "unshare", "nft", "mkfs.ext4", "cc"})
FILES = {
    "proc/self/ns/user": "",
    "proc/sys/kernel/seccomp/actions_avail": "kill errno",
    "proc/filesystems": "nodev\tproc\nnodev\toverlay\n",
    "proc/self/mounts": "/dev/sda1 / ext4 rw,relatime 0 0\nlxcfs /var/lib/lxcfs fuse.lxcfs rw 0 0",
    "proc/pressure/memory": "",
    "proc/swaps": "Filename Type Size Used Priority\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids",
    "sys/module/apparmor/parameters/enabled": "N",
    "sys/fs/selinux/enforce": "1",
    "sys/kernel/kexec_crash_loaded": "1",
    "dev/loop-control": "",
    "etc/subuid": "root:100000:65536\nana:200000000:65536\n",
    "var/lib/x": "",
}


@pytest.fixture
def host(tmp_path: Path) -> HostView:
    """A host with everything."""
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for setting in sysctls.SETTINGS:
        path = tmp_path / "proc/sys" / setting.name.replace(".", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(setting.wanted + "\n")
    return HostView(tmp_path, PROGRAMS, is_root=True, release="6.1.0-13-amd64")


def found(host: HostView) -> dict[str, Finding]:
    return {each.name: each for each in (*readiness.look(host), *sysctls.look(host))}


def wrong(host: HostView) -> set[str]:
    return {name for name, each in found(host).items() if each.severity is not Severity.OK}


def test_on_a_sound_host_everything_is_fine(host: HostView) -> None:
    assert wrong(host) - {"disk space", "files on disk"} == set()
    assert (
        readiness.worst(each for each in found(host).values() if not each.name.endswith(("disk space", "on disk")))
        is Severity.OK
    )


def test_each_finding_says_what_it_means_and_what_to_do(tmp_path: Path) -> None:
    bare = found(HostView(tmp_path, frozenset(), is_root=False, release="4.19.0"))
    for each in bare.values():
        assert (each.severity is Severity.OK) == (each.fix == "" and each.meaning == ""), each
    assert readiness.worst(bare.values()) is Severity.ERROR
    for name in (
        "root",
        "Linux",
        "lxc-execute",
        "user namespaces",
        "seccomp filters",
        "cgroup layout",
        "cgroup memory",
    ):
        assert bare[name].severity is Severity.ERROR, name


@pytest.mark.parametrize("lacking", sorted(PROGRAMS))
def test_a_missing_program_is_named(host: HostView, lacking: str) -> None:
    assert any(
        lacking in name or (lacking == "cc" and "compiler" in name)
        for name in wrong(replace(host, programs=PROGRAMS - {lacking}))
    )


def test_the_disk_of_the_data_directory_is_looked_at_and_no_other(
    host: HostView, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = host.root / "proc/self/mounts"
    mounts.write_text(f"{mounts.read_text()}\n/dev/sdb1 /var ext4 rw,discard 0 0\n/dev/sdc1 /var/lib/x ext4 rw 0 0")
    assert found(host)["discards"].severity is Severity.NOTE
    mounts.write_text(f"{mounts.read_text()}\n/dev/sdd1 /var/lib/fofoca ext4 rw 0 0")
    assert found(host)["discards"].severity is Severity.OK
    monkeypatch.setattr(HostView, "free_files", lambda *_: 1_000)
    assert found(host)["files on disk"].severity is Severity.WARNING
    monkeypatch.setattr(HostView, "free_files", lambda *_: None)
    assert found(host)["files on disk"].severity is Severity.OK


def test_sub_ids_of_root_are_not_asked_for_but_a_users_in_containers_range_are_told(host: HostView) -> None:
    (host.root / "etc/subuid").unlink()
    assert "sub-ids of local users" not in wrong(host)
    (host.root / "etc/subgid").write_text("ana:165536:65536\n# a comment\nbroken\n")
    told = found(host)["sub-ids of local users"]
    assert told.severity is Severity.WARNING
    assert "ana" in told.meaning
    assert "first_user_id" in told.fix


@pytest.mark.parametrize(
    ("layout", "paths", "lacking"),
    [
        ("v1", ["memory", "cpu", "pids", "cpuset", "blkio", "hugetlb"], set()),
        ("v1 beside v2", ["unified", "memory", "cpu", "pids", "cpuset", "blkio"], {"cgroup hugetlb"}),
        ("v1", ["memory", "cpu"], {"cgroup pids", "cgroup cpuset", "cgroup io", "cgroup hugetlb"}),
    ],
)
def test_control_groups_of_both_versions(host: HostView, layout: str, paths: list[str], lacking: set[str]) -> None:
    (host.root / "sys/fs/cgroup/cgroup.controllers").unlink()
    for name in paths:
        (host.root / "sys/fs/cgroup" / name).mkdir()
        (host.root / "sys/fs/cgroup" / name / "tasks").write_text("")
    assert found(host)["cgroup layout"].found == layout
    assert {name for name in wrong(host) if name.startswith("cgroup")} == lacking


def test_a_controller_may_be_on_either_tree(host: HostView) -> None:
    (host.root / "sys/fs/cgroup/cgroup.controllers").unlink()
    (host.root / "sys/fs/cgroup/unified").mkdir()
    (host.root / "sys/fs/cgroup/unified/cgroup.controllers").write_text("hugetlb\n")
    assert "cgroup hugetlb" not in wrong(host), "the agent uses it there"
    assert "-o blkio none /sys/fs/cgroup/blkio" in found(host)["cgroup io"].fix


def test_swap_that_nobody_counts_is_told(host: HostView) -> None:
    (host.root / "proc/swaps").write_text("Filename Type Size Used Priority\n/swap file 1 0 -2\n")
    assert "swap" not in wrong(host)
    (host.root / "sys/fs/cgroup/cgroup.controllers").unlink()
    assert "swap" in wrong(host)


@pytest.mark.parametrize("setting", sysctls.SETTINGS, ids=lambda setting: setting.name)
def test_a_setting_that_is_wrong_is_fixed_by_the_command_told(host: HostView, setting: sysctls.Setting) -> None:
    path = host.root / "proc/sys" / setting.name.replace(".", "/")
    path.write_text(next(value for value in ("0", "2", "-1", "|/handler") if not setting.good(value)))
    (told,) = [each for each in sysctls.look(host) if each.name == setting.name]
    assert told.severity is setting.severity
    line = re.fullmatch(r"echo '([a-z0-9_.-]+) = (\S+)' >> /etc/sysctl.d/\S+ && sysctl -p /etc/sysctl.d/\S+", told.fix)
    assert line is not None
    assert line[1] == setting.name
    assert setting.good(line[2]), "what the fix sets is sound"


def test_a_setting_that_the_kernel_lacks_is_passed_over(tmp_path: Path) -> None:
    assert list(sysctls.look(HostView(tmp_path))) == []


def test_this_very_host_can_be_looked_at() -> None:
    findings: Iterable[Finding] = [*readiness.look(HostView()), *sysctls.look(HostView())]
    assert {"Python", "Linux", "cgroup layout"} <= {each.name for each in findings}


def test_what_it_misses_for_containers_is_what_the_set_up_installs(tmp_path: Path) -> None:
    """tools/prepare-host gets every package that containers can't do without, or lose a feature without."""
    set_up = (Path(__file__).parents[2] / "tools" / "prepare-host").read_text()
    bare = [each for each in readiness.look(HostView(tmp_path, frozenset())) if each.name != "kernel crash dumps"]
    fixes = [each.fix.removeprefix("apt-get install ") for each in bare if each.fix.startswith("apt-get install ")]
    asked = {package for fix in fixes for package in fix.split()}
    needless = {"lxcfs", "util-linux"}  # a daemon, which operators choose; part of every Debian
    assert {"lxc", "iproute2", "nftables", "e2fsprogs"} <= asked
    missing = [package for package in asked - needless if not re.search(rf"\b{re.escape(package)}\b", set_up)]
    assert not missing
