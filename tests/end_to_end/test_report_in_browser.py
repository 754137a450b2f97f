"""The report draws itself in a real browser, offline, without a complaint in its console."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sim import Demand, NodeSpec, batch_report, lublin, place, placement_report, replay_jobs

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT_S = 60


def parts_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    parts: list[dict[str, Any]] = json.loads(found[1])["parts"]
    return parts


@pytest.mark.skipif(BROWSER is None, reason="no chromium (on Debian: apt-get install chromium)")
def test_a_report_opens_offline_and_draws_every_part(tmp_path: Path) -> None:
    assert BROWSER is not None
    work = lublin(jobs=300, processors=64, seed=1, load=0.8)
    work.name = "</script><script>document.title='taken over'</script>"
    page = tmp_path / "report.html"
    html = batch_report([replay_jobs(work, 64, policy) for policy in ("easy", "sjbf")], title=work.name)
    placed = placement_report([place([NodeSpec("n1", 4000, 4096)], [Demand(1000, 1024)], "best-fit")], "")
    heat = next(part for part in parts_of(placed) if part["kind"] == "heat")
    page.write_text(html.replace('"parts":[', f'"parts":[{json.dumps(heat)},', 1))
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--host-resolver-rules=MAP * 0.0.0.0",
    ]
    done = subprocess.run(
        [BROWSER, *words, f"--user-data-dir={tmp_path}/profile", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    assert "<title>taken over" not in done.stdout
    assert done.stdout.count("<svg") == 9
    assert "bounded slowdown, mean" in done.stdout
