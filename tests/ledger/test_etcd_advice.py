"""What `fofoca node check` says of an etcd."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from node.host.readiness import Severity
from node.ledger import etcd_advice
from node.ledger.etcd_gateway import EtcdError

GOOD: dict[str, Any] = {
    "status": {"header": {"revision": "900000"}, "version": "3.4.23", "dbSize": str(20 << 20)},
    "list": {"members": [{}, {}, {}]},
    "alarm": {},
    "range": EtcdError("required revision has been compacted", 11),
}


class Etcd:
    def __init__(self, **answers: Any) -> None:
        self._answers = {**GOOD, **answers}

    async def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        kind = path.rpartition("/")[2]
        if kind == "range" and "revision" not in body:
            return {"header": {"revision": "1"}}
        answer = self._answers[kind]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


async def severities(url: str = "https://10.0.0.5:2379", **answers: Any) -> dict[str, Severity]:
    found = [each async for each in etcd_advice.look(Etcd(**answers), url)]  # type: ignore[arg-type]
    assert all(each.fix and each.meaning for each in found if each.severity in (Severity.WARNING, Severity.ERROR))
    return {each.name.removeprefix("etcd "): each.severity for each in found if each.severity is not Severity.OK}


async def test_a_good_etcd_is_fine() -> None:
    assert await severities() == {}


@pytest.mark.parametrize(
    ("lacks", "name", "severity"),
    [
        ({"status": EtcdError("refused")}, "etcd", Severity.ERROR),
        ({"status": {**GOOD["status"], "version": "3.3.25"}}, "version", Severity.ERROR),
        ({"list": {"members": [{}]}}, "members", Severity.WARNING),
        ({"list": {"members": [{}, {}, {}, {}]}}, "members", Severity.WARNING),
        ({"alarm": {"alarms": [{"alarm": "NOSPACE"}]}}, "alarms", Severity.ERROR),
        ({"range": {"kvs": []}}, "history", Severity.WARNING),
        ({"status": {**GOOD["status"], "dbSize": str(3 << 30)}}, "history", Severity.WARNING),
    ],
)
async def test_what_it_lacks_is_named_with_what_that_means_and_what_to_do(
    lacks: dict[str, Any], name: str, severity: Severity
) -> None:
    assert await severities(**lacks) == {name: severity}


async def test_a_young_etcd_need_not_have_compacted_itself() -> None:
    young = {**GOOD["status"], "header": {"revision": "49000"}}
    assert await severities(status=young, range={"kvs": []}) == {}


@pytest.mark.parametrize(("url", "good"), [("http://10.0.0.5:2379", False), ("http://127.0.0.1:2379", True)])
async def test_plain_http_is_for_this_machine_alone(url: str, good: bool) -> None:
    assert await severities(url) == ({} if good else {"transport": Severity.WARNING})
