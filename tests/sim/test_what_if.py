"""A copy of a cluster that lives goes on as it is and as it would be, through the agents' own machines."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from node.cli.commands.sim import sim as command_of_sim
from node.cli.failures import Failure
from scheduler import SchedulerConfig
from scheduler.events import Accepting, Submit
from scheduler.model import AllocationId, ArrayRange, JobKind, JobSpec, OnLost, Resources
from scheduler.spec.gang import Gang
from sim.cluster import parse_node_type, read_cluster
from sim.errors import BadTrace, BadValue
from sim.futures import Addition, Changes, Wait, what_if
from sim.live import Live, decode_page, encode_live, joined, read_live, to_cluster, write_live
from sim.machines import Host, Links, Machines

GIB = 1 << 30
NODE = Resources(4000, 8 * GIB)
UNIX_S = 1_700_000_000.0


class Cluster(Machines):
    """A small cluster that lives for a while, and then a copy is taken of it."""

    unix_began_s = UNIX_S

    def __init__(self, nodes: int, **config: int) -> None:
        hosts = [
            Host(f"n{number}", number, NODE, (("rack", f"r{number % 2}"),), SchedulerConfig(**config))
            for number in range(1, nodes + 1)
        ]
        super().__init__(hosts, [host.name for host in hosts], Links(gossip_s=0.1))
        self.start_all()
        self.kernel.run_until(10.0)

    def begun(self, host: Host, id_: AllocationId, spec: JobSpec) -> float:
        return spec.time_limit_s / 2 if spec.time_limit_s and spec.kind is JobKind.BATCH else inf

    def submit(self, name: str, *, home: str = "n1", cores: int = 1, **spec: object) -> None:
        asked = JobSpec(name=name, argv=("run", "secret"), request=Resources(cores * 1000, cores * GIB), **spec)  # type: ignore[arg-type]
        self.give(self.hosts[home], Submit("ann", asked, self.unix_s))
        self.kernel.run_until(self.kernel.now + 5.0)

    def snapshot(self, count: int = 1000) -> Live:
        pages = {}
        for name, host in self.hosts.items():
            assert host.agent is not None
            after, found = 0, []
            while True:
                found.append(decode_page(msgspec.json.encode(host.agent.snapshot(self.kernel.now, after, count))))
                if found[-1].next is None:
                    break
                after = found[-1].next
            pages[name] = joined(found)
        return Live(taken_unix_s=self.unix_s, states=dict.fromkeys(pages, "alive"), nodes=tuple(pages.values()))


def by_name(waits: list[Wait]) -> dict[str, Wait]:
    return {each.name: each for each in waits}


@pytest.fixture
def full() -> Cluster:
    """Two nodes: one has a service on each, batch jobs fill the rest until half of 1000 s, two jobs wait."""
    cluster = Cluster(2)
    for number in range(2):
        cluster.submit(f"web{number}", cores=1, kind=JobKind.SERVICE)
        cluster.submit(f"batch{number}", home="n2", cores=3, time_limit_s=1000.0)
    cluster.submit("first", cores=3, time_limit_s=600.0)
    cluster.submit("second", home="n2", cores=3, time_limit_s=600.0)
    cluster.submit("third", cores=3, time_limit_s=600.0)
    return cluster


def test_waiting_jobs_start_in_the_order_of_the_line_when_limits_are_over(full: Cluster) -> None:
    now = what_if(full.snapshot(), Changes()).now
    waits = by_name(now.waits)
    assert list(waits) == ["first", "second", "third"]
    assert 900 < (waits["first"].first_s or 0) <= (waits["second"].first_s or 0) < 1000
    assert 1500 < (waits["third"].first_s or 0) < 1600
    assert not now.moved


def test_more_nodes_let_what_waits_start_now(full: Cluster) -> None:
    both = what_if(full.snapshot(), Changes(add=[Addition(2, parse_node_type("big:cpu=4,memory=8G"))]))
    then = by_name(both.then.waits)
    assert (then["first"].first_s or inf) < 60
    assert (then["second"].first_s or inf) < 60
    assert {*then["first"].nodes, *then["second"].nodes} == {"big-new-1", "big-new-2"}
    assert (by_name(both.now.waits)["first"].first_s or 0) > 900


def test_a_removed_nodes_tasks_go_elsewhere_and_those_without_room_are_named(full: Cluster) -> None:
    live = full.snapshot()
    then = what_if(live, Changes(remove=["n2"]), horizon_s=600).then
    gone = {each.name: each for each in then.moved}
    assert {each.was for each in gone.values()} == {"n2"}
    assert any(name.startswith("web") for name in gone)
    batch = next(each for name, each in gone.items() if name.startswith("batch"))
    assert (batch.now, batch.in_s, batch.lost) == ("", None, False)
    assert [load.node for load in then.loads] == ["n1"]


def test_a_task_that_is_not_to_be_requeued_is_lost_with_its_node() -> None:
    cluster = Cluster(2)
    cluster.submit("fragile", cores=4, time_limit_s=1000.0, on_lost=OnLost.FAIL)
    live = cluster.snapshot()
    node = next(held.node for held in live.nodes if held.held)
    [moved] = what_if(live, Changes(remove=[node])).then.moved
    assert (moved.was, moved.now, moved.lost) == (node, "", True)


def test_draining_moves_services_and_lets_batch_tasks_end(full: Cluster) -> None:
    added = [Addition(1, parse_node_type("big:cpu=16,memory=32G"))]
    then = what_if(full.snapshot(), Changes(drain={"n1": None}, add=added)).then
    assert [(each.name[:3], each.was, each.now) for each in then.moved] == [("web", "n1", "big-new-1")]


def test_a_ratio_lets_more_be_promised(full: Cluster) -> None:
    then = by_name(what_if(full.snapshot(), Changes(cpu_ratio=2.0)).then.waits)
    assert (then["first"].first_s or inf) < 60
    assert (then["second"].first_s or inf) < 60


def test_new_jobs_are_told_when_they_would_start_and_what_can_never_be_taken(full: Cluster) -> None:
    jobs = [
        JobSpec("small", ("run",), Resources(500, GIB)),
        JobSpec("gang", ("run",), Resources(1000, GIB), gang=Gang(nodes=2), time_limit_s=60.0),
        JobSpec("bad", ("run",), Resources(-1, GIB)),
    ]
    then = what_if(full.snapshot(), Changes(jobs=jobs)).then
    found = by_name(then.new_jobs)
    assert set(found) == {"small", "gang"}
    assert len(found["gang"].nodes) == 2
    [refusal] = then.refused
    assert refusal.startswith("bad: ")


def test_arrays_are_copied_with_what_has_ended_of_them() -> None:
    cluster = Cluster(1)
    cluster.submit("array", cores=2, time_limit_s=100.0, array=ArrayRange(0, 9))
    cluster.kernel.run_until(cluster.kernel.now + 70.0)
    live = cluster.snapshot()
    [(_, job)] = live.jobs()
    assert sum(last - first + 1 for _, first, last in job.ended) == 2
    [wait] = what_if(live, Changes()).now.waits
    assert (wait.waiting, wait.started) == (6, 6)


def test_a_cordoned_node_stays_cordoned() -> None:
    cluster = Cluster(2)
    cluster.give(cluster.hosts["n2"], Accepting(False))
    cluster.kernel.run_until(cluster.kernel.now + 5.0)
    new = [JobSpec(f"j{number}", ("run",), Resources(2000, GIB)) for number in range(3)]
    then = what_if(cluster.snapshot(), Changes(jobs=new), horizon_s=600).then
    assert {name for wait in then.new_jobs for name in wait.nodes} == {"n1"}


def test_a_copy_is_the_same_page_by_page_and_after_writing(full: Cluster, tmp_path: Path) -> None:
    whole, paged = full.snapshot(), full.snapshot(count=1)
    assert encode_live(whole) == encode_live(paged)
    write_live(tmp_path / "live.json", whole)
    assert read_live(tmp_path / "live.json") == whole
    assert b"secret" not in encode_live(whole)
    assert to_cluster(whole).processors == read_cluster(tmp_path / "live.json").processors == 8
    assert whole.counts["pending_tasks"] == 3


def test_the_same_copy_gives_the_same_future(full: Cluster) -> None:
    live = full.snapshot()
    assert what_if(live, Changes(cpu_ratio=1.5)) == what_if(live, Changes(cpu_ratio=1.5))


WRONG: list[tuple[Changes, str]] = [
    (Changes(drain={"n9": None}), "drain: n9 is not valid; one of n1"),
    (Changes(remove=["x"]), "remove: x is not valid"),
    (Changes(drain={"n1": None}, remove=["n1"]), "drain: n1"),
    (Changes(memory_ratio=0.0), "memory ratio: 0.0"),
    (Changes(add=[Addition(1000, parse_node_type("a:cpu=1,memory=1G"))]), "at most 999 nodes"),
    (Changes(remove=["n1"], jobs=[JobSpec("j", ("run",), Resources(1, 1))]), "a node has to be left"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_makes_no_sense_is_refused_by_name(changes: Changes, message: str) -> None:
    live = Cluster(1).snapshot()
    with pytest.raises(BadValue, match=message):
        what_if(live, changes)


def test_an_empty_cluster_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="no node"):
        what_if(Live(taken_unix_s=0.0, states={}), Changes())
    file = tmp_path / "x.json"
    file.write_text("[]")
    with pytest.raises(BadTrace, match="no snapshot"):
        read_live(file)


def command(*words: object) -> Result:
    return CliRunner().invoke(command_of_sim, ["what-if", *map(str, words)])


def test_the_command_tells_both_futures_as_json_and_as_tables(full: Cluster, tmp_path: Path) -> None:
    copy, jobs = tmp_path / "live.json", tmp_path / "jobs.json"
    write_live(copy, full.snapshot())
    jobs.write_text('[{"argv": ["x"], "name": "extra", "cpu_milli": 1000, "time_limit_s": 60}]')
    words = ("--snapshot", copy, "--remove", "n2", "--add", "2xn1", "--job", jobs, "--ratio", "memory=2")
    told = json.loads(command(*words, "--json").output)
    assert {each["name"] for each in told["then"]["jobs"]} == {"first", "second", "third"}
    assert [each["name"] for each in told["then"]["new_jobs"]] == ["extra"]
    assert {each["now"] for each in told["then"]["moved"]} <= {"n1", "n1-new-1", "n1-new-2"}
    assert {each["node"] for each in told["then"]["nodes"]} == {"n1", "n1-new-1", "n1-new-2"}
    text = command(*words).output
    for word in ("running tasks have to go", "Waiting jobs start", "The new jobs would start", "MEMORY MEAN"):
        assert word in text


BAD_WORDS = [
    (("--drain", "n9"), "drain: n9 is not valid; one of n1, n2"),
    (("--drain", "n1:soon"), "--drain: 'soon' is not valid; a time"),
    (("--add", "4xbig"), "--add: no type big; one of n1, n2, or say what it is: --node-type big:cpu="),
    (("--add", "big"), "--add: 'big' is not valid; COUNTxTYPE"),
    (("--ratio", "disk=2"), "--ratio: 'disk=2' is not valid"),
    (("--ratio", "cpu=0"), "--ratio: 'cpu=0' is not valid"),
    (("--job", "/nowhere.json"), "--job: /nowhere.json: no such file"),
    (("--node-type", "x:cpu=no", "--add", "1xx"), "--node-type"),
    (("--node-type", "x:cpu=1,memory=1G"), "--node-type: is what --add may name; there is no --add"),
    (("--horizon", "1s"), "horizon: 1.0 is not valid"),
]


@pytest.mark.parametrize(("words", "message"), BAD_WORDS)
def test_the_command_refuses_what_makes_no_sense(
    full: Cluster, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    write_live(tmp_path / "live.json", full.snapshot())
    refused = command("--snapshot", tmp_path / "live.json", *words)
    assert isinstance(refused.exception, Failure)
    assert message in str(refused.exception)


def test_a_job_that_no_node_could_take_is_named_with_its_field(full: Cluster, tmp_path: Path) -> None:
    write_live(tmp_path / "live.json", full.snapshot())
    (tmp_path / "job.json").write_text('{"argv": ["x"], "cpus": 3}')
    refused = command("--snapshot", tmp_path / "live.json", "--job", tmp_path / "job.json")
    assert "cpus" in str(refused.exception)
