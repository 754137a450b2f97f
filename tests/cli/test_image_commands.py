"""`fofoca image`: what people see of images."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from node.caller import Answer

Fofoca = Callable[..., Any]
NOW_S = int(time.time())


def copy(node: str, **changes: Any) -> dict[str, Any]:
    known = {"node": node, "percent": 100, "imported_unix_s": NOW_S - 4 * 3600, "last_used_unix_s": NOW_S - 60.0}
    return {**known, "fetched": False, "uses": 0, "used_by": [], **changes}


def image(name: str, *copies: dict[str, Any], **changes: Any) -> dict[str, Any]:
    nodes = [each["node"] for each in copies if each["percent"] == 100]
    document = {"name": name, "tag": "1" if name else "", "digest": "sha256:" + "a" * 64, "size_bytes": 3 << 20}
    return {**document, "nodes": nodes, "copies": list(copies), "config": {}, **changes}


def lines(answer: str) -> list[list[str]]:
    return [line.split() for line in answer.splitlines()]


def test_images_are_listed_with_who_has_them_and_how_far_they_are_on_their_way(fofoca: Fofoca, agent: Any) -> None:
    coming = copy("n3", percent=40, imported_unix_s=0)
    agent.prepare("GET", "/v1/images", [image("app", copy("n1"), copy("n2", uses=2), coming), image("", copy("n1"))])
    rows = lines(fofoca("image", "ls").out)
    assert rows[0] == ["IMAGE", "DIGEST", "SIZE", "AGE", "USES", "NODES"]
    assert rows[1] == ["app:1", "sha256:aaaaaaaaaaaa", "3M", "4h", "2", "n1,", "n2,", "n3", "(fetching", "40", "%)"]
    assert rows[2][:2] == ["(no", "name)"]


def test_an_image_is_shown_with_its_users_and_how_it_is_run(fofoca: Fofoca, agent: Any) -> None:
    config = {"entrypoint": ["/bin/app", "a b"], "env": [["PATH", "/bin"], ["A", "1"]], "user": "www"}
    users = [f"{number}.0.1" for number in range(12)]
    shown = image("app", copy("n1", uses=12, used_by=users), copy("n2", fetched=True), config=config)
    agent.prepare("GET", "/v1/images/app", [shown])
    out = fofoca("image", "show", "app").out
    assert "entrypoint: /bin/app 'a b'\n" in out
    assert "env: PATH=/bin A=1\n" in out
    assert "user: www\n" in out
    assert "0.0.1, 1.0.1, 2.0.1" in out
    assert "9.0.1, ..." in out
    assert "11.0.1" not in out
    assert [row[:2] for row in lines(out)][-1] == ["n2", "fetched"]


def test_a_build_tells_its_steps_and_prints_the_image(fofoca: Fofoca, agent: Any) -> None:
    steps = [{"progress": "I: one"}, {"progress": "I: two"}, {"image": image("deb", copy("n1"))}]
    body = b"".join(json.dumps(step).encode() + b"\n" for step in steps)
    agent.prepare("POST", "/v1/images/deb:1/build", Answer(200, {}, body))
    done = fofoca("image", "build", "deb:1", "--suite", "bookworm", "--include", "curl,g++", "--include", "tini")
    assert done.code == 0
    assert done.err == "I: one\nI: two\n"
    assert done.out.startswith("deb:1  sha256:aaa")
    assert agent.asked[0][2] == {"suite": "bookworm", "include": ["curl", "g++", "tini"]}


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (b'{"problem": {"detail": "no such suite"}}\n', "no such suite"),
        (b'{"progress": "I: cut', "ended its answer early"),
    ],
)
def test_a_build_that_fails_says_why(fofoca: Fofoca, agent: Any, last: bytes, said: str) -> None:
    agent.prepare("POST", "/v1/images/deb/build", Answer(200, {}, b'{"progress": "I: one"}\n' + last))
    done = fofoca("image", "build", "deb", "--suite", "bookworm")
    assert done.code == 1
    assert done.err.startswith("I: one\nfofoca: deb was not built: ")
    assert said in done.err


def test_a_prune_says_what_went_and_how_much_it_was(fofoca: Fofoca, agent: Any) -> None:
    gone = {"names": ["app:1"], "copies": [{"node": "n2", "digest": "sha256:" + "b" * 64, "size_bytes": 3 << 20}]}
    agent.prepare("DELETE", "/v1/images?unused_for_s=604800&keep_last=2&dry_run=yes", gone)
    done = fofoca("image", "prune", "--unused-for", "7d", "--keep-last", "2", "--dry-run")
    assert done.out == "app:1\nsha256:bbbbbbbbbbbb on n2  3M\n"
    assert done.err == "3M would be free again\n"
    agent.prepare("DELETE", "/v1/images?unused_for_s=0&keep_last=0&dry_run=no", {"names": [], "copies": []})
    assert fofoca("image", "prune").err == "0 is free again\n"
    assert fofoca("image", "prune", "--unused-for", "soon").code == 2
