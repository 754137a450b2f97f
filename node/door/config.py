"""The section [door] of the configuration: where the request door listens, whom it believes, and how long it waits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from node.errors import InvalidConfig
from node.settings import Section, setting


@dataclass(frozen=True, kw_only=True)
class Door(Section, name="door", about="The request door: HTTP requests that start, wake and reach containers."):
    """Where it listens, what it serves, whom it believes, and its bounds."""

    listen: str | None = setting(
        None,
        "Address and port (`host:port`) of the door.",
        trade_off="Whoever reaches it reaches the sites; behind a front end it should listen where that one alone is.",
        unset="no door on this node; it may still keep sites and run their containers",
    )
    catalogue: str | None = setting(
        None,
        "File of the applications that sites may run; docs/door.md has its form.",
        unset="the built-in application demo alone",
        pattern=r"/.*",
        expected="an absolute path",
    )
    front_ends: tuple[str, ...] = setting(
        (),
        'Networks of the front ends, such as ["10.0.0.0/24"]: their headers (X-Backend and so on) make and change '
        "sites of any user. Whoever shows a token of role door is a front end, too.",
        trade_off="Everybody in these networks can start containers as anybody.",
        unset="none but those with a token of role door",
    )
    mode: str = setting(
        "forward",
        "What the door does with a request once its site is awake: carry it on (forward), or tell a front end that "
        "proxies by itself where to go (answer).",
        choices=("forward", "answer"),
    )
    hold_s: float = setting(
        30.0,
        "How long a request is held while its site starts; then the answer is 503 with Retry-After.",
        trade_off="Longer loses fewer requests and keeps more connections open.",
        low=0,
        high=60,
    )
    sites_max: int = setting(
        10_000, "How many sites this node keeps, sleeping ones included; about 2 KB each.", low=1, high=1_000_000
    )
    sites_per_user_max: int = setting(
        100, "How many sites of one user this node keeps, sleeping ones included.", low=1, high=1_000_000
    )
    sites_up_per_user_max: int = setting(
        100, "How many of them are up at once, frozen ones included: those hold memory.", low=1, high=1_000_000
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in self.front_ends:
            try:
                ipaddress.ip_network(text)
            except ValueError:
                raise InvalidConfig("door.front_ends", text, "expected a network such as 10.0.0.0/24") from None
