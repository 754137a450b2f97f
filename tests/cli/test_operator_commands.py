"""queue, top, usage, settings, reserve, and submit --test-only: what is asked and printed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cli.commands.queue import COUNTERS, add_up

LINE = {
    "leader": "n1",
    "waiting": 3,
    "jobs": [
        {"job": 1001, "owner": "ana", "account": "", "priority": 0, "position": 1, "waiting_s": 5, "wanted": 2,
         "quota": "", "start_in_s": 40.2, "making_room": 1},
        {"job": 2002, "owner": "ben", "account": "x", "priority": 1, "position": None, "waiting_s": 1, "wanted": 1,
         "quota": "licence/matlab", "start_in_s": None, "making_room": 0},
    ],
}  # fmt: skip
ROW = dict.fromkeys(COUNTERS, 0)
USAGE = [
    {**ROW, "day": "2027-01-30", "account": "p", "user": "ana", "job": None, "attempts": 2, "core_ms": 7_200_000},
    {**ROW, "day": "2027-01-31", "account": "p", "user": "ana", "job": None, "attempts": 3},
    {**ROW, "day": "2027-01-31", "account": "", "user": "ben", "job": None, "attempts": 4},
]


def test_the_line_is_a_table_with_what_holds_a_job_aside(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/queue", LINE)
    lines = fofoca("queue").out.splitlines()
    assert lines[1].split()[:3] == ["1", "1001", "ana"]
    assert lines[1].endswith("in 40s  lower tiers give way on 1 node")
    assert lines[2].endswith("-       no room in the limit of licence matlab")
    assert lines[3] == "... and 1 more in the line kept by n1"
    assert json.loads(fofoca("queue", "--json").out) == LINE


def test_top_without_a_terminal_shows_everything_once(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/nodes", [])
    agent.prepare("GET", "/v1/queue", LINE)
    agent.prepare("GET", "/v1/jobs", [])
    out = fofoca("top").out
    assert all(word in out for word in ("NODE", "PLACE", "TASKS"))


def test_usage_is_added_up_by_what_is_asked_for(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/usage", USAGE)
    table = fofoca("usage", "--by", "user").out.splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["ana", "5"], ["ben", "4"]]
    assert table[1].split()[4] == "2.00"
    rows = json.loads(fofoca("usage", "--by", "account", "--json").out)
    assert {row["account"]: row["attempts"] for row in rows} == {"": 4, "p": 5}
    csv = fofoca("usage", "--by", "day", "--user", "ana", "--csv").out.splitlines()
    assert csv[0].startswith("day,attempts,succeeded")
    assert [line.split(",")[:2] for line in csv[1:]] == [["2027-01-30", "2"], ["2027-01-31", "3"]]
    assert fofoca("usage", "--by", "colour").code == 2


rows = st.lists(
    st.fixed_dictionaries(
        {key: st.sampled_from(("a", "b", "c")) for key in ("day", "user", "account")}
        | {counter: st.integers(0, 1 << 50) for counter in COUNTERS}
    )
)


@given(rows, st.permutations(["day", "user", "account"]), st.integers(1, 3))
def test_every_grouping_has_the_same_sum(found: list[dict[str, Any]], keys: list[str], count: int) -> None:
    groups = add_up(found, keys[:count])
    for counter in COUNTERS:
        assert sum(group[counter] for group in groups) == sum(row[counter] for row in found)


def test_settings_are_sent_as_the_fields_they_mean(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("PUT", "/v1/settings/partition/gpu", {})
    fofoca("settings", "set", "partition/gpu", "constraints=gpu; rack in (a, b)", "time_limit_max=2h", "default=true")
    assert agent.asked[-1][2] == {"constraints": ["gpu", "rack in (a, b)"], "time_limit_max_s": 7200, "default": True}
    agent.prepare("PUT", "/v1/settings/account/p", {})
    fofoca("settings", "set", "account/p", "users=ana,ben", "cpu_max=1.5", "memory_max=2G", "shares=3")
    assert agent.asked[-1][2] == {
        "users": ["ana", "ben"], "cpu_milli_max": 1500, "memory_bytes_max": 2 << 30, "shares": 3,
    }  # fmt: skip
    agent.prepare("PUT", "/v1/settings/preemption/default", {})
    fofoca("settings", "set", "preemption/default", "mode=requeue", "run_min=5m", "patience=30s", "times_max=2")
    assert agent.asked[-1][2] == {"mode": "requeue", "run_min_s": 300, "patience_s": 30, "times_max": 2}
    for wrong in (("settings", "set", "gpu", "a=1"), ("settings", "set", "user/ana", "shares")):
        assert fofoca(*wrong).code == 2


def test_settings_are_shown_without_what_is_empty(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/settings", [{"kind": "licence", "name": "matlab", "count": 5, "users": []}])
    assert fofoca("settings", "show").out.splitlines()[1].split() == ["licence/matlab", "count=5"]


def test_a_reservation_has_a_start_and_an_end(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("PUT", "/v1/settings/reservation/night", {})
    fofoca("reserve", "night", "--nodes", "n1,n2", "--user", "ana", "--start", "now+1h", "--for", "30m")
    body = agent.asked[-1][2]
    assert (body["nodes"], body["users"], body["accounts"]) == (["n1", "n2"], ["ana"], [])
    assert body["end_unix_s"] - body["start_unix_s"] == pytest.approx(1800)
    assert body["start_unix_s"] == pytest.approx(time.time() + 3600, abs=60)


def test_a_dry_run_says_where_and_when(fofoca: Callable[..., Any], agent: Any) -> None:
    now = {"places": {"n2": 3}, "start_in_s": 0, "waiting": 0, "summary": "", "reasons": []}
    later = {"places": {}, "start_in_s": 90, "waiting": 2, "summary": "cpu is short", "reasons": []}
    agent.prepare("POST", "/v1/jobs?test_only=1", now, later)
    assert fofoca("submit", "--test-only", "--", "x").out == "would start now on n2 (3)\n"
    expected = "not before 90s from now; 2 jobs are in line before it; cpu is short\n"
    assert fofoca("submit", "--test-only", "--", "x").out == expected


def test_submit_names_account_partition_licences_and_extras(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("POST", "/v1/jobs", {"id": 1, "home": "n1"})
    fofoca("submit", "--account", "p", "--partition", "gpu", "--reservation", "night", "--nice", "5",
           "--licence", "matlab:2", "--licence", "maple", "--extra", "gpu:2", "--", "x")  # fmt: skip
    body = agent.asked[-1][2]
    assert body["queueing"] == {
        "nice": 5, "account": "p", "partition": "gpu", "reservation": "night", "licences": {"matlab": 2, "maple": 1},
    }  # fmt: skip
    assert body["extra"] == {"gpu": 2}
    assert fofoca("submit", "--licence", "a:b", "--", "x").code == 2
