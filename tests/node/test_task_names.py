"""Names of tasks: who sees which, and the little of DNS that carries them."""

from __future__ import annotations

import struct

import pytest
import trio

from node.host.dns_wire import AAAA, HEADER, NO_ERROR, NO_NAME, SERVER_FAILED, A, answer, parse
from node.resolver import Resolver, upstream_of
from node.task_names import Asker, Resident, Wanted, find
from node.task_names import parse as parse_name

ANN = [Resident("ann", 7, index, (f"10.0.0.{index}", f"fd00::{index}")) for index in (1, 2)]
BOB = Resident("bob", 7, 1, ("10.0.0.9",))
ASKERS = {"10.0.0.1": Asker("ann", 7), "10.0.0.9": Asker("bob", 7)}


def query(name: str, kind: int = A) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    return HEADER.pack(99, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!HH", kind, 1)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("task-3.job-7.fofoca", Wanted(7, 3)),
        ("rank-3.job-7.fofoca", Wanted(7, 3)),
        ("job-7.fofoca", Wanted(7, None)),
        ("job7-3.fofoca", Wanted(7, 3)),
        ("job7-3.job-7.fofoca", Wanted(7, 3)),
        ("job7-3.job-8.fofoca", None),
        ("job7.job-7.fofoca", None),
        ("task-3.job-7.fofoca.org", None),
        ("task-x.job-7.fofoca", None),
        ("fofoca", None),
    ],
)
def test_a_name_means_a_task_a_job_or_nothing(name: str, wanted: Wanted | None) -> None:
    assert parse_name(name) == wanted


def test_an_owner_sees_their_own_tasks_alone() -> None:
    assert find(Wanted(7, 1), "ann", [*ANN, BOB]) == ["10.0.0.1", "fd00::1"]
    assert find(Wanted(7, None), "bob", [*ANN, BOB]) == ["10.0.0.9"]
    assert find(Wanted(7, 2), "bob", [*ANN, BOB]) == []


@pytest.mark.parametrize("cut", range(37))
def test_half_a_query_is_none(cut: int) -> None:
    whole = query("task-1.job-7.fofoca")
    assert parse(whole) is not None
    assert cut >= len(whole) or parse(whole[:cut]) is None


async def test_answers_have_the_kind_that_was_asked_for_and_strangers_get_none() -> None:
    resolver = Resolver(ASKERS.get, lambda: [*ANN, BOB], [])
    for kind, packed in ((A, b"\x0a\x00\x00\x02"), (AAAA, b"\xfd" + bytes(14) + b"\x02")):
        got = await resolver.answer(query("task-2.job-7.fofoca", kind), "10.0.0.1", 512)
        assert got is not None
        assert got.endswith(packed)
        assert HEADER.unpack_from(got)[1] & 0xF == NO_ERROR
    assert await resolver.answer(query("task-2.job-7.fofoca"), "10.0.0.77", 512) is None


async def test_a_name_of_ones_own_job_is_waited_for_and_then_does_not_exist(
    autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    residents = list(ANN)
    resolver = Resolver(ASKERS.get, lambda: residents, [])
    before = trio.current_time()
    got = await resolver.answer(query("task-5.job-7.fofoca"), "10.0.0.1", 512)
    assert got is not None
    assert HEADER.unpack_from(got)[1] & 0xF == NO_NAME
    assert trio.current_time() - before > 2
    got = await resolver.answer(query("task-5.job-8.fofoca"), "10.0.0.1", 512)
    assert trio.current_time() - before < 4

    async def appear() -> None:
        await trio.sleep(1)
        residents.append(Resident("ann", 7, 5, ("10.0.0.5",)))

    nursery.start_soon(appear)
    got = await resolver.answer(query("task-5.job-7.fofoca"), "10.0.0.1", 512)
    assert got is not None
    assert got.endswith(b"\x0a\x00\x00\x05")


async def test_a_member_of_ones_gang_is_told_to_be_away_for_now_and_one_beyond_it_not_to_exist(
    autojump_clock: trio.abc.Clock,
) -> None:
    resolver = Resolver({"10.0.0.1": Asker("ann", 7, gang_size=6)}.get, lambda: ANN, [])
    for name, code, waits in (
        ("job7-5", SERVER_FAILED, True),
        ("rank-5.job-7", SERVER_FAILED, True),
        ("rank-6.job-7", NO_NAME, False),
        ("rank-5.job-8", NO_NAME, False),
        ("job7-2", NO_ERROR, False),
    ):
        before = trio.current_time()
        got = await resolver.answer(query(f"{name}.fofoca"), "10.0.0.1", 512)
        assert got is not None
        assert HEADER.unpack_from(got)[1] & 0xF == code, name
        assert (trio.current_time() - before > 2) == waits, name


def test_what_does_not_fit_into_a_datagram_is_cut_and_says_so() -> None:
    question = parse(query("job-7.fofoca"))
    assert question is not None
    short = answer(question, NO_ERROR, [f"10.0.1.{last}" for last in range(1, 200)])
    assert len(short) <= 512
    assert HEADER.unpack_from(short)[1] & 0x0200
    assert HEADER.unpack_from(answer(question, NO_ERROR, ["10.0.1.1"] * 200, 65_535))[3] == 200


def test_the_hosts_own_servers_are_asked_and_never_this_one() -> None:
    text = "# x\nnameserver 10.77.1.1\nnameserver 1.1.1.1\nsearch a\nnameserver nonsense\nnameserver fd00::1\n"
    assert upstream_of(text, ["10.77.1.1"]) == ["1.1.1.1", "fd00::1"]
