"""The report draws itself in a real browser, offline, without a complaint in its console."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sim import batch_report, lublin, replay_jobs

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT_S = 60


@pytest.mark.skipif(BROWSER is None, reason="no chromium (on Debian: apt-get install chromium)")
def test_a_report_opens_offline_and_draws_every_part(tmp_path: Path) -> None:
    assert BROWSER is not None
    work = lublin(jobs=300, processors=64, seed=1, load=0.8)
    work.name = "</script><script>document.title='taken over'</script>"
    page = tmp_path / "report.html"
    page.write_text(batch_report([replay_jobs(work, 64, policy) for policy in ("easy", "sjbf")], title=work.name))
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
    assert done.stdout.count("<svg") >= 6
    assert "bounded slowdown, mean" in done.stdout
