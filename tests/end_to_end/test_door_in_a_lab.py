"""The request of a front end, as the hosting platform sends it, to any node of a real lab: a container answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from node.runtime.opening import lxc_obstacles
from tests.end_to_end.command_line import CommandLine

pytestmark = pytest.mark.skipif(bool(lxc_obstacles()), reason="; ".join(lxc_obstacles()))

HEADERS = {
    "Host": "shimoo.com.br",
    "X-User": "shimoo",
    "X-User-Domains": "shimoo.com.br",
    "X-Homedir": "ha-pool02/ha-pool02-fs02/shimoo/home",
    "X-Application": "demo;port=8080",
    "X-Instance": "1",
    "X-Memory-Limit": "256",
    "X-CPU-Limit": "25",
    "X-Idle-Timout": "5",
    "X-Backend": "b:u:shimoo:1",
    "X-Realhost": "shimoo.com.br",
}
CATALOGUE = """
[app.tomcat8]
options = { jdk = ["11", "8"] }
image = "busybox"
command = ["/bin/sh", "-c", '''mkdir -p $HOME/www && echo "$(hostname) jdk {jdk} home $HOME" >$HOME/www/index.html &&
  exec httpd -f -p 8080 -h $HOME/www''']
port = 8080
ready_path = "/"
"""
"""Busybox in the place of a real Tomcat: what is tried is the way from a front end's words to a container."""

REQUEST = """
import http.client, json, sys
door, headers = sys.argv[1], json.loads(sys.argv[2])
connection = http.client.HTTPConnection(door, timeout=60)
connection.request("GET", "/", headers=headers)
answer = connection.getresponse()
print(json.dumps([answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()]))
"""


@pytest.fixture(scope="module")
def lab(fofoca: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    catalogue = tmp_path_factory.mktemp("door") / "applications.toml"
    catalogue.write_text(CATALOGUE)
    fofoca.ok("lab", "up", "--nodes", 2, "--catalogue", catalogue)
    yield fofoca
    fofoca("lab", "down")


def ask(lab: CommandLine, door: str, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
    """Send a request from n1, as a front end."""
    done: Any = lab.ok("lab", "exec", "n1", "--", sys.executable, "-c", REQUEST, door, json.dumps(headers)).json
    status, fields, body = done
    return status, fields, body


def test_one_request_to_any_node_and_a_container_answers(lab: CommandLine) -> None:
    status, headers, body = ask(lab, "10.78.0.2:8650", HEADERS)
    assert (status, headers["x-fofoca-cold-start"]) == (200, "1"), (status, headers, body)
    assert 0 < int(headers["x-fofoca-start-ms"]) < 60_000
    assert "host shimoo.com.br" in body

    # From now on any door knows the way, by the wish or by the host alone, and nothing is started anew.
    for door in ("10.78.0.1:8650", "10.78.0.2:8650"):
        for wish in (HEADERS, {"Host": "Shimoo.com.br:80"}):
            status, headers, same = ask(lab, door, wish)
            assert (status, same) == (200, body)
            assert "x-fofoca-cold-start" not in headers

    # A front end that proxies by itself is told the address, and it is the container's.
    status, headers, _ = ask(lab, "10.78.0.1:8650", {**HEADERS, "X-Fofoca-Door": "answer"})
    assert status == 200
    status, headers, same = ask(lab, headers["x-backend-address"], {"Host": "shimoo.com.br"})
    assert (status, same) == (200, body)
    assert "via" not in headers


def test_the_hosting_platforms_request_word_for_word(lab: CommandLine) -> None:
    user = {"X-User": "slide", "X-Backend": "b:u:slide:1", "Host": "slide.com.br", "X-User-Domains": "slide.com.br"}
    words = {**HEADERS, **user, "X-Application": "tomcat8;jdk=8", "X-Homedir": "ha-pool02/ha-pool02-fs02/slide/home"}
    words["X-Idle-Timeout"] = words.pop("X-Idle-Timout")
    status, headers, body = ask(lab, "10.78.0.1:8650", words)
    assert (status, headers["x-fofoca-cold-start"]) == (200, "1"), (status, headers, body)
    assert body == "b-u-slide-1 jdk 8 home /home/slide\n"
    (job,) = [job for job in lab.ok("jobs", "--json").json if job["owner"] == "slide"]
    inside = lab("exec", job["id"], "--", "sh", "-c", "cat /home/slide/www/index.html; hostname").out
    assert inside.split("\n")[:2] == [body.strip(), "b-u-slide-1"]


def test_a_host_that_nobody_answers_for_is_told_so(lab: CommandLine) -> None:
    status, headers, body = ask(lab, "10.78.0.1:8650", {"Host": "nobody.example"})
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert "X-Backend" in body
