"""Any CSV is read through a mapping; mistakes in either are named."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from sim.errors import BadTrace
from sim.nodes import Demand
from sim.placement import Visit
from sim.traces.mapped import Mapping, read_jobs, read_mapping, read_visits

TRACES = Path(__file__).parent / "traces"
EXAMPLES = Path(__file__).parents[2] / "docs/examples/simulation"
AZURE = """header = false
arrive = {column = 3, unit = "s"}
leave = {column = 4, unit = "s"}
cpu = {column = 9, unit = "cores", values = {">24" = 30}}
memory = {column = 10, unit = "GiB", values = {">64" = 70}}
"""
GOOGLE = """id = ["collection_id", "instance_index"]
event = {column = "type", arrive = ["0"], leave = ["4", "5"]}
time = {column = "time", unit = "us"}
cpu = {column = "cpus", unit = "cores", scale = 64}
memory = {column = "memory", unit = "GiB", scale = 256}
"""


def mapping(folder: Path, text: str) -> Mapping:
    path = folder / "mapping.toml"
    path.write_text(text)
    return read_mapping(path)


def table(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_a_table_without_names_is_read_by_places(tmp_path: Path) -> None:
    rows = "v1,s,d,600,1200,1,1,1,Interactive,4,32\nv2,s,d,0,,1,1,1,Unknown,>24,>64\nv3,s,d,9,3,1,1,1,U,2,4\nshort\n"
    visits, bad = read_visits(table(tmp_path, rows), mapping(tmp_path, AZURE))
    assert visits == [Visit(0, inf, Demand(30_000, 71_680)), Visit(600, 1200, Demand(4000, 32_768))]
    assert [line for line, _ in bad.first] == [3, 4]


def test_events_are_paired_by_their_ids_and_shares_are_scaled(tmp_path: Path) -> None:
    rows = (
        "time,type,collection_id,instance_index,cpus,memory\n"
        "1000000,0,1,0,0.5,0.25\n2000000,0,1,1,0.25,0.5\n3000000,5,1,0,,\n3500000,9,1,1,,\n4000000,4,7,7,,\n"
    )
    visits, bad = read_visits(table(tmp_path, rows), mapping(tmp_path, GOOGLE))
    assert visits == [Visit(1, 3, Demand(32_000, 65_536)), Visit(2, inf, Demand(16_000, 131_072))]
    assert bad.count == 0


def test_examples_of_mappings_read_what_they_are_for() -> None:
    """Rows as the published formats have them: restarts, updates, missing amounts, ends after the trace, buckets."""
    found = {name: _example(name) for name in ("google-2011", "google-2019", "azure-2017", "azure-2019")}
    assert found["google-2011"] == (
        [
            Visit(0, inf, Demand(4000, 9760)),
            Visit(600.0001, 700, Demand(8000, 8140)),
            Visit(710, 900, Demand(8000, 8140)),
            Visit(970.000001, inf, Demand(320, 1311)),
        ],
        [(11, "cpu: is empty")],
    )
    assert found["google-2019"] == ([Visit(0, inf, Demand(1408, 3408)), Visit(301, 501, Demand(4000, 8205))], [])
    assert found["azure-2017"] == (
        [
            Visit(0, 2_591_700, Demand(1000, 1792)),
            Visit(0, 1_539_300, Demand(1000, 768)),
            Visit(300, 2_591_700, Demand(8000, 57_344)),
        ],
        [],
    )
    assert found["azure-2019"] == (
        [
            Visit(0, 2_591_700, Demand(2000, 4096)),
            Visit(300, 900, Demand(24_000, 65_536)),
            Visit(71_100, 2_591_700, Demand(30_000, 71_680)),
        ],
        [],
    )


def _example(name: str) -> tuple[list[Visit], list[tuple[int, str]]]:
    file = {"azure-2017": "azure-vms", "azure-2019": "azure-vms"}.get(name, name)
    visits, bad = read_visits(TRACES / f"{name}.csv", read_mapping(EXAMPLES / f"{file}.toml"))
    return [visit._replace(arrive_s=pytest.approx(visit.arrive_s)) for visit in visits], bad.first


def test_amounts_that_are_missing_or_absurd_are_bad_lines_with_their_numbers(tmp_path: Path) -> None:
    rows = "when,who,vcpu,ram,gpu\n1,a,2,4,\n2,b,,4,1\n3,c,1,,1\n4,d,1e300,1,1\n,e,1,1,1\n"
    text = """arrive = {column = "when"}
cpu = {column = "vcpu"}
memory = {column = "ram", unit = "GiB"}
gpus = {column = "gpu"}
"""
    visits, bad = read_visits(table(tmp_path, rows), mapping(tmp_path, text))
    assert visits == [Visit(1, inf, Demand(2000, 4096))]
    assert bad.first == [
        (3, "cpu: is empty"),
        (4, "memory: is empty"),
        (5, "cpu: 1e+303 is too much"),
        (6, "arrive: is empty, or after the trace"),
    ]
    jobs = """submit = {column = "when"}
run = {column = "ram"}
processors = {column = "vcpu"}
"""
    assert read_jobs(table(tmp_path, rows), mapping(tmp_path, jobs)).bad.first[0] == (
        5,
        "processors: 1e+300 are too many",
    )


def test_batch_jobs_have_run_times_and_rows_can_be_kept_by_a_column(tmp_path: Path) -> None:
    text = """submit = {column = "when", unit = "date"}
run = {column = "took", unit = "min"}
processors = {column = "cores"}
user = {column = "who"}
keep = {column = "queue", values = ["batch"]}
"""
    rows = (
        "when,took,cores,who,queue\n2026-01-01 00:10:00,5,4,ana,batch\n2026-01-01 00:00:00,2,8,bo,batch\n"
        "2026-01-01 00:00:00,2,8,bo,debug\n2026-01-01 00:00:00,0,8,bo,batch\nsoon,1,1,bo,batch\n"
    )
    found = read_jobs(table(tmp_path, rows), mapping(tmp_path, text))
    assert [(job.submit_s, job.run_s, job.need, job.user) for job in found.workload] == [
        (0, 120, 8, 2),
        (600, 300, 4, 1),
    ]
    assert (found.processors, found.left_out, found.bad.count) == (8, {"never ran": 1}, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "give one of arrive"),
        ("arrive = {column = 1}\nsubmit = {column = 1}\n", "give one of arrive"),
        ("arrive = {column = 1}\n", "cpu: is needed"),
        ('arrive = {column = 1, unit = "weeks"}\ncpu = {column = 2}\n', "unit 'weeks' is not valid"),
        ('arrive = {column = 1, colour = "red"}\n', "unknown field"),
        ("arrive = \n", "."),
        ("event = {column = 1, arrive = [], leave = []}\ntime = {column = 1}\ncpu = {column = 1}\n", "id: is needed"),
    ],
)
def test_a_wrong_mapping_is_refused_with_its_reason(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadTrace, match=why):
        mapping(tmp_path, text)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match="no column 'time'"):
        read_visits(table(tmp_path, "a,b\n1,2\n"), mapping(tmp_path, GOOGLE))
