"""What a spec refuses, and how one is reduced to what a runtime can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node.host.cgroups import DiskRate, MoreLimits
from node.host.volumes import VolumeRoot
from node.runtime import ContainerSpec, NetworkSpec, SpecError, reduced, unmet
from node.runtime.directory import ContainerDirectory
from node.runtime.fake import ALL_FEATURES
from node.runtime.limits import Device, FurtherLimits
from node.runtime.parts import FileMounts, Privileges, VolumeMount
from scheduler.spec.files import Scratch, Tmpfs
from scheduler.spec.limits import Rlimit

FULL = ContainerSpec(
    name="12001.3.1",
    argv=("sh", "-c", "true"),
    env=(("A", "b"),),
    rootfs=Path("/images/x"),
    hostname="here",
    user_base=300_000,
    memory_bytes=1 << 20,
    cpu_milli=100,
    cpu_limit_milli=200,
    pids_max=5,
    tmpfs_bytes=1 << 20,
    network=NetworkSpec("br0", "10.0.0.2/24", "10.0.0.1", "02:00:00:00:00:01", 1400),
    files=FileMounts(
        volumes=(VolumeMount(VolumeRoot("homes", Path("/srv"), owners=frozenset({"ana"})), "ana", "a", "/home", True),),
        tmpfs=(Tmpfs(target="/cache", size_bytes=4096),),
        scratch=Scratch(size_bytes=8 << 20),
        secrets=Path("/run/secrets/x"),
        read_only_root=True,
        root_bytes=8 << 20,
    ),
    privileges=Privileges(("kill",), Path("/etc/strict.seccomp"), ("/proc/stat",), "a:b:c:s0"),
    user=(7, 8),
    limits=FurtherLimits(
        MoreLimits(cores=(0, 2), disks=(DiskRate("8:0", 1), DiskRate("8:16", write_ops=2))),
        (Device(Path("/dev/fuse"), "c 10:229 rw"),),
        (Rlimit(name="nofile", soft=64, hard=-1),),
    ),
    labels=(("owner", "ana"),),
)
GRANTED = {
    "user",
    "limits",
    "devices",
    "rlimits",
    "tmpfs",
    "volumes",
    "scratch",
    "secrets",
    "read_only_root",
    "root_bytes",
    "capabilities",
    "seccomp",
    "masked_paths",
    "selinux",
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../etc"),
        ("name", ""),
        ("name", "A"),
        ("name", "a" * 64),
        ("name", ".a"),
        ("name", "a\n"),
        ("argv", ()),
        ("argv", ("",)),
        ("argv", ("a\0b",)),
        ("argv", ("x" * 200_000,)),
        ("env", (("A=B", "c"),)),
        ("env", (("A", "c\0"),)),
        ("hostname", "a.b"),
        ("hostname", "a\nlxc.cap.keep = sys_admin"),
        ("workdir", "relative"),
        ("workdir", "/a\nlxc.hook.start-host = /bin/sh"),
        ("rootfs", Path("relative")),
        ("memory_bytes", -1),
        ("cpu_limit_milli", 1),
        ("time_limit_s", 0),
        ("time_limit_s", float("nan")),
        ("stop_grace_s", -1),
        ("log_bytes_max", 10),
        ("network", NetworkSpec("br0\n", "10.0.0.2/24")),
        ("network", NetworkSpec("br0", "10.0.0.2")),
        ("network", NetworkSpec("br0", "10.0.0.2/24\nlxc.x = y")),
        ("network", NetworkSpec("br0", "10.0.0.2/24", gateway="10.0.0.1\n")),
        ("network", NetworkSpec("br0", "10.0.0.2/24", mac="02:0g:00:00:00:01")),
        ("network", NetworkSpec("br0", "10.0.0.2/24", mtu=1)),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    fields: dict[str, Any] = {"name": "a", "argv": ("x",)} | {field: value}
    with pytest.raises(SpecError, match="mac|mtu|bridge|address" if field == "network" else field):
        ContainerSpec(**fields)


def test_reducing_takes_away_what_is_unmet_and_nothing_else() -> None:
    bare = reduced(FULL, frozenset())
    done_later = {"freeze", "enter"}  # asked for while it runs, by no spec
    assert set(unmet(FULL, frozenset())) == ALL_FEATURES - done_later
    assert set(unmet(bare, frozenset())) == GRANTED, "what a job asked for by name is refused, never left out"
    assert (bare.name, bare.argv, bare.env, bare.labels) == (FULL.name, FULL.argv, FULL.env, FULL.labels)
    assert reduced(FULL, ALL_FEATURES) == FULL


def test_a_spec_on_disk_comes_back_equal(tmp_path: Path) -> None:
    directory = ContainerDirectory(tmp_path / FULL.name)
    directory.create(FULL)
    assert directory.spec() == FULL


@pytest.mark.parametrize("content", [b"", b"{", b'{"name": "../x", "argv": ["a"]}', b"\xff"])
def test_half_a_spec_is_no_spec(tmp_path: Path, content: bytes) -> None:
    directory = ContainerDirectory(tmp_path / "a")
    directory.create(ContainerSpec(name="a", argv=("x",)))
    (directory.path / "spec").write_bytes(content)
    assert directory.spec() is None


@pytest.mark.parametrize("content", ["", "exit_code 0", "exit_code x\nended_unix_ms 5\n", "\0\0\0"])
def test_a_damaged_exit_record_is_read_as_far_as_it_goes(tmp_path: Path, content: str) -> None:
    directory = ContainerDirectory(tmp_path / "a")
    directory.create(ContainerSpec(name="a", argv=("x",)))
    (directory.path / "exit").write_text(content)
    found = directory.exit()
    assert found is None or found.exit_code is None
