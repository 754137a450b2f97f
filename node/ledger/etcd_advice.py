"""What an etcd lacks for ledgers, what that means, and what to do: looks, and changes nothing."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from node.host.readiness import Finding, Severity, finding
from node.ledger.etcd_gateway import EtcdError, EtcdGateway, text

VERSION_MIN = (3, 4)
MEMBERS_MIN = 3
SPACE_BYTES = 1 << 30
REVISIONS_KEPT = 50_000
ROUND_TRIP_S = 0.02
ROUND_TRIPS = 5
COMPACTION = "start every member with --auto-compaction-mode=periodic --auto-compaction-retention=1h"


async def look(etcd: EtcdGateway, url: str) -> AsyncIterator[Finding]:
    """Look at one etcd; a finding for each thing that matters to ledgers."""
    try:
        status = await etcd.call("/v3/maintenance/status", {})
    except EtcdError as error:
        meaning = "homes with their ledger there take nothing new"
        yield Finding("etcd", Severity.ERROR, str(error), meaning, "see that etcd runs and that this node may reach it")
        return
    yield _version(str(status.get("version", "")))
    yield _transport(url)
    yield await _members(etcd)
    yield await _alarms(etcd)
    yield await _history(etcd, int(status["header"]["revision"]), int(status.get("dbSize", 0)))
    yield await _round_trip(etcd)


def _version(version: str) -> Finding:
    found = tuple(map(int, re.findall(r"\d+", version)[:2]))
    meaning = "its JSON gateway speaks another language"
    fix = "use etcd 3.4 or newer (on Debian: apt-get install etcd-server)"
    return finding("etcd version", version, found >= VERSION_MIN, Severity.ERROR, meaning, fix)


def _transport(url: str) -> Finding:
    parts = urlsplit(url)
    good = parts.scheme == "https" or parts.hostname in ("127.0.0.1", "::1", "localhost")
    meaning = "whoever hears it reads every job's command and environment"
    fix = "give etcd certificates, and set ledger.etcd_ca_file"
    return finding("etcd transport", parts.scheme, good, Severity.WARNING, meaning, fix)


async def _members(etcd: EtcdGateway) -> Finding:
    try:
        count = len((await etcd.call("/v3/cluster/member/list", {})).get("members", ()))
    except EtcdError as error:
        return Finding("etcd members", Severity.NOTE, str(error))
    meaning = "its loss is the loss of the ledgers in it" if count < MEMBERS_MIN else "one more bears no more losses"
    good = count >= MEMBERS_MIN and count % 2 == 1
    fix = "run three or five members, each on a host of its own"
    return finding("etcd members", str(count), good, Severity.WARNING, meaning, fix)


async def _alarms(etcd: EtcdGateway) -> Finding:
    try:
        answer = await etcd.call("/v3/maintenance/alarm", {"action": "GET"})
    except EtcdError as error:
        return Finding("etcd alarms", Severity.NOTE, str(error))
    names = sorted({str(each.get("alarm", "")) for each in answer.get("alarms", ())})
    meaning = "it takes no writes until the cause is gone and the alarm is disarmed"
    fix = "etcdctl compact REVISION, etcdctl defrag, etcdctl alarm disarm"
    return finding("etcd alarms", ", ".join(names) or "none", not names, Severity.ERROR, meaning, fix)


async def _history(etcd: EtcdGateway, revision: int, size_bytes: int) -> Finding:
    """Whether the first revisions are still there, though there were many."""
    whole = revision > REVISIONS_KEPT and await _has_revision(etcd, revision - REVISIONS_KEPT)
    found = f"revision {revision}, {size_bytes >> 20} MiB" + (", never compacted of late" if whole else "")
    meaning = "every version of every row is kept, until its space ends and it takes no writes"
    return finding("etcd history", found, not whole and size_bytes < SPACE_BYTES, Severity.WARNING, meaning, COMPACTION)


async def _has_revision(etcd: EtcdGateway, revision: int) -> bool:
    try:
        await etcd.call("/v3/kv/range", {"key": text(b"/"), "revision": str(revision), "count_only": True})
    except EtcdError:
        return False
    return True


async def _round_trip(etcd: EtcdGateway) -> Finding:
    """The best of a few reads that most members agree on: about what a commit costs without its sync."""
    best_s = 1e9
    try:
        for _ in range(ROUND_TRIPS):
            began = time.monotonic()
            await etcd.call("/v3/kv/range", {"key": text(b"/"), "count_only": True})
            best_s = min(best_s, time.monotonic() - began)
    except EtcdError as error:
        return Finding("etcd round trip", Severity.ERROR, str(error), "homes can't read their record")
    meaning = "every submission and every start waits for some of these"
    fix = "put etcd nearer to the nodes, on disks with fast syncs"
    return finding("etcd round trip", f"{best_s * 1000:.1f} ms", best_s < ROUND_TRIP_S, Severity.NOTE, meaning, fix)
