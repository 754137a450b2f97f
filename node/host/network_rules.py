"""The nftables rules of one node's containers, as text. Pure: records in, text out; nftables.py loads it.

Two tables of one name, the agent's own, for the kernel wants one for each kind of hook; nothing else of the host's is
touched, and both go when the node's network is taken down. Rules never change while containers come and go, only the
elements of their sets: the cost of a packet does not grow with the number of containers, nor a start's.

    bridge NAME   what passes between two containers of one bridge: a container speaks with its own addresses alone,
                  keeps to its rate, and reaches those of its owner, or who is open to all
    inet NAME     what is routed: the same between bridges and nodes, published ports, what may reach the host, and
                  the classes of what leaves it

Who belongs together is told by a mark, one an owner: the mark of a packet's source is looked up, then whether the pair
(mark, destination) is known. The mark is cleared before the packet goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

from node.host.network_pools import Range
from node.host.network_records import Attachment, Interface

RATE_BURST_MIN_BYTES = 128 << 10
"""Below the largest packet that a bridge may carry in one piece (64 KiB) nothing would pass."""


PUBLISHED = "0xf0f0ca00"
"""Mark of packets from a container to a port that one on the same bridge publishes: with br_netfilter they are bridged,
and the bridge's table can't ask for their connection. No owner has this mark: user ids end below."""
ROUTED = """ip daddr @hosts4 accept
    ip6 daddr @hosts6 accept"""
"""Other nodes see containers' own addresses, and can tell them from the hosts."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the rules are made from beside the containers. `hosts`: addresses of the cluster's nodes themselves;
    `closed`: ports of them that no container may ever reach; `inside`: one at gateways that all may."""

    table: str
    bridges: tuple[str, ...]
    ranges: tuple[Range, ...]
    published: range
    routed: bool = False
    closed: tuple[int, ...] = ()
    inside: int = 0
    pools4: tuple[str, ...] = ()
    pools6: tuple[str, ...] = ()
    hosts4: tuple[str, ...] = ()
    hosts6: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Remote:
    """A container of another node whose owner has some here, too; `mark` is that owner's on this node."""

    mark: int
    address: str
    address6: str = ""


def whole(setting: Setting, attachments: Iterable[Attachment], remotes: Iterable[Remote]) -> str:
    """Return a text that replaces whatever was there by exactly this, in one go."""
    begin = [f"table {family} {setting.table} {{}}\ndelete table {family} {setting.table}" for family in FAMILIES]
    elements = [text for each in attachments for text in _elements(setting.table, each)]
    return "\n".join([*begin, _bridge(setting), _inet(setting), *elements, *_remote("add", setting.table, remotes)])


def removed_whole(table: str) -> str:
    """Return a text that removes everything, whether or not it is there."""
    return "\n".join(f"table {family} {table} {{}}\ndelete table {family} {table}" for family in FAMILIES)


def added(table: str, attachment: Attachment) -> str:
    """Return a text that lets one container take part."""
    return "\n".join(_elements(table, attachment))


def removed(table: str, attachment: Attachment) -> str:
    """Return a text that takes one container out: a text of `added` taken back."""
    lines = [line.replace("add", "delete", 1) for line in _elements(table, attachment)]
    return "\n".join(line.partition("{")[0] if line.startswith("delete limit") else line for line in reversed(lines))


def remotes_changed(table: str, gone: Iterable[Remote], come: Iterable[Remote]) -> str:
    """Return a text that follows containers of other nodes."""
    return "\n".join([*_remote("delete", table, gone), *_remote("add", table, come)])


def cluster_changed(setting: Setting) -> str:
    """Return a text that follows the cluster's pools and nodes."""
    members = {"pools4": setting.pools4, "pools6": setting.pools6, "hosts4": setting.hosts4, "hosts6": setting.hosts6}
    lines = [f"flush set inet {setting.table} {name}" for name in members]
    lines += [
        f"add element inet {setting.table} {name} {{ {', '.join(sorted(set(values)))} }}"
        for name, values in members.items()
        if values
    ]
    return "\n".join(lines)


FAMILIES = ("bridge", "inet")
OWNERS = """
  map owner4 { type ipv4_addr : mark; }
  map owner6 { type ipv6_addr : mark; }
  set peers4 { type mark . ipv4_addr; }
  set peers6 { type mark . ipv6_addr; }
  set open4 { type ipv4_addr; }
  set open6 { type ipv6_addr; }"""
BRIDGE = """
  set ports { type ifname; }
  set macs { type ifname . ether_addr; }
  set bound4 { type ifname . ipv4_addr; }
  set bound6 { type ifname . ipv6_addr; }
  map rates { type ifname : limit; }
  chain speak {
    type filter hook prerouting priority -300; policy accept;
    iifname != @ports accept
    iifname . ether saddr != @macs drop
    limit name iifname map @rates drop
    iifname . arp saddr ip != @bound4 drop
    iifname . ip saddr != @bound4 drop
    icmpv6 type { nd-router-advert, nd-redirect } drop
    ip6 saddr :: icmpv6 type nd-neighbor-solicit accept
    iifname . ip6 saddr != @bound6 drop
    ether type != { arp, ip, ip6 } drop
  }
  chain between {
    type filter hook forward priority 0; policy accept;
    iifname != @ports accept
    oifname != @ports accept
    ether type arp accept
    meta mark PUBLISHED accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    meta mark set ip saddr map @owner4 meta mark . ip daddr @peers4 meta mark set 0 accept
    meta mark set ip6 saddr map @owner6 meta mark . ip6 daddr @peers6 meta mark set 0 accept
    ip daddr @open4 meta l4proto { tcp, icmp } accept
    ip6 daddr @open6 meta l4proto { tcp, icmpv6 } accept
    ip saddr @open4 tcp flags & (syn | ack) != syn accept
    ip saddr @open4 icmp type echo-reply accept
    ip6 saddr @open6 tcp flags & (syn | ack) != syn accept
    ip6 saddr @open6 icmpv6 type echo-reply accept
    drop
  }"""
INET = """
  map published4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map published6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
  set pools4 { type ipv4_addr; flags interval; }
  set pools6 { type ipv6_addr; flags interval; }
  set hosts4 { type ipv4_addr; }
  set hosts6 { type ipv6_addr; }
  map classes4 { type ipv4_addr : classid; }
  map classes6 { type ipv6_addr : classid; }
  chain classify {
    type filter hook postrouting priority 0; policy accept;
    meta priority set ip saddr map @classes4
    meta priority set ip6 saddr map @classes6
  }
  chain arrive {
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local dnat ip to meta l4proto . th dport map @published4
    fib daddr type local dnat ip6 to meta l4proto . th dport map @published6
  }
  chain hairpin {
    type filter hook prerouting priority -90; policy accept;
    iifname @bridges ct status dnat meta mark set PUBLISHED
  }
  chain leave {
    type nat hook output priority -100; policy accept;
    fib daddr type local dnat ip to meta l4proto . th dport map @published4
    fib daddr type local dnat ip6 to meta l4proto . th dport map @published6
  }
  chain depart {
    type nat hook postrouting priority 100; policy accept;
    ip saddr @pools4 ct status dnat oifname @bridges masquerade
    ip6 saddr @pools6 ct status dnat oifname @bridges masquerade
    ROUTED
    ip saddr @own4 ip daddr != @pools4 oifname != @bridges masquerade
    ip6 saddr @own6 ip6 daddr != @pools6 oifname != @bridges masquerade
  }
  chain host {
    type filter hook input priority -10; policy accept;
    iifname "lo" accept
    iifname @bridges jump of_container
    ip saddr @pools4 jump of_container
    ip6 saddr @pools6 jump of_container
  }
  chain of_container {
    ct state established,related accept
    iifname @bridges ip daddr @gateways4 meta l4proto { tcp, udp } th dport 53 accept
    iifname @bridges ip6 daddr @gateways6 meta l4proto { tcp, udp } th dport 53 accept
    INSIDE
    icmp type echo-request limit rate 50/second accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    icmpv6 type echo-request limit rate 50/second accept
    drop
  }
  chain between {
    type filter hook forward priority -10; policy accept;
    ct state established,related accept
    ct status dnat accept
    oifname @bridges jump to_container
    iifname @bridges ip daddr @hosts4 jump to_host
    iifname @bridges ip6 daddr @hosts6 jump to_host
  }
  chain to_container {
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    iifname != @bridges ip saddr @hosts4 accept
    iifname != @bridges ip6 saddr @hosts6 accept
    meta mark set ip daddr map @owner4 meta mark . ip saddr @peers4 meta mark set 0 accept
    meta mark set ip6 daddr map @owner6 meta mark . ip6 saddr @peers6 meta mark set 0 accept
    ip saddr @pools4 ip daddr @open4 meta l4proto { tcp, icmp } accept
    ip6 saddr @pools6 ip6 daddr @open6 meta l4proto { tcp, icmpv6 } accept
    drop
  }"""


def _bridge(setting: Setting) -> str:
    bridge = BRIDGE.replace("PUBLISHED", PUBLISHED)
    return f"table bridge {setting.table} {{{OWNERS}{bridge}\n}}"


def _inet(setting: Setting) -> str:
    ranges = setting.ranges
    fixed = (
        ("bridges", "ifname", "", [f'"{name}"' for name in setting.bridges]),
        ("own4", "ipv4_addr", "flags interval;", [str(each.network) for each in ranges]),
        ("own6", "ipv6_addr", "flags interval;", [str(each.network6) for each in ranges if each.network6]),
        ("gateways4", "ipv4_addr", "", [each.gateway for each in ranges]),
        ("gateways6", "ipv6_addr", "", [each.gateway6 for each in ranges if each.network6]),
    )
    sets = "".join(
        f"\n  set {name} {{ type {kind}; {flags} {_members(values)} }}" for name, kind, flags, values in fixed
    )
    ports = f"{setting.published.start}-{setting.published.stop - 1}"
    closed = ", ".join(map(str, setting.closed))
    never = f"meta l4proto {{ tcp, udp }} th dport {{ {closed} }} drop" if closed else ""
    to_host = f"""
  chain to_host {{
    {never}
    icmp type echo-request accept
    icmpv6 type echo-request accept
    meta l4proto {{ tcp, udp }} th dport {ports} accept
    drop
  }}"""
    chains = INET.replace("ROUTED", ROUTED if setting.routed else "").replace("PUBLISHED", PUBLISHED)
    inside = f"iifname @bridges ip daddr @gateways4 tcp dport {setting.inside} accept" if setting.inside else ""
    chains = chains.replace("INSIDE", inside)
    return f"table inet {setting.table} {{{OWNERS}{sets}{to_host}{chains}\n}}\n{cluster_changed(setting)}"


def _members(values: list[str]) -> str:
    return f"elements = {{ {', '.join(values)} }};" if values else ""


def _elements(table: str, attachment: Attachment) -> Iterator[str]:
    """One command a line, so that they can be taken back line by line."""
    mark = attachment.owner_mark
    for interface in attachment.interfaces:
        yield from _on_bridge(table, interface)
        for version, address in (("4", interface.address), ("6", interface.address6)):
            for family in FAMILIES if address else ():
                yield f"add element {family} {table} owner{version} {{ {address} : {mark} }}"
                yield f"add element {family} {table} peers{version} {{ {mark} . {address} }}"
                if family == "inet" and attachment.traffic_class:
                    yield f"add element inet {table} classes{version} {{ {address} : {attachment.traffic_class} }}"
                if attachment.open:
                    yield f"add element {family} {table} open{version} {{ {address} }}"
    first = attachment.interfaces[0]
    for port in attachment.ports:
        key = f"{port.protocol} . {port.host_port}"
        yield f"add element inet {table} published4 {{ {key} : {first.address} . {port.port} }}"
        if first.address6:
            yield f"add element inet {table} published6 {{ {key} : {first.address6} . {port.port} }}"
    if attachment.rate_out:
        burst = max(RATE_BURST_MIN_BYTES, attachment.rate_out // 10)
        limit = f"rate over {attachment.rate_out} bytes/second burst {burst} bytes"
        yield f"add limit bridge {table} {first.host_end} {{ {limit}; }}"
        yield f'add element bridge {table} rates {{ "{first.host_end}" : "{first.host_end}" }}'


def _on_bridge(table: str, interface: Interface) -> Iterator[str]:
    end = f'"{interface.host_end}"'
    yield f"add element bridge {table} ports {{ {end} }}"
    yield f"add element bridge {table} macs {{ {end} . {interface.mac} }}"
    yield f"add element bridge {table} bound4 {{ {end} . {interface.address} }}"
    yield f"add element bridge {table} bound6 {{ {end} . {link_local(interface.mac)} }}"
    if interface.address6:
        yield f"add element bridge {table} bound6 {{ {end} . {interface.address6} }}"


def _remote(action: str, table: str, remotes: Iterable[Remote]) -> Iterator[str]:
    for each in remotes:
        yield f"{action} element inet {table} peers4 {{ {each.mark} . {each.address} }}"
        if each.address6:
            yield f"{action} element inet {table} peers6 {{ {each.mark} . {each.address6} }}"


def link_local(mac: str) -> str:
    """Return the link-local address that a kernel makes of a hardware address (RFC 4291, appendix A)."""
    value = [int(byte, 16) for byte in mac.split(":")]
    identifier = bytes([value[0] ^ 0x02, *value[1:3], 0xFF, 0xFE, *value[3:]])
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + identifier))
