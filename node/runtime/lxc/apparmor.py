"""An AppArmor profile for containers, generated and loaded where the kernel has AppArmor: a second line behind user
namespace, seccomp and capabilities, which together forbid all this already.

Owns the text (apparmor.d(5)) and its loading by apparmor_parser. No includes: hosts differ in what they install.
LXC changes to the profile at the last step before a container's init, so nothing that LXC itself mounts is hindered.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

NAME = "fofoca-container"
LXCS_OWN = "lxc-container-default-cgns"
ENABLED = Path("/sys/module/apparmor/parameters/enabled")
LOADED = Path("/sys/kernel/security/apparmor/profiles")
LOAD_TIMEOUT_S = 20.0

NEVER = (
    "/proc/kcore",
    "/proc/kmem",
    "/proc/mem",
    "/proc/sysrq-trigger",
    "/sys/firmware/**",
    "/sys/fs/bpf/**",
    "/sys/kernel/debug/**",
    "/sys/kernel/security/**",
    "/sys/kernel/tracing/**",
)
"""Neither read nor written."""

ONLY_READ = ("/proc/acpi/**", "/proc/bus/**", "/proc/fs/**", "/proc/irq/**", "/proc/sys/**", "/sys/**")


def profile(name: str = NAME) -> str:
    """Return the text of the profile."""
    rules = [
        "file,",
        "network,",
        "capability,",
        "unix,",
        "dbus,",
        f"signal (send, receive) peer={name},",
        "signal (receive) peer=unconfined,",
        f"ptrace (trace, read, tracedby, readby) peer={name},",
        "ptrace (tracedby, readby) peer=unconfined,",
        "deny mount,",
        "deny umount,",
        "deny remount,",
        "deny pivot_root,",
        "deny capability mac_admin,",
        "deny capability mac_override,",
        *(f"deny {path} rwklx," for path in NEVER),
        *(f"deny {path} wkl," for path in ONLY_READ),
    ]
    body = "".join(f"  {rule}\n" for rule in rules)
    return f"profile {name} flags=(attach_disconnected,mediate_deleted) {{\n{body}}}\n"


def ensure(file: Path) -> str | None:
    """Load the profile, written to `file`, and return its name. Where that can't be done: LXC's own if it is loaded,
    else `unconfined`. None: no AppArmor in the kernel. Blocks for up to a second."""
    try:
        if ENABLED.read_text().strip() != "Y":
            return None
        file.write_text(profile())
        if _load(file):
            return NAME
        loaded = LOADED.read_text() if LOADED.exists() else ""
    except OSError:
        return None
    return LXCS_OWN if f"{LXCS_OWN} " in loaded else "unconfined"


def _load(file: Path) -> bool:
    parser = shutil.which("apparmor_parser") or shutil.which("apparmor_parser", path="/usr/sbin:/sbin")
    if parser is None:
        return False
    command = [parser, "--replace", "--skip-cache", str(file)]
    try:
        return subprocess.run(command, capture_output=True, timeout=LOAD_TIMEOUT_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
