"""Node-wise replay: the published figures, conservation, and policies that do what they say."""

from __future__ import annotations

import os
import random
from math import inf
from pathlib import Path

import pytest

from sim.errors import BadTrace, BadValue
from sim.fleet import make_fleet
from sim.nodes import Demand, Node, NodeSpec
from sim.placement import Visit, inflate, place, visit, write_csv
from sim.policies import POLICIES, make_policy
from sim.traces.openb import read_nodes, read_pods, read_visits

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("FOFOCA_TRACES") or ROOT.parent / "shared" / "traces") / "openb"
NODES, PODS = FOLDER / "openb_node_list_gpu_node.csv", FOLDER / "openb_pod_list_default.csv"
published = pytest.mark.skipif(not PODS.exists(), reason=f"no {PODS.name} in {FOLDER}; FOFOCA_TRACES names its parent")


@published
@pytest.mark.parametrize(
    ("policy", "per_cent"),
    [
        ("random", 87.47),
        ("dot-product", 90.85),
        ("clustering", 91.88),
        ("packing", 92.00),
        ("best-fit", 93.08),
        ("fragmentation", 95.39),
    ],
)
def test_openb_allocates_what_was_published(policy: str, per_cent: float) -> None:
    specs, pods = read_nodes(NODES)[0], read_pods(PODS)[0]
    runs = [place(specs, inflate(pods, specs, 130, seed), policy, seed) for seed in range(2)]
    assert 100 * sum(run.allocated_fraction for run in runs) / 2 == pytest.approx(per_cent, abs=1)


def cluster(seed: int) -> tuple[list[NodeSpec], list[Demand]]:
    rng = random.Random(seed)
    specs = [
        NodeSpec(f"n{place}", rng.choice((8000, 32_000)), 65_536, rng.choice((0, 1, 4)), rng.choice(("T4", "G2")))
        for place in range(20)
    ]
    pods = [
        Demand(rng.choice((1000, 4000)), rng.choice((1024, 30_000)), *need, rng.choice(((), (), ("T4",))))
        for need in rng.choices(((0, 0), (1, 300), (1, 1000), (2, 1000), (4, 1000)), k=60)
    ]
    return specs, pods


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(3))
def test_every_pod_is_placed_or_refused_and_no_node_is_overfull(policy: str, seed: int) -> None:
    specs, pods = cluster(seed)
    result = place(specs, inflate(pods, specs, 150, seed), policy, seed)
    assert result.placed + result.refused == result.pods, f"seed {seed}"
    assert result.arrived_fraction >= 1.5
    assert all(0 <= share <= 1 for _, share in result.fill)
    assert all(0 <= share <= 1 for share in result.allocated)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(4))
def test_kept_scores_choose_what_a_look_at_every_node_would(policy: str, seed: int) -> None:
    """A policy that draws among equals is compared by what it could have drawn."""
    specs, pods = cluster(seed)
    arrivals = inflate(pods, specs, 150, seed)
    nodes = [Node(spec) for spec in specs]
    judge = make_policy(policy, nodes, arrivals)
    ties = random.Random(f"ties {seed}")
    placed = 0
    for demand in arrivals:
        scored = [(judge.score(node, demand), -place) for place, node in enumerate(nodes) if node.fits(demand)]
        if not scored:
            continue
        best = max(scored)[0]
        equal = sorted(-place for score, place in scored if score == best)
        node = nodes[ties.choice(equal) if judge.drawn else equal[0]]
        chosen = judge.devices(node, demand)
        assert len(set(chosen)) == demand.gpus
        node.take(demand, chosen)
        assert min([node.cpu_milli, node.memory_mib, *node.devices]) >= 0, f"seed {seed}"
        placed += 1
    result = place(specs, arrivals, policy, seed)
    assert result.placed == placed, f"seed {seed}"
    used = sum(node.cpu_milli for node in nodes) / sum(spec.cpu_milli for spec in specs)
    assert result.allocated.cpu == pytest.approx(1 - used), f"seed {seed}"


def test_the_same_seed_gives_the_same_arrivals_and_the_same_run() -> None:
    specs, pods = cluster(1)
    assert inflate(pods, specs, 130, 5) == inflate(pods, specs, 130, 5)
    assert inflate(pods, specs, 130, 5) != inflate(pods, specs, 130, 6)
    assert place(specs, inflate(pods, specs, 130, 5), "random", 5) == (
        place(specs, inflate(pods, specs, 130, 5), "random", 5)
    )


def test_a_cluster_without_gpus_is_measured_by_its_cpu() -> None:
    specs = [NodeSpec("a", 4000, 100), NodeSpec("b", 4000, 100)]
    result = place(specs, inflate([Demand(1000, 10)], specs, 75, 1), "best-fit")
    assert (result.placed, result.allocated_fraction, result.nodes_used) == (6, 0.75, 2)


def test_spread_uses_all_nodes_and_best_fit_few() -> None:
    specs = [NodeSpec(str(place), 8000, 1000, 4, "T4") for place in range(10)]
    pods = [Demand(1000, 10, 1, 500)] * 10
    used = {policy: place(specs, pods, policy).nodes_used for policy in ("spread", "best-fit")}
    assert used == {"spread": 10, "best-fit": 2}


def test_clustering_keeps_kinds_apart_while_idle_nodes_are_left() -> None:
    specs = [NodeSpec(str(place), 64_000, 1000, 4, "T4") for place in range(3)]
    share, whole = Demand(1000, 10, 1, 500), Demand(1000, 10, 1, 1000)
    tasks = place(
        specs, [share, whole, share, whole, Demand(1000, 10, 4, 1000), whole], "clustering", landed=True
    ).tasks
    assert [each.node for each in tasks] == ["0", "1", "0", "1", "2", "1"]
    shut = place(specs[:2], [share, whole, Demand(1000, 10, 2, 1000)], "clustering", landed=True).tasks
    assert [each.node for each in shut] == ["0", "1", "1"]


def test_packing_opens_a_device_and_a_node_only_when_it_must() -> None:
    specs = [NodeSpec("large", 64_000, 1000, 8, "T4"), NodeSpec("small", 64_000, 1000, 2, "T4")]
    arrivals = [Demand(1000, 10, 1, milli) for milli in (600, 600, 400, 1000)]
    tasks = place(specs, arrivals, "packing", landed=True).tasks
    assert [each.node for each in tasks] == ["small", "small", "small", "large"]


def test_a_pod_goes_only_where_its_model_is() -> None:
    specs = [NodeSpec("a", 8000, 1000, 1, "T4"), NodeSpec("b", 8000, 1000, 1, "G2")]
    result = place(specs, [Demand(1000, 10, 1, 1000, ("G2", "G3"))] * 2, "best-fit")
    assert result.fill == [("a", 0.0), ("b", 1.0)]


def test_a_gpu_share_comes_from_one_device() -> None:
    specs = [NodeSpec("a", 8000, 1000, 2, "T4")]
    pods = [Demand(100, 10, 1, 600)] * 3
    assert place(specs, pods, "best-fit").placed == 2


@pytest.mark.parametrize("policy", ["best-fit", "spread"])
def test_the_index_places_as_a_look_at_every_node_would(policy: str) -> None:
    rng = random.Random(3)
    specs = [NodeSpec(str(place), *rng.choice(((8000, 4096), (16_000, 32_768)))) for place in range(30)]
    fleet = make_fleet(specs, [], policy, 0)
    nodes = [Node(spec) for spec in specs]
    held: list[tuple[Demand, tuple[int, list[int]]]] = []
    for _ in range(600):
        if held and rng.random() < 0.4:
            demand, where = held.pop(rng.randrange(len(held)))
            fleet.leave(demand, where)
            nodes[where[0]].give_back(demand, where[1])
            continue
        demand = Demand(rng.choice((250, 1000, 3000)), rng.choice((128, 1024, 5000)))

        def left(place: int, demand: Demand = demand) -> float:
            node = nodes[place]
            cpu = (node.cpu_milli - demand.cpu_milli) / node.spec.cpu_milli
            return cpu + (node.memory_mib - demand.memory_mib) / node.spec.memory_mib

        fits = [place for place, node in enumerate(nodes) if node.fits(demand)]
        where = fleet.place(demand)
        assert (where is None) == (not fits)
        if where is not None:
            best = (min if policy == "best-fit" else max)(map(left, fits))
            assert left(where[0]) == pytest.approx(best)
            nodes[where[0]].take(demand, where[1])
            held.append((demand, where))
    assert [(node.cpu_milli, node.memory_mib) for node in fleet.nodes()] == [
        (node.cpu_milli, node.memory_mib) for node in nodes
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_leaves_makes_room_and_all_that_came_is_counted(policy: str) -> None:
    specs, pods = cluster(4)
    rng = random.Random(4)
    visits = [Visit(at, at + rng.randrange(1, 40), rng.choice(pods)) for at in range(300)]
    result = visit(specs, visits, policy, 4)
    assert result.placed + result.refused == result.pods == 300
    assert result.complete
    assert 0 < result.allocated_fraction <= result.peak_fraction <= 1
    assert all(0 <= share <= 1 for share in result.allocated)
    assert visit(specs, visits, policy, 4) == result


def test_who_leaves_goes_before_who_comes() -> None:
    specs = [NodeSpec("a", 1000, 100)]
    visits = [Visit(at, at + 10, Demand(1000, 100)) for at in (0, 10, 20, 25)]
    result = visit(specs, visits, "best-fit")
    assert (result.placed, result.refused) == (3, 1)
    assert result.allocated_fraction == 1


def test_visits_are_read_with_their_times(tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    head = "cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time\n"
    path.write_text(head + "1000,64,0,0,,9,12.5\n1000,64,,,,3,\n1,1,0,0,,9,8\n1,1,0,0,,soon,8\n1,1\n")
    visits, bad = read_visits(path)
    assert visits == [Visit(3, inf, Demand(1000, 64)), Visit(9, 12.5, Demand(1000, 64))]
    assert [line for line, _ in bad.first] == [4, 5, 6]


def test_a_run_can_be_stopped() -> None:
    specs, pods = cluster(1)
    result = place(specs, inflate(pods, specs, 500, 1), "best-fit", watch=lambda _done, _now: False)
    assert (result.complete, result.pods) == (False, 64)


def test_wrong_parameters_are_named() -> None:
    specs, pods = cluster(1)
    with pytest.raises(BadValue, match="policy: tightest is not valid; one of best-fit, spread"):
        place(specs, pods, "tightest")
    with pytest.raises(BadValue, match="arrivals: -5 is not valid"):
        inflate(pods, specs, -5, 1)
    with pytest.raises(BadValue, match="pods: no demand is not valid; pods that ask for GPUs"):
        inflate([Demand(1000, 10)], specs, 130, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no column 'sn' in its first line"),
        ("sn,cpu_milli,gpu\n", "no column 'memory_mib'"),
        ("sn,cpu_milli,memory_mib,gpu,model\n", "no rows .0 bad lines"),
        ("sn,cpu_milli,memory_mib,gpu,model\nn1,some,5,0,\n", "no rows .1 bad lines"),
    ],
)
def test_what_is_no_node_list_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "nodes.csv"
    path.write_text(text)
    with pytest.raises(BadTrace, match=why):
        read_nodes(path)


def test_lists_without_gpus_need_no_columns_about_them(tmp_path: Path) -> None:
    nodes, pods = tmp_path / "nodes.csv", tmp_path / "pods.csv"
    nodes.write_text("sn,cpu_milli,memory_mib\nn1,8000,1024\n")
    pods.write_text("cpu_milli,memory_mib\n1000,64\n")
    assert read_nodes(nodes)[0] == [NodeSpec("n1", 8000, 1024)]
    assert read_pods(pods)[0] == [Demand(1000, 64)]


def test_bad_rows_are_counted_or_fatal(tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    path.write_text(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\na,1000,64,1,500,T4|G2\nb,1,1,1,2000,\nc,-1,1,,,\n"
    )
    pods, bad = read_pods(path)
    assert pods == [Demand(1000, 64, 1, 500, ("T4", "G2"))]
    assert bad.first == [
        (3, "gpu_milli: 2000 is not valid; from 1 to 1000"),
        (4, "cpu_milli: -1 is not valid; from 0 to 1125899906842624"),
    ]
    with pytest.raises(BadTrace, match=r"pods\.csv:3: gpu_milli"):
        read_pods(path, strict=True)


@pytest.mark.parametrize("gpus", [0, 2])
def test_fragmentation_is_what_a_random_arrival_could_not_use_of_what_is_free(gpus: int) -> None:
    rng = random.Random(gpus)
    specs = [NodeSpec(f"n{at}", 8000, 16_384, gpus) for at in range(6)]
    shares = ((1, 300), (1, 1000), (2, 1000)) if gpus else ((0, 0),)
    demands = [
        Demand(rng.choice((500, 3000)), rng.choice((512, 6000)) if not gpus else 0, *rng.choice(shares))
        for _ in range(30)
    ]
    run = place(specs, demands, "random", 1, landed=True)
    fleet = make_fleet(specs, demands, "random", 1)
    for demand in demands:
        fleet.place(demand)
    nodes = {node.spec.name: node for node in fleet.nodes()}
    lost = free = 0.0
    for node in nodes.values():
        for demand in demands:
            if gpus:
                fit = node.fits(demand)
                usable = sum(left for left in node.devices if left >= demand.gpu_milli) if fit else 0
                lost += sum(node.devices) - usable
                free += sum(node.devices)
            else:
                lost += 0 if node.fits(demand) else node.cpu_milli
                free += node.cpu_milli
    assert run.fragmented_fraction == pytest.approx(lost / free)


def test_every_arrival_is_written_with_its_node(tmp_path: Path) -> None:
    visits = [Visit(0.0, 5.0, Demand(1000, 1)), Visit(1.0, inf, Demand(1000, 1)), Visit(6.0, 9.0, Demand(1000, 1))]
    run = visit([NodeSpec("n1", 1000, 10)], visits, "best-fit", landed=True)
    with (tmp_path / "out.csv").open("w") as out:
        write_csv(out, run)
    rows = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert rows == ["1,0.0,5.0,n1,1000,1,0,0", "2,1.0,,,1000,1,0,0", "3,6.0,9.0,n1,1000,1,0,0"]
