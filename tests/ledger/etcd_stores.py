"""An etcd in memory with the part of the gateway that the ledger uses, and a real one on loopback (no test module)."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import trio

from node.ledger.etcd_gateway import EtcdError

ETCD = shutil.which("etcd")
OPERATIONS_MAX = 128
REQUEST_BYTES_MAX = 3 << 19
START_TIMEOUT_S = 30.0


def _bytes(body: Mapping[str, Any], name: str) -> bytes:
    return base64.b64decode(body.get(name, ""))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class FakeEtcd:
    """Keys and leases in memory, with etcd's bounds. `before` may raise EtcdError, `after` too: then it happened."""

    def __init__(self) -> None:
        self.keys: dict[bytes, tuple[bytes, str]] = {}
        self.leases: dict[str, float] = {}
        self.lasts_s: dict[str, int] = {}
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.before: Callable[[str, Mapping[str, Any]], None] = lambda path, body: None
        self.after: Callable[[str, Mapping[str, Any]], None] = lambda path, body: None
        self._leases = 0

    async def close(self) -> None:
        pass

    async def call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.before(path, body)
        answer = self.carry_out(path, body)
        self.after(path, body)
        return answer

    def carry_out(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.calls.append((path, body))
        self._expire()
        kind = path.rpartition("/")[2]
        return {"txn": self._txn, "range": self._range, "grant": self._grant, "keepalive": self._keepalive,
                "revoke": self._revoke}[kind](body)  # fmt: skip

    def names(self, part: str = "") -> list[str]:
        return sorted(key.decode() for key in self.keys if part in key.decode())

    def _expire(self) -> None:
        now = trio.current_time()
        gone = {lease for lease, end_s in self.leases.items() if end_s <= now}
        self.leases = {lease: end_s for lease, end_s in self.leases.items() if lease not in gone}
        self.keys = {key: each for key, each in self.keys.items() if each[1] not in gone}

    def _txn(self, body: Mapping[str, Any]) -> dict[str, Any]:
        branches = [body.get(name, []) for name in ("compare", "success", "failure")]
        if max(map(len, branches)) > OPERATIONS_MAX:
            raise EtcdError("etcdserver: too many operations in txn request", 3)
        values = sum(len(_bytes(each["requestPut"], "value")) for each in body["success"] if "requestPut" in each)
        if values > REQUEST_BYTES_MAX:
            raise EtcdError("etcdserver: request is too large", 3)
        _refuse_twice(body["success"])
        succeeded = all(self._holds(each) for each in body.get("compare", []))
        done = [self._operate(each) for each in body["success" if succeeded else "failure"]]
        return {"succeeded": True, "responses": done} if succeeded else {"responses": done}

    def _holds(self, condition: Mapping[str, Any]) -> bool:
        found = self.keys.get(_bytes(condition, "key"))
        if condition["target"] == "CREATE":
            return found is None
        return found is not None and found[0] == _bytes(condition, "value")

    def _operate(self, operation: Mapping[str, Any]) -> dict[str, Any]:
        if "requestPut" in operation:
            body = operation["requestPut"]
            lease = body.get("lease", "")
            if lease and lease not in self.leases:
                raise EtcdError("etcdserver: requested lease not found", 5)
            self.keys[_bytes(body, "key")] = (_bytes(body, "value"), lease)
            return {"response_put": {}}
        if "requestDeleteRange" in operation:
            for key in self._within(operation["requestDeleteRange"]):
                del self.keys[key]
            return {"response_delete_range": {}}
        return {"response_range": self._range(operation["requestRange"])}

    def _within(self, body: Mapping[str, Any]) -> list[bytes]:
        begin, end = _bytes(body, "key"), _bytes(body, "range_end")
        return sorted(key for key in self.keys if (begin <= key < end if end else key == begin))

    def _range(self, body: Mapping[str, Any]) -> dict[str, Any]:
        found = self._within(body)
        shown = found[: int(body.get("limit", "0")) or None]
        rows = [{"key": _text(key), "value": _text(self.keys[key][0])} for key in shown]
        return {"header": {"revision": "1"}, "kvs": rows, "more": len(shown) < len(found)}

    def _grant(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self._leases += 1
        self.lasts_s[str(self._leases)] = int(body["TTL"])
        self.leases[str(self._leases)] = trio.current_time() + int(body["TTL"])
        return {"ID": str(self._leases), "TTL": body["TTL"]}

    def _keepalive(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if body["ID"] not in self.leases:
            return {"result": {"ID": body["ID"]}}
        lasts_s = self.lasts_s[body["ID"]]
        self.leases[body["ID"]] = trio.current_time() + lasts_s
        return {"result": {"ID": body["ID"], "TTL": str(lasts_s)}}

    def _revoke(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.leases[body["ID"]] = 0.0
        self._expire()
        return {}


def _refuse_twice(operations: list[Mapping[str, Any]]) -> None:
    """As etcd does: no key is set twice, or set and removed, in one transaction."""
    set_keys = [_bytes(each["requestPut"], "key") for each in operations if "requestPut" in each]
    if len(set_keys) != len(set(set_keys)):
        raise EtcdError("etcdserver: duplicate key given in txn request", 3)
    for each in operations:
        if "requestDeleteRange" in each:
            body = each["requestDeleteRange"]
            begin, end = _bytes(body, "key"), _bytes(body, "range_end")
            if any(begin <= key < end if end else key == begin for key in set_keys):
                raise EtcdError("etcdserver: duplicate key given in txn request", 3)


class RealEtcd:
    """One etcd of the test's own, on loopback, its data in the test's folder."""

    def __init__(self, folder: Path, tls: Sequence[str] = ()) -> None:
        """`tls`: etcd's options for certificates; with them its URL is https, and it is healthy once it says so."""
        self.folder = folder
        self._tls = tls
        self.client_port, self._peer_port = _free_ports(2)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.client_port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert ETCD is not None
        peer = f"http://127.0.0.1:{self._peer_port}"
        with (self.folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [ETCD, "--name", "test", "--data-dir", str(self.folder / "etcd"), "--log-outputs", "stderr",
                 "--listen-client-urls", self.url, "--advertise-client-urls", self.url, "--listen-peer-urls", peer,
                 "--initial-advertise-peer-urls", peer, "--initial-cluster", f"test={peer}", *self._tls],
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._healthy():
            assert time.monotonic() < deadline, (self.folder / "etcd.log").read_text()[-3000:]
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=20)
            self._process = None

    def _healthy(self) -> bool:
        if self._tls:
            return "serving client" in (self.folder / "etcd.log").read_text()
        try:
            return httpx.get(self.url + "/health", timeout=2, trust_env=False).json().get("health") == "true"
        except (httpx.HTTPError, ValueError):
            return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
