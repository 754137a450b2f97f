"""The simulator's network: datagrams and request streams between named endpoints, and all that can go wrong there.

Owns delay, loss, duplication, reordering, cuts and dead hosts. It knows nothing of what the bytes mean; payloads may be
any object and are handed over as they are. Endpoints are named by any hashable value (a string, a (host, port) pair).

    network = Network(kernel, Link(delay_min_s=0.0002, delay_max_s=0.001, loss=0.01))
    network.attach(name, on_datagram=f, on_request=g, on_refused=h)
        f(source, payload)              a datagram arrived
        g(source, payload, reply)       a request arrived; call reply(payload) at once, later or never
        h(target)                       a datagram of ours met a host without that endpoint (ICMP port unreachable)
    network.detach(name)                the process died; its host still refuses: senders hear h(name), requests REFUSED
    network.set_host(name, up=False)    the host died or lost its cable: silence both ways; up=True brings it back
    network.send(source, target, payload)               a datagram; loss, duplication and reordering apply
    network.request(source, target, payload, on_reply, on_failure, timeout_s=...)   -> Request, with .cancel()
        on_reply(payload)               at most once
        on_failure(reason)              at most once, reason is REFUSED, UNREACHABLE (no connection before the time-out)
                                        or SILENT (connected, but no reply before the time-out)
    network.set_link(source, target, Link(...))         one direction; None takes the default back
    network.set_default(Link(...))                      every pair without a link of its own
    network.partition([a, b], [c, d])                   endpoints of different groups can't reach each other;
                                                        one that is in no group reaches everybody
    network.cut(source, target), network.mend(source, target)     one direction
    network.heal()                                      undo partitions and cuts (links, hosts, attachments stay)
    network.counters                                    datagrams and requests sent, lost, cut, refused, duplicated

Streams lose nothing: loss costs them delay (a retransmission time each), a cut in either direction starves them.
Whether a payload passes is decided at sending and checked for cuts again on arrival, so a cut also takes what is under
way. Randomness is one stream a sender, named by it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sim.kernel import Handle, Kernel

REFUSED = "refused"
UNREACHABLE = "unreachable"
SILENT = "silent"
RETRANSMIT_S = 0.2

Endpoint = Hashable


@dataclass(frozen=True, slots=True)
class Link:
    """How one direction behaves. Delays in seconds, drawn uniformly; the rest are probabilities for each datagram."""

    delay_min_s: float = 0.0002
    delay_max_s: float = 0.001
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_delay_s: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.delay_min_s <= self.delay_max_s:
            raise ValueError(f"delay_max_s: {self.delay_max_s!r} must be at least delay_min_s, and both at least 0")
        for name in ("loss", "duplicate", "reorder"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: {value!r} is no probability; give 0 to 1")


@dataclass(slots=True)
class _Port:
    on_datagram: Callable[[Endpoint, Any], object] | None
    on_request: Callable[[Endpoint, Any, Callable[[Any], None]], object] | None
    on_refused: Callable[[Endpoint], object] | None


@dataclass(slots=True)
class NetworkCounters:
    """What the network did, in datagrams and requests."""

    datagrams_sent: int = 0
    datagrams_delivered: int = 0
    datagrams_lost: int = 0
    datagrams_cut: int = 0
    datagrams_refused: int = 0
    datagrams_duplicated: int = 0
    requests_sent: int = 0
    requests_replied: int = 0
    requests_failed: int = 0


@dataclass(slots=True, eq=False)
class Request:
    """One request under way; exactly one of its two callbacks is called, unless it is cancelled."""

    on_reply: Callable[[Any], object]
    on_failure: Callable[[str], object]
    connected: bool = False
    done: bool = False
    timer: Handle | None = field(default=None, repr=False)

    def cancel(self) -> None:
        """Forget the request: neither callback will be called."""
        self.done = True
        if self.timer is not None:
            self.timer.cancel()


class Network:
    """All links of one simulated world."""

    def __init__(self, kernel: Kernel, default: Link | None = None) -> None:
        self.counters = NetworkCounters()
        self._kernel = kernel
        self._default = default or Link()
        self._links: dict[tuple[Endpoint, Endpoint], Link] = {}
        self._ports: dict[Endpoint, _Port] = {}
        self._dead_hosts: set[Endpoint] = set()
        self._cuts: set[tuple[Endpoint, Endpoint]] = set()
        self._groups: dict[Endpoint, int] = {}
        self._streams: dict[Endpoint, random.Random] = {}

    def attach(
        self,
        name: Endpoint,
        *,
        on_datagram: Callable[[Endpoint, Any], object] | None = None,
        on_request: Callable[[Endpoint, Any, Callable[[Any], None]], object] | None = None,
        on_refused: Callable[[Endpoint], object] | None = None,
    ) -> None:
        """Open an endpoint, replacing the callbacks of one that is already open."""
        self._ports[name] = _Port(on_datagram, on_request, on_refused)

    def detach(self, name: Endpoint) -> None:
        """Close an endpoint; its host goes on refusing."""
        self._ports.pop(name, None)

    def set_host(self, name: Endpoint, *, up: bool) -> None:
        """Switch the endpoint's host off (silence both ways) or on again."""
        if up:
            self._dead_hosts.discard(name)
        else:
            self._dead_hosts.add(name)

    def set_default(self, link: Link) -> None:
        """Change the link of every pair that has none of its own."""
        self._default = link

    def set_link(self, source: Endpoint, target: Endpoint, link: Link | None) -> None:
        """Give one direction a link of its own, or take it away."""
        if link is None:
            self._links.pop((source, target), None)
        else:
            self._links[source, target] = link

    def partition(self, *groups: Iterable[Endpoint]) -> None:
        """Part the groups from each other, replacing the partition before; endpoints in no group reach everybody."""
        self._groups = {name: number for number, group in enumerate(groups) for name in group}

    def cut(self, source: Endpoint, target: Endpoint) -> None:
        """Stop everything from source to target (one direction)."""
        self._cuts.add((source, target))

    def mend(self, source: Endpoint, target: Endpoint) -> None:
        """Undo one cut."""
        self._cuts.discard((source, target))

    def heal(self) -> None:
        """Undo all partitions and cuts."""
        self._groups = {}
        self._cuts.clear()

    def reachable(self, source: Endpoint, target: Endpoint) -> bool:
        """Return whether packets pass from source to target now, loss aside."""
        if self._dead_hosts and (source in self._dead_hosts or target in self._dead_hosts):
            return False
        if self._cuts and (source, target) in self._cuts:
            return False
        if self._groups:
            here, there = self._groups.get(source), self._groups.get(target)
            return here is None or there is None or here == there
        return True

    def send(self, source: Endpoint, target: Endpoint, payload: Any) -> None:
        """Send one datagram."""
        counters = self.counters
        counters.datagrams_sent += 1
        if not self.reachable(source, target):
            counters.datagrams_cut += 1
            return
        link = self._links.get((source, target), self._default) if self._links else self._default
        stream = self._stream(source)
        if link.loss and stream.random() < link.loss:
            counters.datagrams_lost += 1
            return
        self._fly(link, stream, source, target, payload)
        if link.duplicate and stream.random() < link.duplicate:
            counters.datagrams_duplicated += 1
            self._fly(link, stream, source, target, payload)

    def request(
        self,
        source: Endpoint,
        target: Endpoint,
        payload: Any,
        on_reply: Callable[[Any], object],
        on_failure: Callable[[str], object],
        *,
        timeout_s: float,
    ) -> Request:
        """Connect, send one payload and wait for one reply."""
        self.counters.requests_sent += 1
        request = Request(on_reply, on_failure)
        request.timer = self._kernel.after(timeout_s, self._time_out, request)
        if self.reachable(source, target) and self.reachable(target, source):
            round_trip_s = self._stream_delay(source, target) + self._stream_delay(target, source)
            self._kernel.after(round_trip_s, self._connect, request, source, target, payload)
        return request

    def _stream(self, source: Endpoint) -> random.Random:
        stream = self._streams.get(source)
        if stream is None:
            stream = self._streams[source] = self._kernel.random("network", repr(source))
        return stream

    def _fly(self, link: Link, stream: random.Random, source: Endpoint, target: Endpoint, payload: Any) -> None:
        delay_s = link.delay_min_s + (link.delay_max_s - link.delay_min_s) * stream.random()
        if link.reorder and stream.random() < link.reorder:
            delay_s += link.reorder_delay_s * stream.random()
        self._kernel.after(delay_s, self._arrive, source, target, payload)

    def _arrive(self, source: Endpoint, target: Endpoint, payload: Any) -> None:
        if not self.reachable(source, target):
            self.counters.datagrams_cut += 1
            return
        port = self._ports.get(target)
        if port is None:
            self.counters.datagrams_refused += 1
            self._kernel.after(self._default.delay_min_s, self._refuse, source, target)
        elif port.on_datagram is not None:
            self.counters.datagrams_delivered += 1
            port.on_datagram(source, payload)

    def _refuse(self, source: Endpoint, target: Endpoint) -> None:
        port = self._ports.get(source)
        if port is not None and port.on_refused is not None and self.reachable(target, source):
            port.on_refused(target)

    def _stream_delay(self, source: Endpoint, target: Endpoint) -> float:
        link = self._links.get((source, target), self._default)
        stream = self._stream(source)
        delay_s = link.delay_min_s + (link.delay_max_s - link.delay_min_s) * stream.random()
        retransmit_s = RETRANSMIT_S
        while link.loss and stream.random() < link.loss and retransmit_s < 60:
            delay_s += retransmit_s
            retransmit_s *= 2
        return delay_s

    def _connect(self, request: Request, source: Endpoint, target: Endpoint, payload: Any) -> None:
        if request.done or not (self.reachable(source, target) and self.reachable(target, source)):
            return
        if target not in self._ports:
            self._fail(request, REFUSED)
            return
        request.connected = True
        self._kernel.after(self._stream_delay(source, target), self._serve, request, source, target, payload)

    def _serve(self, request: Request, source: Endpoint, target: Endpoint, payload: Any) -> None:
        port = self._ports.get(target)
        if port is None:
            if not request.done:
                self._fail(request, REFUSED)
            return
        if port.on_request is None or not self.reachable(source, target):
            return

        def reply(answer: Any) -> None:
            if self.reachable(target, source):
                self._kernel.after(self._stream_delay(target, source), self._finish, request, source, answer)

        port.on_request(source, payload, reply)

    def _finish(self, request: Request, source: Endpoint, answer: Any) -> None:
        if request.done or source not in self._ports:
            return
        request.cancel()
        self.counters.requests_replied += 1
        request.on_reply(answer)

    def _time_out(self, request: Request) -> None:
        if not request.done:
            self._fail(request, SILENT if request.connected else UNREACHABLE)

    def _fail(self, request: Request, reason: str) -> None:
        request.cancel()
        self.counters.requests_failed += 1
        request.on_failure(reason)
