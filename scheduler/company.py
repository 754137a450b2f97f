"""What a node runs, in a few words, and whether a job may join it: the rules of a spec's `placement` as constraints.

A job goes by its id, its name and its labels; each such word is told as a tag, thirty bits of its hash, with the number
of tasks that go by it. A node's tags are a label of their own (`RUNS`), so that homes, leader and node judge the rules
like any other constraint. A report has room for a few tags, jobs with a `placement` first: a view may lack some, the
node itself judges by all. Owns words, tags and rules; knows no node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b

from scheduler.model import AllocationId, Constraint, JobSpec, Operator
from scheduler.spec.placement import Placement

RUNS = "~runs"
"""The label; no operator can give a node one of such a name."""
TAGS_MAX = 24
"""How many tags a report has room for."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_PLAIN = Placement()


@lru_cache(maxsize=4096)
def tag(word: str) -> str:
    """Return a word's tag: six letters."""
    bits = int.from_bytes(blake2b(word.encode(), digest_size=4).digest(), "big")
    return "".join(_LETTERS[bits >> shift & 31] for shift in range(0, 30, 5))


def words(job: int, spec: JobSpec) -> tuple[str, ...]:
    """Return what a job goes by; none for one that has no id yet."""
    own = (f"name:{spec.name}", *(f"label:{label}" for label in spec.placement.labels))
    return (f"id:{job}", *own) if job else own


def tags(job: int, spec: JobSpec) -> tuple[str, ...]:
    """Return what others can test of a job that runs."""
    return tuple(dict.fromkeys(map(tag, words(job, spec))))


def rules(spec: JobSpec, job: int = 0) -> tuple[Constraint, ...]:
    """Return a spec's rules on what runs on its node; with `job`, also how many of the job's own tasks may."""
    placement = spec.placement
    return tuple(_rules(placement, spec, job)) if placement != _PLAIN else ()


def _rules(placement: Placement, spec: JobSpec, job: int) -> Iterator[Constraint]:
    own = frozenset(words(job, spec))
    for soft, near, apart in (
        (False, placement.near, placement.apart),
        (True, placement.prefer_near, placement.prefer_apart),
    ):
        for word in near:
            yield Constraint(RUNS, Operator.NEAR, (tag(word), word), soft)
        for word in apart:
            yield at_most(0, word, own=word in own, soft=soft)
    if placement.per_node and job:
        yield at_most(placement.per_node - 1, f"id:{job}", own=True)


def at_most(count: int, word: str, *, own: bool, soft: bool = False) -> Constraint:
    """Return the rule that so many of that word may run there before; `own`: tasks of this job count, too."""
    return Constraint(RUNS, Operator.AT_MOST, (tag(word), word, str(count), *(("own",) if own else ())), soft)


def counts_itself(rule: Constraint) -> bool:
    """Whether a task that is placed changes the rule for the job's next one."""
    return rule.operator is Operator.AT_MOST and len(rule.values) > 3


def describe(rule: Constraint) -> str:
    """Write a rule that a node does not obey."""
    word = rule.values[1]
    if rule.operator is Operator.NEAR:
        return f"nothing of {word} runs there to be near to"
    most = int(rule.values[2]) + 1
    return (
        f"{most} of its own tasks there, the most allowed"
        if counts_itself(rule)
        else f"the job is to be apart from {word}"
    )


class Company:
    """What runs on one node."""

    def __init__(self) -> None:
        self._named: Counter[str] = Counter()
        self._plain: Counter[str] = Counter()
        self._tasks: dict[AllocationId, tuple[Counter[str], tuple[str, ...]]] = {}

    def add(self, id_: AllocationId, spec: JobSpec) -> None:
        """A task runs here from now on."""
        counts, found = self._plain if spec.placement == _PLAIN else self._named, tags(id_.job, spec)
        self._tasks[id_] = counts, found
        counts.update(found)

    def drop(self, id_: AllocationId) -> None:
        """A task runs here no longer."""
        counts, found = self._tasks.pop(id_)
        for each in found:
            counts[each] -= 1
            if counts[each] <= 0:
                del counts[each]

    def text(self) -> str:
        """Return all of it as a label's value."""
        return written(self._named + self._plain)

    def told(self) -> str:
        """Return what a report has room for: jobs with a `placement` first, then those that came last."""
        named = list(self._named)[-TAGS_MAX:]
        room = TAGS_MAX - len(named)
        plain = list(self._plain)[-room:] if room else []
        return written({each: self._named[each] + self._plain[each] for each in (*named, *plain)})


def written(counts: Mapping[str, int]) -> str:
    """Return tags and counts as a label's value."""
    return f",{','.join(f'{each}:{count}' for each, count in counts.items())}," if counts else ""


def joined(told: str, more: Mapping[str, int]) -> str:
    """Return what a node told and what is on its way there."""
    if not more:
        return told
    counts: Counter[str] = Counter()
    for each in filter(None, told.split(",")):
        name, _, count = each.partition(":")
        counts[name] += int(count) if count.isdecimal() else 0
    counts.update(more)
    return written(counts)


def met(rule: Constraint, runs: str, more: int = 0) -> bool:
    """Whether a node that runs this obeys a rule, with so many of the job's own tasks besides."""
    count = running(runs, rule.values[0])
    if rule.operator is Operator.NEAR:
        return count > 0
    return count + (more if counts_itself(rule) else 0) <= int(rule.values[2])


def running(runs: str, each: str) -> int:
    """Return how many tasks with this tag run there."""
    at = runs.find(f",{each}:")
    if at < 0:
        return 0
    count = runs[at + len(each) + 2 : runs.find(",", at + 1)]
    return int(count) if count.isdecimal() else 0


def tagged(job: int, spec: JobSpec) -> tuple[str, ...]:
    """Return the tags worth counting while a task is on its way: those of jobs with a `placement`."""
    return tags(job, spec) if spec.placement != _PLAIN else ()
