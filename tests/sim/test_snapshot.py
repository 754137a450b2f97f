"""The live cluster's nodes become a cluster file that replays read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from node.cli.sim_snapshot import snapshot
from sim.cluster import read_cluster
from sim.errors import BadValue
from sim.snapshot import format_snapshot


def node(name: str, cpu_milli: int = 1500, state: str = "alive", **labels: str) -> dict[str, Any]:
    amounts = {"cpu_milli": cpu_milli, "memory_bytes": 3 << 30}
    return {"name": name, "state": state, "allocatable": amounts, "labels": labels}


RACK = 'a "quoted" rack'
NODES = [node("n1", rack=RACK), node("n2", rack=RACK), node("n3", 4000), node("n4", state="left")]


@pytest.fixture
def api() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(NODES if self.path == "/v1/nodes" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_nodes_that_are_alike_are_one_entry_and_are_read_again_as_they_were(tmp_path: Path, api: str) -> None:
    file = tmp_path / "live.toml"
    result = CliRunner().invoke(snapshot, ["-o", str(file), "--node-api", api])
    assert result.exit_code == 0, result.output
    assert "left out, not alive: n4" in result.output
    first, second = read_cluster(file).types
    assert (first.name, first.count, first.cpu_milli, first.memory_bytes) == ("n1", 2, 1500, 3 << 30)
    assert first.labels == {"rack": RACK}
    assert (second.name, second.count, second.cpu_milli) == ("n3", 1, 4000)


def test_a_cluster_without_living_nodes_is_refused() -> None:
    with pytest.raises(BadValue, match="nodes"):
        format_snapshot([node("n1", state="failed")])
