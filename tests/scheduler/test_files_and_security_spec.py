"""What a job may ask of files and confinement, and what such a wish asks of a node."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scheduler.abilities import describe, requirements
from scheduler.errors import InvalidSpec
from scheduler.fit import unmet
from scheduler.model import JobSpec, Resources
from scheduler.spec.files import Files, Scratch, Secret, Tmpfs, Volume, check
from scheduler.spec.security import CAPABILITIES, CAPABILITIES_DEFAULT, Security, capabilities
from scheduler.spec.security import check as check_security
from scheduler.validate import validate

SEALED = Secret(name="key", sealed=b"sealed")


def job(**parts: Any) -> JobSpec:
    return JobSpec(name="job", argv=("true",), request=Resources(100, 64 << 20), **parts)


@pytest.mark.parametrize(
    "target",
    [
        "", "/", "data", "/data/", "/a/../b", "/a/./b", "//a", "/a b", "/a\nb", "/a,b", "/ä", "/a:b", "/proc",
        "/proc/x", "/sys/fs", "/dev/shm", "/" + "a" * 200,
    ],
)  # fmt: skip
def test_a_target_is_a_plain_path_outside_the_kernels_own(target: str) -> None:
    for files in (
        Files(volumes=(Volume(name="homes", target=target),)),
        Files(tmpfs=(Tmpfs(target=target, size_bytes=4096),)),
        Files(scratch=Scratch(target=target, size_bytes=8 << 20)),
    ):
        with pytest.raises(InvalidSpec, match="target"):
            check(files)


@pytest.mark.parametrize("folder", ["/etc", "..", "a/../b", "a//b", "a/", ".", "a/./b", "a\0b", "a\nb", "a/" * 600])
def test_a_folder_stays_below_its_root(folder: str) -> None:
    with pytest.raises(InvalidSpec, match="folder"):
        check(Files(volumes=(Volume(name="homes", target="/home", folder=folder),)))


@pytest.mark.parametrize(("one", "other"), [("/data", "/data"), ("/data", "/data/in"), ("/data/in", "/data")])
def test_no_mount_lies_in_another(one: str, other: str) -> None:
    with pytest.raises(InvalidSpec, match="neither above nor below"):
        check(Files(volumes=(Volume(name="a", target=one),), tmpfs=(Tmpfs(target=other, size_bytes=4096),)))
    check(Files(volumes=(Volume(name="a", target="/data"), Volume(name="a", target="/database"))))


def test_nothing_is_mounted_over_secrets() -> None:
    with pytest.raises(InvalidSpec, match="/run/secrets"):
        check(Files(secrets=(SEALED,), tmpfs=(Tmpfs(target="/run", size_bytes=4096),)))
    check(Files(tmpfs=(Tmpfs(target="/run", size_bytes=4096),)))


def test_a_secret_in_clear_never_gets_into_a_machine_and_is_never_quoted() -> None:
    for secret in (Secret(name="key", content=b"hunter2"), Secret(name="key", content=b"hunter2" * 10_000)):
        with pytest.raises(InvalidSpec) as refused:
            validate(job(files=Files(secrets=(secret,))))
        assert "hunter2" not in str(refused.value)
    validate(job(files=Files(secrets=(SEALED,))))


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 64])
def test_a_secrets_name_is_a_plain_file_name(name: str) -> None:
    with pytest.raises(InvalidSpec, match="name"):
        check(Files(secrets=(Secret(name=name, sealed=b"x"),)))


def test_capabilities_are_the_usual_ones_with_and_without() -> None:
    assert set(capabilities(Security())) == CAPABILITIES_DEFAULT <= CAPABILITIES
    assert capabilities(Security(capabilities_drop=("all",), capabilities_add=("kill",))) == ("kill",)
    assert "net_raw" in capabilities(Security(capabilities_add=("net_raw",)))
    assert "chown" not in capabilities(Security(capabilities_drop=("chown",)))


@pytest.mark.parametrize(
    "wish",
    [
        Security(capabilities_add=("CAP_SYS_ADMIN",)),
        Security(capabilities_add=("all",)),
        Security(capabilities_add=("kill",), capabilities_drop=("kill",)),
        Security(seccomp="../../etc/passwd"),
        Security(masked_paths=("/etc/passwd",)),
        Security(masked_paths=("/proc/../etc",)),
        Security(masked_paths=("/proc/a b",)),
        Security(masked_paths=("/proc/1/status",)),
        Security(masked_paths=("/proc/self/status",)),
    ],
)
def test_a_wish_for_less_confinement_is_checked(wish: Security) -> None:
    with pytest.raises(InvalidSpec, match="security"):
        check_security(wish)


@pytest.mark.parametrize(
    ("parts", "label", "said"),
    [
        ({"files": Files(volumes=(Volume(name="homes", target="/h"),))}, {"volumes-writable": "data,homes"}, "homes"),
        ({"files": Files(volumes=(Volume(name="homes", target="/h", read_only=True),))}, {"volumes": "homes"}, "homes"),
        ({"files": Files(scratch=Scratch(size_bytes=8 << 20))}, {"files": "scratch,tmpfs"}, "scratch"),
        ({"files": Files(root_bytes=8 << 20)}, {"files": "root-size"}, "root-size"),
        ({"files": Files(secrets=(SEALED,))}, {"files": "secrets"}, "secrets"),
        ({"files": Files(read_only_root=True)}, {"files": "read-only-root"}, "read-only-root"),
        ({"security": Security(seccomp="strict")}, {"seccomp": "strict"}, "system call filter strict"),
        ({"security": Security(capabilities_add=("net_raw",))}, {"capabilities": "net_raw"}, "net_raw"),
        ({"security": Security(masked_paths=("/proc/stat",))}, {"security": "masks"}, "masks"),
    ],
)
def test_a_node_that_lacks_what_is_asked_is_avoided_and_says_what(
    parts: dict[str, Any], label: dict[str, str], said: str
) -> None:
    asked = requirements(job(**parts))
    assert unmet(asked, label) is None
    lacking = unmet(asked, {"volumes": "other", "files": "", "seccomp": "other"})
    assert lacking is not None
    assert said in describe(lacking)


def test_a_job_of_no_wishes_asks_nothing() -> None:
    assert requirements(job()) == ()
    assert requirements(job(security=Security(capabilities_add=("kill",)))) == ()


def test_contents_are_base64_in_json_and_bytes_on_the_wire() -> None:
    files = msgspec.json.decode(b'{"secrets": [{"name": "key", "content": "aHVudGVyMg=="}]}', type=Files)
    assert files.secrets[0].content == b"hunter2"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(files), type=Files) == files
