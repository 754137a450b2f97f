"""fofoca site and app: one line a site, one clear line for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.caller import Answer

SITE = {
    "key": "b:u:ana:1", "owner": "ana", "phase": "awake", "hosts": ["ana.br", "www.ana.br"],
    "application": "demo;port=8080", "keeper": "n1", "job": 1001, "node": "n2", "address": "10.77.2.5", "port": 8080,
    "weight": 1, "reason": "", "retry_s": 0.0, "idle_for_s": 75.0, "open": 0,
}  # fmt: skip
APP = {
    "name": "demo", "about": "a web server", "image": "busybox", "port": "{port}", "options": {"port": ["8080", "*"]},
    "memory": "16M", "cpu": "50m", "idle": "5m", "frozen": "15m", "command": ["sh", "-c", "serve it"], "env": {},
}  # fmt: skip


def test_sites_are_listed_and_missing_keepers_told(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/sites", [SITE])
    result = fofoca("site", "ls", "--owner", "ana")
    head, line = result.out.splitlines()
    assert head.split() == ["SITE", "OWNER", "PHASE", "APPLICATION", "NODE", "ADDRESS", "OPEN", "IDLE", "HOSTS"]
    assert line.split()[:6] == ["b:u:ana:1", "ana", "awake", "demo;port=8080", "n2", "10.77.2.5:8080"]
    assert agent.asked == [("GET", "/v1/sites", {"owner": "ana"})]
    agent.prepare("GET", "/v1/sites", Answer(200, {"x-fofoca-missing": "n3,n4"}, b"[]"))
    result = fofoca("site", "ls")
    assert (result.code, result.err) == (1, "fofoca: sites kept by n3, n4 are missing here: no answer\n")


def test_a_site_is_shown_without_what_says_nothing(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/sites/b:u:ana:1", SITE)
    lines = fofoca("site", "show", "b:u:ana:1").out.splitlines()
    assert "hosts:       ana.br, www.ana.br" in lines
    assert not any(line.startswith(("reason", "retry_s")) for line in lines)


def test_waking_prints_where_it_answers_or_why_not(fofoca: Callable[..., Any], agent: Any) -> None:
    path = "/v1/sites/b:u:ana:1/wake?wait_s=30"
    agent.prepare("POST", path, SITE)
    assert fofoca("site", "wake", "b:u:ana:1").out == "10.77.2.5:8080\n"
    agent.prepare("POST", path, {**SITE, "phase": "broken", "reason": "nothing answers at port 8080"})
    result = fofoca("site", "wake", "b:u:ana:1")
    assert (result.code, result.err) == (1, "fofoca: b:u:ana:1 is broken: nothing answers at port 8080\n")


def test_sites_are_ended_or_removed_and_keys_stay_one_part_of_the_path(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("POST", "/v1/sites/b:u:ana:1/sleep", SITE)
    agent.prepare("DELETE", "/v1/sites/b:u:ana:1", SITE)
    assert fofoca("site", "sleep", "b:u:ana:1").code == fofoca("site", "rm", "b:u:ana:1").code == 0
    result = fofoca("site", "rm", "../jobs/1")
    assert agent.asked[-1][1] == "/v1/sites/..%2Fjobs%2F1"
    assert result.code != 0


def test_applications_are_listed_and_shown(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/applications", [APP])
    assert "port=8080|*" in fofoca("app", "list").out
    shown = fofoca("app", "show", "demo").out.splitlines()
    assert "memory:          16M" in shown
    assert "command:         sh -c 'serve it'" in shown
    assert not any(line.startswith("env:") for line in shown)
    result = fofoca("app", "show", "tomcat")
    assert (result.code, result.err) == (2, "fofoca: no application 'tomcat'; there are demo\n")


def test_a_catalogue_is_checked_without_a_node(fofoca: Callable[..., Any], tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('[app.web]\nimage = "busybox"\nport = 80\n')
    bad.write_text('[app.web]\nimage = "busybox"\nport = 80\nready_path = "no slash"\n')
    assert fofoca("app", "check", str(good)).out.endswith("is good: demo, web\n")
    result = fofoca("app", "check", str(bad))
    assert result.code == 2
    assert "app.web.ready_path" in result.err
