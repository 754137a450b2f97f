"""The section [limits] of the configuration: what this node's tasks may ask for beyond memory, CPU and processes."""

from __future__ import annotations

from dataclasses import dataclass

from node.errors import InvalidConfig, InvalidValue
from node.limit_words import parse_amount, parse_bounds, parse_rates
from node.settings import Section, setting
from scheduler.spec.limits import RLIMITS

NAME = r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?"


@dataclass(frozen=True, kw_only=True)
class Limits(
    Section, name="limits", about="Limits of tasks: what holds where a job says nothing, and what it may ask."
):
    """Defaults, maxima, and the operator's tables of disks and devices."""

    swap_bytes_max: int = setting(
        0,
        "How much swap a task may ask for beyond its memory.",
        trade_off="Swap is not reserved: tasks that use it slow the whole host down.",
        low=0,
        high=1 << 50,
    )
    exclusive_cores_max: int | None = setting(
        None,
        "How many cores tasks may own, so that nobody else runs on them.",
        trade_off="All others share the rest.",
        unset="all but one; none where resources.cpu_milli is set, for then other nodes may share the host",
        low=0,
        high=4_096,
    )
    disks: dict[str, str] = setting(  # noqa: RUF009 (it is a field, with a factory of its own)
        dict,
        'Disks whose rates jobs may ask to have limited, by name, such as { fast = "/dev/nvme0n1" }; a path on the '
        "disk will do. The disk of node.data_dir needs no name.",
        unset="that disk alone",
        pattern=NAME,
        expected="names of small letters, digits, _ and -",
    )
    disk_rates: str = setting(
        "",
        "Rates of each task on the disk of node.data_dir where its job asks for none, such as "
        "`read=50M,write=20M,read-ops=2000`.",
        unset="not limited",
    )
    devices: dict[str, str] = setting(  # noqa: RUF009
        dict,
        'Devices that jobs may use, by name, each PATH[:ACCESS], such as { fuse = "/dev/fuse", kvm = "/dev/kvm:rw" }. '
        "ACCESS is of r, w and m (make a node), by default rw.",
        trade_off="A device is a door to the host's kernel; name none that you would not give to a stranger.",
        unset="none but null, zero, full, random, urandom, tty and the container's own terminals",
        pattern=NAME,
        expected="names of small letters, digits, _ and -",
    )
    rlimits: dict[str, str] = setting(  # noqa: RUF009
        dict,
        'Limits of each process where the job names none: SOFT[:HARD], such as { nofile = "1024:65536", core = "0" }.',
        unset="no core dumps, 1024 open files (raisable to 65536), all else as the agent's own",
        pattern="|".join(RLIMITS),
        expected="names of setrlimit(2) in small letters",
    )
    rlimits_max: dict[str, str] = setting(  # noqa: RUF009
        dict,
        'The most that a job may ask for of each, such as { nofile = "100000", memlock = "1G" }.',
        unset="the agent's own hard limits",
        pattern="|".join(RLIMITS),
        expected="names of setrlimit(2) in small letters",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            if self.disk_rates:
                parse_rates(self.disk_rates, "limits.disk_rates")
            for name, text in self.rlimits.items():
                parse_bounds(name, text, f"limits.rlimits.{name}")
            for name, text in self.rlimits_max.items():
                parse_amount(name, text, f"limits.rlimits_max.{name}")
        except InvalidValue as error:
            raise InvalidConfig(error.field, error.value, error.expected) from None
