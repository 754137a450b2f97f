"""Sites in a real lab: one container however many ask, asleep when nobody does, there while its node drains."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.runtime.opening import lxc_obstacles
from tests.end_to_end.command_line import CommandLine, eventually, stop

CLIENT = str(Path(__file__).with_name("door_client.py"))
DOORS = [f"10.78.0.{number}:8650" for number in (1, 2, 3)]

pytestmark = pytest.mark.skipif(bool(lxc_obstacles()), reason="; ".join(lxc_obstacles()))


@pytest.fixture(scope="module")
def lab(fofoca: CommandLine) -> Iterator[CommandLine]:
    fofoca.ok("lab", "up", "--nodes", 3)
    yield fofoca
    fofoca("lab", "down")


def client(lab: CommandLine, *words: object, node: str = "n1") -> Counter[str]:
    return Counter(lab.ok("lab", "exec", node, "--", sys.executable, CLIENT, *words).json)


def site(lab: CommandLine, key: str) -> dict[str, Any]:
    found: dict[str, Any] = lab.ok("site", "show", key, "--json").json
    return found


def site_at(lab: CommandLine, node: str, key: str) -> dict[str, Any]:
    """The site as this node's API tells it."""
    shown: dict[str, Any] = lab.ok("lab", "exec", node, "--", "fofoca", "site", "show", key, "--json").json
    return shown


def wish(lab: CommandLine, key: str, **fields: object) -> dict[str, Any]:
    """POST /v1/sites as a front end that speaks JSON; the site once it is awake."""
    user = key.split(":")[2]
    body = {"backend": key, "user": user, "application": "demo;port=8080", "domains": [f"{user}.br"],
            "memory_mib": 16, "cpu_percent": 10, **fields}  # fmt: skip
    script = (
        "import json,os,sys,urllib.request as u;"
        "r=u.Request(os.environ['FOFOCA_API']+'/v1/sites?wait_s=40',sys.argv[1].encode(),"
        "{'Authorization':'Bearer '+os.environ['FOFOCA_TOKEN']});print(u.urlopen(r).read().decode())"
    )
    made: dict[str, Any] = lab.ok("lab", "exec", "n2", "--", sys.executable, "-c", script, json.dumps(body)).json
    assert made["phase"] == "awake", made
    return made


def jobs_of(lab: CommandLine, owner: str) -> list[dict[str, Any]]:
    return [job for job in lab.ok("jobs", "--json").json if job["owner"] == owner]


def test_a_hundred_requests_at_three_doors_start_one_container(lab: CommandLine) -> None:
    answers = client(lab, "many", 100, "b:u:many:1", *DOORS)
    assert len(answers) == 1, answers
    ((answer, count),) = answers.items()
    assert count == 100
    assert answer.startswith("200 hello from b-u-many-1\n"), answer
    assert "site b:u:many:1\ninstance 1\nnode n" in answer
    assert len(jobs_of(lab, "many")) == 1


def test_an_idle_site_is_frozen_thawed_by_a_request_and_stopped_later(lab: CommandLine) -> None:
    key = "b:u:idle:1"
    job = wish(lab, key, idle_minutes=0.02)["job"]
    eventually("frozen", lambda: site(lab, key)["phase"] == "frozen")
    (answer,) = client(lab, "many", 1, "idle.br", DOORS[2])
    assert answer.startswith("200 hello")
    eventually("frozen again", lambda: site(lab, key)["phase"] == "frozen")
    thawed = wish(lab, key, idle_minutes=0.02, frozen_minutes=0.02)
    assert thawed["job"] == job, "it was thawed, not started anew"
    eventually("asleep", lambda: site(lab, key)["phase"] == "asleep")
    assert lab.job(job)["state"] == "cancelled"
    assert wish(lab, key)["job"] != job


def test_a_container_says_that_its_own_site_is_busy_and_no_others(lab: CommandLine) -> None:
    job, other = wish(lab, "b:u:busy:1")["job"], wish(lab, "b:u:busy:2")["key"]
    script = (
        "printf 'POST /v1/sites/%s/busy HTTP/1.1\\r\\nContent-Length: 14\\r\\n\\r\\n{\"for_s\": 600}' $KEY | "
        "nc -w 25 $(ip route | awk '/^default/ {print $3}') 8651"
    )
    assert "HTTP/1.1 204" in lab("exec", job, "--", "sh", "-c", f"KEY=$FOFOCA_SITE; {script}").out
    assert "HTTP/1.1 404" in lab("exec", job, "--", "sh", "-c", f"KEY={other}; {script}").out


def test_no_request_fails_while_the_node_of_a_site_drains(lab: CommandLine, tmp_path: Path) -> None:
    key, done = "b:u:drain:1", tmp_path / "done"
    old = wish(lab, key)
    door = next(door for number, door in enumerate(DOORS, start=1) if f"n{number}" != old["node"])
    asking = lab.start("lab", "exec", "n2", "--", sys.executable, CLIENT, "loop", key, door, done)
    try:
        eventually("the first answer", (tmp_path / "asking").exists)
        lab.ok("drain", old["node"])
        moved = eventually("moved", lambda: (now := site(lab, key))["node"] not in ("", old["node"]) and now)
        eventually("the old one ended", lambda: lab.job(old["job"])["state"] == "cancelled")
        done.touch()
        out, err = asking.communicate(timeout=30)
    finally:
        stop(asking)
        lab.ok("uncordon", old["node"])
    answers: dict[str, int] = json.loads(out)
    assert all(answer.startswith("200 ") for answer in answers), (answers, err)
    nodes = {answer.split("node ")[1].split()[0] for answer in answers}
    assert nodes == {old["node"], moved["node"]}, answers


def test_a_killed_agent_takes_its_sites_over_again(lab: CommandLine) -> None:
    key = "b:u:agent:1"
    made = wish(lab, key)
    door = next(door for number, door in enumerate(DOORS, start=1) if f"n{number}" != made["keeper"])
    before = client(lab, "many", 1, "agent.br", door)
    lab.ok("lab", "kill", made["keeper"])
    assert client(lab, "many", 1, "agent.br", door) == before, "containers outlive agents, and doors know of them"
    lab.ok("lab", "start", made["keeper"])
    eventually("known again", lambda: '"awake"' in lab("site", "show", key, "--json").out)
    again = wish(lab, key, idle_minutes=0.02)
    assert (again["job"], again["keeper"]) == (made["job"], made["keeper"])
    eventually("frozen", lambda: site(lab, key)["phase"] == "frozen")
    assert client(lab, "many", 1, "agent.br", door) == before
    lab.ok("site", "rm", key)
    assert lab("site", "show", key).code != 0


def test_no_request_fails_when_the_host_of_a_site_is_lost(lab: CommandLine, tmp_path: Path) -> None:
    made = next(made for number in range(1, 20) if (made := wish(lab, f"b:u:host{number}:1"))["keeper"] != made["node"])
    key, lost, done = made["key"], made["node"], tmp_path / "done"
    eventually("a second copy of its image", lambda: len(lab.ok("image", "ls", "--json").json[0]["nodes"]) > 1)
    door = next(door for number, door in enumerate(DOORS, start=1) if f"n{number}" not in (lost, made["keeper"]))
    asking = lab.start("lab", "exec", f"n{door[8]}", "--", sys.executable, CLIENT, "loop", key, door, done)
    try:
        eventually("the first answer", (tmp_path / "asking").exists)
        lab.ok("lab", "kill", "--host", lost)
        eventually("up elsewhere", lambda: site_at(lab, f"n{door[8]}", key)["node"] not in ("", lost))
        done.touch()
        out, err = asking.communicate(timeout=30)
    finally:
        stop(asking)
        lab.ok("lab", "start", lost)
    answers: dict[str, int] = json.loads(out)
    assert all(answer.startswith("200 ") for answer in answers), (answers, err)
