"""Secrets are sealed from the home to the container, and what a node allows is what its jobs get."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster import KeyRing
from node.allowances import Allowances, NotAllowed, read_allowances
from node.api.schemas import read_submission
from node.config import Files as FilesSettings
from node.config import Security as SecuritySettings
from node.errors import InvalidConfig, InvalidValue
from node.grants import Grants
from node.host.secret_files import SecretFiles
from node.job_secrets import JobSecrets, SecretLost
from node.runtime.fake import ALL_FEATURES
from node.runtime.parts import CAPABILITIES
from node.runtime.protocol import ContainerSpec, UnsupportedError
from scheduler.abilities import requirements
from scheduler.fit import unmet
from scheduler.model import Allocation, AllocationId, JobSpec, Resources
from scheduler.spec.files import SECRET_BYTES_MAX, Files, Scratch, Secret, Tmpfs, Volume
from scheduler.spec.security import Security

KEY, OTHER = b"k" * 32, b"o" * 32
CLEAR = b"hunter2"


def job(**parts: Any) -> JobSpec:
    return JobSpec(name="job", argv=("true",), request=Resources(100, 64 << 20), **parts)


def with_secret(content: bytes = CLEAR, **fields: Any) -> JobSpec:
    return job(files=Files(secrets=(Secret(name="key", content=content, **fields),)))


def allocation(spec: JobSpec, owner: str = "ana") -> Allocation:
    return Allocation(AllocationId(1001, 0, 1), "n1", owner, spec)


def test_a_sealed_secret_opens_for_its_owner_and_nobody_else() -> None:
    keys = JobSecrets(KeyRing(KEY))
    (sealed,) = keys.seal("ana", with_secret()).files.secrets
    assert sealed.content == b""
    assert keys.open("ana", sealed) == CLEAR
    with pytest.raises(SecretLost):
        keys.open("bob", sealed)
    with pytest.raises(SecretLost):
        keys.open("ana", msgspec.structs.replace(sealed, name="other"))
    with pytest.raises(SecretLost):
        keys.open("ana", msgspec.structs.replace(sealed, sealed=sealed.sealed[:-1] + b"\0"))


def test_what_the_ledger_and_the_wire_carry_does_not_hold_the_content() -> None:
    keys = JobSecrets(KeyRing(KEY))
    spec = keys.seal("ana", with_secret())
    for encoded in (msgspec.msgpack.encode(spec), msgspec.json.encode(spec), repr(spec).encode()):
        assert CLEAR not in encoded
        assert b"aHVudGVyMg" not in encoded
    assert keys.seal("ana", with_secret()).files.secrets[0].sealed != spec.files.secrets[0].sealed


def test_secrets_outlive_a_new_key_but_not_the_removal_of_theirs() -> None:
    ring = KeyRing(KEY)
    (sealed,) = JobSecrets(ring).seal("ana", with_secret()).files.secrets
    new = ring.add(OTHER)
    ring.use(new)
    assert JobSecrets(ring).open("ana", sealed) == CLEAR
    with pytest.raises(SecretLost, match="key it was sealed under was removed"):
        JobSecrets(KeyRing(OTHER)).open("ana", sealed)


@pytest.mark.parametrize(
    ("ring", "spec"),
    [
        (None, with_secret()),
        (KeyRing(KEY), with_secret(b"")),
        (KeyRing(KEY), with_secret(CLEAR * SECRET_BYTES_MAX)),
        (KeyRing(KEY), with_secret(b"", sealed=b"of somebody else's")),
    ],
)
def test_what_cannot_be_sealed_is_refused_without_quoting_it(ring: KeyRing | None, spec: JobSpec) -> None:
    with pytest.raises(InvalidValue) as refused:
        JobSecrets(ring).seal("ana", spec)
    assert "hunter2" not in str(refused.value)
    assert "files.secrets key" in str(refused.value)


def test_a_job_without_secrets_needs_no_key() -> None:
    assert JobSecrets(None).seal("ana", job()) == job()


def settled(tmp_path: Path, **volumes: str) -> Allowances:
    tmp_path.chmod(0o700)
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "strict.seccomp").write_text("2\n")
    (profiles / "notes.txt").write_text("no profile")
    security = SecuritySettings(seccomp_directory=str(profiles), capabilities=("net_raw",))
    return read_allowances(FilesSettings(volumes=volumes), security)


def test_a_node_offers_what_it_has_by_labels_and_placement_reads_them(tmp_path: Path) -> None:
    labels = settled(tmp_path, homes=f"{tmp_path}:rw", data=f"{tmp_path}", gone="/not/there").labels(ALL_FEATURES)
    assert labels["volumes"] == "data,homes"
    assert labels["volumes-writable"] == "homes"
    assert (labels["seccomp"], labels["capabilities"]) == ("strict", "net_raw")
    wish = job(
        files=Files(volumes=(Volume(name="homes", target="/h"),), tmpfs=(Tmpfs(target="/t", size_bytes=4096),)),
        security=Security(seccomp="strict", capabilities_add=("net_raw",), masked_paths=("/proc/stat",)),
    )
    assert unmet(requirements(wish), labels) is None
    assert unmet(requirements(wish), settled_nothing()) is not None
    assert Allowances().labels(frozenset()) == {}, "plain processes can't"


def settled_nothing() -> dict[str, str]:
    return read_allowances(FilesSettings(), SecuritySettings()).labels(ALL_FEATURES)


@pytest.mark.parametrize(
    ("wish", "owner", "why"),
    [
        (job(files=Files(volumes=(Volume(name="none", target="/h"),))), "ana", "no volume none"),
        (job(files=Files(volumes=(Volume(name="data", target="/h"),))), "ana", "read-only on this node"),
        (job(files=Files(volumes=(Volume(name="private", target="/h"),))), "eve", "no volume private for eve"),
    ],
)
def test_what_an_operator_does_not_allow_is_refused_by_name(
    tmp_path: Path, wish: JobSpec, owner: str, why: str
) -> None:
    allowed = settled(tmp_path, data=f"{tmp_path}", private=f"{tmp_path}:rw,owners=ana")
    with pytest.raises(NotAllowed, match=why):
        allowed.files(allocation(wish, owner), None)


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (Security(seccomp="lax"), "no system call filter lax"),
        (Security(capabilities_add=("sys_admin",)), "no sys_admin"),
    ],
)
def test_less_confinement_than_allowed_is_refused_by_name(tmp_path: Path, wish: Security, why: str) -> None:
    with pytest.raises(NotAllowed, match=why):
        settled(tmp_path).privileges(allocation(job(security=wish)))


def test_a_profile_that_others_can_change_is_no_profile(tmp_path: Path) -> None:
    (tmp_path / "loose.seccomp").write_text("2\n")
    (tmp_path / "loose.seccomp").chmod(0o666)
    with pytest.raises(InvalidConfig, match="only root can change"):
        read_allowances(FilesSettings(), SecuritySettings(seccomp_directory=str(tmp_path)))


async def test_a_runtime_without_secrets_refuses_before_anything_is_opened(tmp_path: Path) -> None:
    keys = JobSecrets(KeyRing(KEY))
    grants = Grants(Allowances(), keys, SecretFiles(tmp_path / "secrets"))
    spec = ContainerSpec(name="1001.0.1", argv=("true",))
    with pytest.raises(UnsupportedError, match="secrets"):
        await grants.add(spec, allocation(keys.seal("ana", with_secret())), "process", frozenset())
    plain = await grants.add(spec, allocation(job()), "process", frozenset())
    assert plain.privileges.capabilities == CAPABILITIES
    assert not (tmp_path / "secrets").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
async def test_opened_secrets_lie_in_memory_until_the_container_ends(tmp_path: Path) -> None:
    keys = JobSecrets(KeyRing(KEY))
    files = SecretFiles(tmp_path / "secrets")
    grants = Grants(Allowances(), keys, files)
    spec = ContainerSpec(name="1001.0.1", argv=("true",), user_base=300_000)
    try:
        wish = keys.seal("ana", with_secret(user_id=7))
        for _ in range(2):  # the second time after a death in between
            granted = await grants.add(spec, allocation(wish), "lxc", ALL_FEATURES)
        folder = granted.files.secrets
        assert folder is not None
        status = (folder / "key").stat()
        assert (folder / "key").read_bytes() == CLEAR
        assert (status.st_mode & 0o777, status.st_uid) == (0o400, 300_007)
        assert os.statvfs(folder).f_blocks == 0, "ramfs has no blocks, on disk or in swap"
        assert b"hunter2" not in msgspec.json.encode(granted, enc_hook=str)
        grants.keep_only({"1001.0.1"})
        assert folder.exists()
        grants.forget("1001.0.1")
        assert not folder.exists()
    finally:
        files.close()
    assert not (tmp_path / "secrets").exists()


def test_scratch_is_offered_where_it_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requirements(job(files=Files(scratch=Scratch(size_bytes=8 << 20))))
    monkeypatch.setattr("node.allowances.scratch_obstacle", lambda: None)
    assert unmet(asked, Allowances().labels(ALL_FEATURES)) is None
    monkeypatch.setattr("node.allowances.scratch_obstacle", lambda: "no loop devices")
    assert unmet(asked, Allowances().labels(ALL_FEATURES)) is not None


@pytest.mark.parametrize(
    "secret",
    [
        '{"name": "key", "content": "hunter2!"}',
        '{"name": "key", "value": "hunter2"}',
        '{"content": "aHVudGVyMg=="}',
        '"hunter2"',
    ],
)
def test_a_refused_submission_never_quotes_a_secret(secret: str) -> None:
    body = f'{{"argv": ["true"], "files": {{"secrets": [{secret}]}}}}'
    for text in (body, f"[{body}]"):
        with pytest.raises(InvalidValue) as refused:
            read_submission(text.encode())
        assert "files.secrets" in str(refused.value)
        assert "hunter2" not in str(refused.value)
        assert "aHVudGVyMg" not in str(refused.value)
    assert "hunter2" not in repr(Secret(name="key", content=CLEAR))
