"""The web console in a real browser, against real agents with plain processes as tasks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.end_to_end.agents import Agents
from tests.end_to_end.browser import BROWSER, Browser
from tests.end_to_end.command_line import eventually

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium (on Debian: apt-get install chromium)")
MARKUP = "<img src=x onerror=\"document.title='taken over'\"><script>document.title='taken over'</script>"
PICTURES = os.environ.get("FOFOCA_TEST_PICTURES", "")
"""A folder for screenshots, for people who want to look."""


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    agents = Agents(tmp_path_factory.mktemp("agents"), 2, {"n1": "east", "n2": "west"}, sealed=True)
    try:
        agents.start()
        yield agents
    finally:
        agents.end()


@pytest.fixture(autouse=True)
def nothing_left(agents: Agents) -> Iterator[None]:
    """The two nodes have room for two jobs: what a failed test leaves would fail the next one, too."""
    yield
    agents.cancel_all()


def picture(browser: Browser, name: str) -> None:
    if PICTURES:
        browser.screenshot(Path(PICTURES) / f"{name}.png")


def log_in(browser: Browser, agents: Agents, view: str = "") -> None:
    browser.open(agents["n1"].url + "/" + (f"console/#/{view}" if view else ""))
    browser.until("!!document.getElementById('token')")
    for _ in range(3):  # the question may be dropped as another test makes a bridge
        browser.run("document.getElementById('token').value = ''")
        browser.run("document.getElementById('token').focus()")
        browser.type(agents["n1"].token)
        browser.press("Enter")
        with suppress(AssertionError):
            browser.until("!document.getElementById('token')", 15.0)
            return
    pytest.fail(f"no log-in came through; the page says: {browser.text()}")


def test_the_console_shows_the_cluster_and_steers_jobs(agents: Agents) -> None:
    n1 = agents["n1"]
    writes = "while :; do echo a line of output; echo '" + MARKUP + "'; sleep 0.2; done"
    runs = n1.submit(name="runs", argv=["sh", "-c", writes], cpu_milli=800)
    runs_too = n1.submit(name="fills", argv=["sleep", "600"], cpu_milli=800)
    eventually("both run", lambda: all(n1.task(job)["state"] == "running" for job in (runs, runs_too)))
    waits = n1.submit(name="waits", argv=["true"], cpu_milli=500, env={"X": MARKUP})
    ended = n1.submit(name="ended", argv=["sh", "-c", "exit 7"], cpu_milli=10)
    eventually("one ended", lambda: n1.task(ended)["state"] == "failed")
    with Browser() as browser:
        log_in(browser, agents)
        browser.until_text("2 nodes, 2 alive")
        assert browser.run("sessionStorage.length") == 1
        assert n1.token not in browser.run("location.href + document.cookie + JSON.stringify(localStorage)")
        assert browser.run("document.querySelectorAll('.tile').length") == 2
        assert browser.run("document.querySelectorAll('.tile.heat-8').length") == 2
        browser.click("a.tile[data-key=n2]")
        browser.until_text("part=west", ".card")
        picture(browser, "cluster")

        browser.run("location.hash = '#/queue'")
        browser.until_text("cpu", ".why")
        assert "waits" in browser.text("main")
        picture(browser, "queue")
        browser.press("/")
        browser.type("no such job")
        browser.until_text("None.")

        browser.run(f"location.hash = '#/jobs/{runs}'")
        browser.until_text("a line of output", "#log")
        browser.until_text("<img src=x onerror=", "#log")
        picture(browser, "job")
        browser.run(f"location.hash = '#/jobs/{ended}'")
        browser.until("document.querySelector('tbody')?.innerText.includes('7')")

        browser.run(f"location.hash = '#/jobs/{waits}'")
        browser.click("[data-act=hold]")
        browser.until("document.getElementById('dialog').open")
        browser.press("Escape")
        browser.until("!document.getElementById('dialog').open")
        assert not any(reason["kind"] == "hold" for reason in n1.get(f"/v1/jobs/{waits}/explain")["reasons"])
        browser.click("[data-act=hold]")
        browser.until("document.getElementById('dialog').open")
        browser.press("Tab")
        browser.press("Enter")
        browser.click("[data-act=release]")
        browser.click("#dialog[open] [value=yes]")
        browser.until("!!document.querySelector('[data-act=hold]')")
        browser.click("[data-act=cancel]")
        browser.click("#dialog[open] [value=yes]")
        browser.until_text("cancelled", "h1")
        assert n1.task(waits)["state"] == "cancelled"

        for view in ("images", "usage"):
            browser.click(f"nav a[href='#/{view}']")
            browser.until(f"document.querySelector('h1')?.innerText.toLowerCase() === '{view}'")
        browser.until_text("total")
        picture(browser, "usage")
        browser.click("[data-act=logOut]")
        browser.until("!!document.getElementById('token')")
        assert browser.run("sessionStorage.length") == 0
        assert "ended" not in browser.text()
        assert browser.complaints == [
            f"Failed to load resource: the server responded with a status of 401 () {n1.url}/v1/version"
        ]
    for job in (runs, runs_too):
        n1.cancel(job)


def test_what_users_wrote_stays_text_and_foreign_script_does_not_run(agents: Agents) -> None:
    """The API refuses a job name with markup, so a page that lies beside the real one answers with some."""
    lie = {"id": 1001, "name": MARKUP, "home": MARKUP, "owner": MARKUP, "state": MARKUP, "submitted_unix_s": 1.0}
    job = {**lie, "state": "running", "counts": {"running": 1}, "tasks": [{
        "index": 0, "state": "running", "node": MARKUP, "attempt": 1, "exit_code": None, "reason": MARKUP,
        "addresses": [MARKUP], "ports": [], "result": None}]}  # fmt: skip
    why = {"summary": MARKUP, "reasons": [{"kind": "short", "text": MARKUP}], "tasks": [], "position": None}
    answers = {
        "/v1/version": {"user": MARKUP, "role": "admin", "node": MARKUP, "cluster": MARKUP},
        "/v1/jobs": [{**lie, "tasks": {"running": 1, "pending": 1}}],
        "/v1/queue": {"leader": MARKUP, "jobs": []},
        "/v1/jobs/1001?first=0&count=100": job,
        "/v1/jobs/1001/explain": why,
    }
    script = f"""
        const answers = {json.dumps(answers)};
        const written = () => new Response({json.dumps(MARKUP)}, {{headers: {{'x-ended': '1'}}}});
        globalThis.fetch = async (path) =>
            Object.hasOwn(answers, path) ? new Response(JSON.stringify(answers[path])) : written();
    """
    with Browser(width=380, height=700, dark=True) as browser:
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        browser.open(agents["n1"].url + "/console/#/queue/running")
        browser.until_text("<img src=x")
        picture(browser, "narrow")
        assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "a narrow screen scrolls sideways"
        browser.run("location.hash = '#/jobs/1001'")
        browser.until_text("<img src=x", "#log")
        browser.until_text("<img src=x", ".card")
        assert browser.run("document.querySelectorAll('img').length") == 1  # the icon in the head of the page
        assert "taken over" not in browser.run("document.title").replace(MARKUP, "")
        # The policy is the second wall: markup that got in would be refused by it, and so would foreign addresses.
        assert browser.run("try { document.body.innerHTML = '<b>x</b>'; 'taken' } catch { 'refused' }") == "refused"
        broken = "const s = document.createElement('script'); s.textContent = 'x'; document.body.append(s)"
        assert browser.run(f"try {{ {broken}; 'taken' }} catch {{ 'refused' }}") == "refused"
