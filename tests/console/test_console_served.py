"""The console's files: right types, a strict policy, cheap repeats, and no way out of their folder."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from starlette.routing import Router

from node.console import PREFIX, routes
from node.console.serving import PAGE, TYPES

FILES = sorted(path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file())
SCRIPTS = [name for name in FILES if name.endswith(".js")]


def client() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=Router(list(routes())))
    return httpx.AsyncClient(transport=transport, base_url="http://n")


@pytest.mark.parametrize("name", FILES)
async def test_every_file_has_its_type_and_the_policy(name: str) -> None:
    async with client() as browser:
        answer = await browser.get(PREFIX + name)
    assert answer.status_code == 200
    assert answer.content == (PAGE / name).read_bytes()
    assert answer.headers["content-type"] == TYPES[Path(name).suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in answer.headers["content-security-policy"]


async def test_the_console_is_the_page_at_the_top() -> None:
    async with client() as browser:
        for path in ("/", "/console"):
            answer = await browser.get(path)
            assert (answer.status_code, answer.headers["location"]) == (307, PREFIX)
        assert (await browser.get(PREFIX)).content == (PAGE / "index.html").read_bytes()


async def test_what_a_browser_has_is_not_sent_again() -> None:
    async with client() as browser:
        first = await browser.get(PREFIX + "main.js")
        tag = first.headers["etag"]
        for known in (tag, f'"other", W/{tag}'):
            again = await browser.get(PREFIX + "main.js", headers={"if-none-match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        changed = await browser.get(PREFIX + "main.js", headers={"if-none-match": '"other"'})
        assert changed.status_code == 200
        assert (await browser.head(PREFIX + "main.js")).headers["etag"] == tag


@pytest.mark.parametrize(
    "path",
    [
        *("../serving.py", "%2e%2e/serving.py", "..%2fserving.py", "views/../../serving.py", "..\\serving.py"),
        *("/etc/passwd", "%2fetc%2fpasswd", "views", "views/", "main.js%00", "index.html/"),
    ],
)
async def test_no_path_leads_out_of_the_folder(path: str) -> None:
    async with client() as browser:
        answer = await browser.request("GET", httpx.URL("http://n", raw_path=(PREFIX + path).encode()))
    assert answer.status_code == 404


async def test_files_are_only_read() -> None:
    async with client() as browser:
        assert (await browser.post(PREFIX + "main.js")).status_code == 405


async def test_the_api_serves_the_console_without_a_token_and_nothing_else(fake_node) -> None:
    async with fake_node.client(user=None) as browser:
        assert (await browser.get(PREFIX)).status_code == 200
        assert (await browser.get("/v1/jobs")).status_code == 401


def test_the_page_loads_nothing_foreign_and_makes_no_markup() -> None:
    for name in FILES:
        text = (PAGE / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", text), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), name
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"\son[a-z]+=|\sstyle=|<script(?! type=\"module\" src=)|<style", page)


def test_every_script_imports_files_that_are_there() -> None:
    for name in SCRIPTS:
        for wanted in re.findall(r"from '(\.[^']+)'", (PAGE / name).read_text()):
            assert ((PAGE / name).parent / wanted).is_file(), f"{name} imports {wanted}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_small_files_that_say_what_they_are(name: str) -> None:
    lines = (PAGE / name).read_text().splitlines()
    assert lines[0].startswith("// ")
    assert len(lines) < 250
    assert max(map(len, lines)) <= 200
