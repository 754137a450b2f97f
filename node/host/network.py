"""The links of one node's network: bridges, hardware addresses, forwarding.

Who has which address is network_records.py's business, who may reach whom network_rules.py's, the way to other nodes'
containers network_routes.py's.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import suppress
from pathlib import Path

INTERFACES = Path("/sys/class/net")
SETTINGS = Path("/proc/sys/net")
IP_TIMEOUT_S = 10
MTU_DEFAULT = 1500
NEIGHBOUR_RETRY_MS = 50
ADDRESS_WAS_SET = "3"
"""NET_ADDR_SET of the kernel's include/uapi/linux/netdevice.h."""
"""Between questions for a hardware address on a bridge, where the kernel would leave a second."""


class NetworkError(Exception):
    """The host's network cannot do what is asked: names the bridge or the pool, and the reason."""


def mac_address(name: str) -> str:
    """A locally administered hardware address: the same for the same name, so that caches stay true."""
    digest = hashlib.sha256(name.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def ensure_bridge(bridge: str, *addresses: str, mtu: int | None = None) -> bool:
    """Makes the bridge where there is none, and gives it the addresses it lacks. True if it was made. Blocks for some
    milliseconds. Raises NetworkError where that isn't permitted, or the name belongs to something else."""
    exists = (INTERFACES / bridge / "bridge").exists()
    if not exists and (INTERFACES / bridge).exists():
        raise NetworkError(f"network interface {bridge} is not a bridge; name another one for containers")
    if os.geteuid() != 0:
        if exists:
            return False
        raise NetworkError(f"bridge {bridge} does not exist, and only root can make it")
    if not exists:
        _ip("link", "add", bridge, "type", "bridge")
    try:
        for address in addresses:
            _ip("address", "replace", address, "dev", bridge, *(("nodad",) if ":" in address else ()))
        if not exists:
            _ip("link", "set", bridge, "mtu", str(mtu or MTU_DEFAULT), "up")  # set by hand it doesn't follow its ports
        _keep_hardware_address(bridge)
        _ask_soon_again(bridge)
    except NetworkError:
        if not exists:
            remove_interface(bridge)
        raise
    return not exists


def _keep_hardware_address(bridge: str) -> None:
    """Let it be what it is now. A bridge has the lowest address of its ports, until it is told one: with each container
    that comes or goes it may be another, and the others send to the former one for up to a quarter of a minute."""
    if (INTERFACES / bridge / "addr_assign_type").read_text().strip() != ADDRESS_WAS_SET:
        _ip("link", "set", bridge, "address", (INTERFACES / bridge / "address").read_text().strip())


def _ask_soon_again(bridge: str) -> None:
    """Have the kernel repeat questions for hardware addresses soon: a container that is asked for before its link is up
    is out of reach for a second otherwise."""
    for family in ("ipv4", "ipv6"):
        path = SETTINGS / family / "neigh" / bridge / "retrans_time_ms"
        with suppress(OSError):  # no IPv6, or /proc/sys can't be written: then that second is lost at times
            path.write_text(str(NEIGHBOUR_RETRY_MS))


def bridge_mtu(bridge: str) -> int:
    """Return the largest packet that the bridge takes, in bytes."""
    try:
        return int((INTERFACES / bridge / "mtu").read_text())
    except (OSError, ValueError):
        return MTU_DEFAULT


def has_ipv6() -> bool:
    """Whether the kernel has IPv6, and it is not switched off."""
    try:
        return (SETTINGS / "ipv6/conf/all/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


def forward(ipv6: bool) -> None:
    """Let the host route between bridges and its own links. Raises NetworkError."""
    names = ["ipv4/ip_forward", *(["ipv6/conf/all/forwarding"] if ipv6 else [])]
    for name in names:
        try:
            if (SETTINGS / name).read_text().strip() != "1":
                (SETTINGS / name).write_text("1")
        except OSError as error:
            raise NetworkError(
                f"net/{name} can't be set to 1, without which containers reach nobody: {error}"
            ) from None


def remove_interface(name: str) -> None:
    """Idempotent: a bridge that we made, or the host's end of a veth pair that LXC left."""
    if (INTERFACES / name).exists():
        with suppress(NetworkError):
            _ip("link", "delete", name)


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=IP_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"ip {' '.join(arguments)}: {error}") from error
    if done.returncode != 0:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
