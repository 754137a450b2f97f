"""The AppArmor profile: what it denies, that the parser takes it, and what happens without one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from node.runtime.lxc import apparmor

PARSER = shutil.which("apparmor_parser", path="/usr/sbin:/sbin:/usr/bin")


def test_it_denies_what_leads_to_the_host() -> None:
    text = apparmor.profile()
    for rule in (
        "mount",
        "umount",
        "pivot_root",
        "capability mac_admin",
        "/proc/sysrq-trigger rwklx",
        "/proc/sys/** wkl",
    ):
        assert f"  deny {rule},\n" in text
    assert "ptrace (trace, read, tracedby, readby) peer=fofoca-container," in text
    assert "peer=unconfined" not in "".join(line for line in text.splitlines() if "trace, read" in line)


def test_every_rule_is_a_line_of_its_own_in_one_profile() -> None:
    head, *rules, end, last = apparmor.profile("x").split("\n")
    assert (head, end, last) == ("profile x flags=(attach_disconnected,mediate_deleted) {", "}", "")
    assert all(re.fullmatch(r"  [a-z/][^,]*(, [^,]*)*,", rule) for rule in rules), rules


@pytest.mark.skipif(PARSER is None, reason="no apparmor_parser")
def test_the_parser_takes_it(tmp_path: Path) -> None:
    assert PARSER is not None
    (tmp_path / "profile").write_text(apparmor.profile())
    command = [PARSER, "--skip-kernel-load", "--skip-cache", str(tmp_path / "profile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("enabled", "loaded", "loads", "expected"),
    [
        (None, None, False, None),
        ("N\n", None, False, None),
        ("Y\n", None, True, "fofoca-container"),
        ("Y\n", "lxc-container-default-cgns (enforce)\n", False, "lxc-container-default-cgns"),
        ("Y\n", "other (enforce)\n", False, "unconfined"),
        ("Y\n", None, False, "unconfined"),
    ],
)
def test_the_best_profile_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: str | None, loaded: str | None, loads: bool,
    expected: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(apparmor, "ENABLED", tmp_path / "enabled")
    monkeypatch.setattr(apparmor, "LOADED", tmp_path / "loaded")
    monkeypatch.setattr(apparmor, "_load", lambda file: loads and file.read_text() == apparmor.profile())
    for name, text in (("enabled", enabled), ("loaded", loaded)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert apparmor.ensure(tmp_path / "profile") == expected
