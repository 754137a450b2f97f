"""What a site is, and the phases of its life as one table.

A site is a job of one task that the request door may start, freeze, thaw and stop. Its key names one backend; several
instances of one application are several sites that share hosts.
"""

from __future__ import annotations

import enum
from types import MappingProxyType

import msgspec

from scheduler.errors import IllegalTransition
from scheduler.model import JobSpec

ASKED_HOSTS_MAX = 20
"""Of the hosts that a site was asked for by without their being declared, the last ones count."""
HOST_VARIABLE = "FOFOCA_SITE_HOST"


class SitePhase(enum.StrEnum):
    """Where a site is."""

    ASLEEP = "asleep"
    STARTING = "starting"
    AWAKE = "awake"
    FREEZING = "freezing"
    FROZEN = "frozen"
    THAWING = "thawing"
    LEAVING = "leaving"
    BROKEN = "broken"


class SiteStep(enum.StrEnum):
    """What can happen to it."""

    START = "start"
    READY = "ready"
    LOSE = "lose"
    FREEZE = "freeze"
    FROZE = "froze"
    FAILED_TO_FREEZE = "failed to freeze"
    THAW = "thaw"
    THAWED = "thawed"
    STOP = "stop"
    ENDED = "ended"
    BREAK = "break"
    MEND = "mend"


_P, _S = SitePhase, SiteStep
TABLE: MappingProxyType[tuple[SitePhase, SiteStep], SitePhase] = MappingProxyType(
    {
        (_P.ASLEEP, _S.START): _P.STARTING,
        (_P.STARTING, _S.READY): _P.AWAKE,
        (_P.STARTING, _S.BREAK): _P.BROKEN,
        (_P.STARTING, _S.STOP): _P.LEAVING,
        (_P.AWAKE, _S.LOSE): _P.STARTING,
        (_P.AWAKE, _S.FREEZE): _P.FREEZING,
        (_P.AWAKE, _S.STOP): _P.LEAVING,
        (_P.FREEZING, _S.FROZE): _P.FROZEN,
        (_P.FREEZING, _S.FAILED_TO_FREEZE): _P.AWAKE,
        (_P.FREEZING, _S.LOSE): _P.STARTING,
        (_P.FREEZING, _S.STOP): _P.LEAVING,
        (_P.FROZEN, _S.THAW): _P.THAWING,
        (_P.FROZEN, _S.LOSE): _P.STARTING,
        (_P.FROZEN, _S.STOP): _P.LEAVING,
        (_P.THAWING, _S.THAWED): _P.AWAKE,
        (_P.THAWING, _S.LOSE): _P.STARTING,
        (_P.THAWING, _S.STOP): _P.LEAVING,
        (_P.BROKEN, _S.MEND): _P.ASLEEP,
        **{(phase, _S.ENDED): _P.ASLEEP for phase in _P if phase not in (_P.ASLEEP, _P.BROKEN)},
    }
)


def take(phase: SitePhase, step: SiteStep) -> SitePhase:
    """Return the phase after a step; raises IllegalTransition where the table has none."""
    after = TABLE.get((phase, step))
    if after is None:
        raise IllegalTransition(f"a site that is {phase.value} can't {step.value}")
    return after


class Site(msgspec.Struct, frozen=True, omit_defaults=True):
    """One backend. `idle_s` without use freezes it, `frozen_s` more stop it; `always_on`: neither ever happens.

    `spec` is a service of one task that listens on `port`; `weight` is its share among instances with the same hosts.
    `hosts` are those it answers for: the `declared` ones, and those it was asked for by besides. Its container is told
    of `realhost`, else of the first.
    It is awake once the port takes a connection and, if there is a `ready_path`, a GET of it is answered with less than
    500; a container that does not within `ready_s` of its start is given up.
    """

    key: str
    owner: str
    spec: JobSpec
    port: int
    hosts: tuple[str, ...] = ()
    application: str = ""
    idle_s: float = 300.0
    frozen_s: float = 900.0
    weight: int = 1
    always_on: bool = False
    ready_s: float = 30.0
    ready_path: str = ""
    declared: tuple[str, ...] = ()
    realhost: str = ""

    @property
    def container(self) -> JobSpec:
        """What is to run: the spec, told its host."""
        host = self.realhost or (self.hosts[0] if self.hosts else "")
        return msgspec.structs.replace(self.spec, env=(*self.spec.env, (HOST_VARIABLE, host)))

    def gathering(self, known: Site) -> Site:
        """Return this wish with the hosts that an earlier one was asked for by, if both declare the same.

        Visitors come by several names (www or not), each request says but one, and none is to unsay another.
        """
        if self.declared != known.declared:
            return self
        asked = [host for host in dict.fromkeys((*known.hosts, *self.hosts)) if host not in self.declared]
        return msgspec.structs.replace(self, hosts=(*self.declared, *asked[-ASKED_HOSTS_MAX:]))


class SiteRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The row of the ledger: the site, its job (0: none), and whether its container was last ordered to freeze.

    `next_job` is to take the place of `job`; `retired` are to end soon.
    """

    site: Site
    job: int = 0
    frozen: bool = False
    next_job: int = 0
    retired: tuple[int, ...] = ()
    woken_unix_s: float = 0.0


class SiteView(msgspec.Struct, frozen=True):
    """A site as the door sees it: where to go when awake, else why not and when to ask again (seconds; 0: soon).

    `fingerprint` tells one wish for it from another; of two views by one keeper that of the higher `revision` is newer.
    `hopeless`: its container fits on no node, however empty, so waiting is no use. `failing`: its container ended by
    itself again and again before it answered; it is tried on, but nobody is to wait for that.
    """

    key: str
    owner: str
    phase: SitePhase
    keeper: str
    hosts: tuple[str, ...] = ()
    application: str = ""
    port: int = 0
    job: int = 0
    node: str = ""
    address: str = ""
    weight: int = 1
    reason: str = ""
    retry_s: float = 0.0
    idle_for_s: float = 0.0
    open: int = 0
    fingerprint: int = 0
    revision: int = 0
    hopeless: bool = False
    failing: bool = False

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for: it answers, or will not soon."""
        return self.phase in (SitePhase.AWAKE, SitePhase.BROKEN) or self.hopeless or self.failing
