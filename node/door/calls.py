"""What nodes say to each other about sites: the bodies of the calls `site.*`, and their refusals.

A refusal travels by its kind, so that whoever asked raises the same error that a local keeper would have raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from node.errors import Busy, CallerError, InvalidValue, MissingImage, NodeError, NotNow, UnknownImage, UnknownSite
from scheduler.errors import NotPossible, Overloaded, SchedulerError
from scheduler.errors import UnknownSite as NotKept
from scheduler.sites.claims import Claim, Keeping
from scheduler.sites.site import Site, SiteView

WANT, WAKE, SHOW, SLEEP, DROP = "site.want", "site.wake", "site.show", "site.sleep", "site.drop"
FIND, WHO, LIST = "site.find", "site.who", "site.list"
USED, UNREADY, CHANGED = "site.used", "site.unready", "site.changed"
MOVE, COMPARE, FREEZE, COPY = "site.move", "site.compare", "site.freeze", "site.copy"

ENTRIES_MAX = 1_000
"""Of sites in one call."""


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    """A site is wanted; the answer comes when it is awake or broken, or after a while."""

    site: Site
    wait_s: float


class Named(msgspec.Struct, frozen=True, array_like=True):
    """Something about a site that is kept already."""

    key: str
    wait_s: float = 0.0
    why: str = ""


class Use(msgspec.Struct, frozen=True, array_like=True):
    """How many connections a door has to a site, when the last was used, and how long to count it as busy besides."""

    key: str
    open: int
    age_s: float = 0.0
    busy_s: float = 0.0


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What a site is by now; no view: its keeper keeps it no more."""

    key: str
    view: SiteView | None = None


class Freeze(msgspec.Struct, frozen=True, array_like=True):
    """Have a container frozen, or let it go on."""

    container: str
    frozen: bool


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """A site, or why not, or who to ask instead."""

    view: SiteView | None = None
    refusal: str = ""
    why: str = ""
    elsewhere: str = ""


UNKNOWN = "unknown"
_KINDS: dict[str, Callable[[str], NodeError]] = {
    UNKNOWN: UnknownSite,
    "not-now": NotNow,
    "no-image": MissingImage,
    "busy": Busy,
    "refused": CallerError,
}

encode = msgspec.msgpack.Encoder().encode


def refusal(error: SchedulerError | NodeError) -> Answer:
    """Return an error as an answer."""
    match error:
        case NotKept() | UnknownSite():
            kind = UNKNOWN
        case UnknownImage():
            why = f"the application needs the image {error.value}, which no node has (`fofoca image import`)"
            return Answer(refusal="no-image", why=why)
        case NotPossible() | NotNow():
            kind = "not-now"
        case Overloaded() | Busy():
            kind = "busy"
        case _:
            kind = "refused"
    return Answer(refusal=kind, why=str(error))


def raised(answer: Answer) -> NodeError:
    """Return the error that an answer stands for."""
    return _KINDS.get(answer.refusal, CallerError)(answer.why)


_T = TypeVar("_T")


def _reader(kind: type[_T]) -> Callable[[bytes], _T]:
    decode = msgspec.msgpack.Decoder(kind).decode

    def read(payload: bytes) -> _T:
        try:
            return decode(payload)
        except msgspec.MsgspecError as error:
            raise InvalidValue("call", "(not shown)", f"expected a call of this version ({error})") from None

    return read


read_wanted = _reader(Wanted)
read_named = _reader(Named)
read_uses = _reader(tuple[Use, ...])
read_changes = _reader(tuple[Change, ...])
read_freeze = _reader(Freeze)
read_answer = _reader(Answer)
read_views = _reader(tuple[SiteView, ...])
read_site = _reader(Site)
read_claim = _reader(Claim)
read_keepings = _reader(tuple[Keeping, ...])
read_text = _reader(str)
