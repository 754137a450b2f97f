"""`fofoca node check --config` looks at the etcd that an agent would use."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from node.cli.commands.check import node


def findings(path: Path, ledger: str) -> dict[str, str]:
    path.write_text(f"[ledger]\n{ledger}")
    ran = CliRunner().invoke(node, ["check", "--json", "--config", str(path)])
    return {each["name"]: each["severity"] for each in json.loads(ran.output) if each["name"].startswith("etcd")}


def test_an_etcd_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert findings(tmp_path / "c", 'kind = "etcd"\netcd_urls = ["http://127.0.0.1:1"]\n') == {"etcd": "error"}


def test_who_uses_none_is_told_nothing_of_it(tmp_path: Path) -> None:
    assert findings(tmp_path / "c", 'kind = "sqlite"\n') == {}
