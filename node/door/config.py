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
    browser_hold_s: float = setting(
        5.0,
        "The same for browsers (GET, Accept: text/html), which then get a page that says so and asks again.",
        trade_off="Longer shows nothing for longer; shorter shows the page also where the site is there in a moment.",
        low=0,
        high=60,
    )
    sites_max: int = setting(
        10_000, "How many sites this node keeps, sleeping ones included; about 10 KB each.", low=1, high=1_000_000
    )
    sites_per_user_max: int = setting(
        100,
        "How many sites one user has, sleeping ones included. One node keeps them all and counts them.",
        low=1,
        high=1_000_000,
    )
    sites_up_per_user_max: int = setting(
        100, "How many of them are up at once, frozen ones included: those hold memory.", low=1, high=1_000_000
    )

    connections_max: int = setting(
        2_000,
        "How many clients' connections are open at once; more wait in the kernel's queue, and the longest idle goes.",
        trade_off="Each costs a file descriptor, one more while it is forwarded, and about 50 KB.",
        low=8,
        high=100_000,
    )
    client_connections_max: int = setting(
        256, "How many of them come from one address (IPv6: one /64) that is no front end's.", low=1, high=100_000
    )
    waiting_max: int = setting(
        1_000, "How many requests are held at once while their sites start; others are told to come again.", low=0
    )
    site_waiting_max: int = setting(250, "How many of them for one site.", low=0)
    site_requests_max: int = setting(
        500,
        "How many requests of one site are carried at once.",
        trade_off="What one busy or stuck site may take of door.connections_max.",
        low=1,
    )
    head_bytes_max: int = setting(16 << 10, "Largest head of a request.", low=1 << 10, high=256 << 10)
    fields_max: int = setting(100, "How many fields a head may have.", low=10, high=1_000)
    body_bytes_max: int = setting(4 << 30, "Largest body of a request that is carried on.", low=0, high=1 << 50)
    head_timeout_s: float = setting(
        10.0, "How long a client may take for the head of a request, from its first byte.", low=0.1, high=600
    )
    stall_timeout_s: float = setting(
        30.0, "How long a body may make no progress, in either direction.", low=0.1, high=3_600
    )
    keep_alive_s: float = setting(60.0, "How long a client's connection may idle.", low=0.1, high=3_600)
    connect_timeout_s: float = setting(
        5.0, "How long an awake site may take no connections before its keeper is told.", low=0.1, high=60
    )
    answer_timeout_s: float = setting(
        60.0, "How long an application may take to begin its answer, or to go on with it.", low=0.1, high=3_600
    )
    tunnel_idle_s: float = setting(3_600.0, "How long a WebSocket may be silent.", low=0.1, high=7 * 86_400)
    stop_grace_s: float = setting(10.0, "How long open requests may go on when the agent stops.", low=0, high=600)
    access_log: bool = setting(False, "Whether every request is a line of the agent's log.")

    inside_port: int = setting(
        8651,
        "Port on the gateways of containers' bridges where a container may say that its site is busy.",
        low=1,
        high=65_535,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in self.front_ends:
            try:
                ipaddress.ip_network(text)
            except ValueError:
                raise InvalidConfig("door.front_ends", text, "expected a network such as 10.0.0.0/24") from None
