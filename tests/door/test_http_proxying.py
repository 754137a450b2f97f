"""Requests get to their site and answers back: whole, piece by piece, over connections that last."""

from __future__ import annotations

import hashlib
import json
import resource

import h11
import httpx
import pytest
import trio

from node.door.http import exchange
from node.errors import PeerUnreachable
from tests.door.http_parts import (
    HOST,
    KEY,
    PATIENCE_S,
    Backend,
    MemorySites,
    RawClient,
    answer,
    backend,
    door,
    scripted,
    until,
)

GET = f"GET /a?b=c HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def sites_at(port: int) -> MemorySites:
    sites = MemorySites()
    sites.add(port=port)
    return sites


async def test_a_request_and_its_answer_pass_whole() -> None:
    async with backend() as behind, door(sites_at(behind.port)) as front, httpx.AsyncClient() as client:
        body = b"x" * 100_000
        answered = await client.put(
            f"http://127.0.0.1:{front.port}/a%20b?c=d", content=body, headers={"Host": HOST, "X-Colour": "red"}
        )
        assert answered.status_code == 200
        seen = answered.json()
        assert (seen["method"], seen["target"], seen["bytes"]) == ("PUT", "/a%20b?c=d", 100_000)
        assert seen["sha256"] == hashlib.sha256(body).hexdigest()
        assert behind.headers()["x-colour"] == "red"
        assert behind.headers()["host"] == HOST
        assert "x-fofoca-cold-start" not in answered.headers
        await until(lambda: (front.sites.uses, front.sites.open[KEY]) == (1, 0))


async def test_connections_last_on_both_sides() -> None:
    async with backend() as behind, door(sites_at(behind.port)) as front:
        client = await front.connect()
        for _ in range(5):
            await client.send(GET)
            assert (await client.answer())[0] == 200
        assert behind.connections == 1
        assert front.counts.connections == 1


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with backend() as behind, door(sites_at(behind.port)) as front:
        client = await front.connect()
        await client.send(b"".join(f"GET /{n} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() for n in range(20)))
        targets = [json.loads((await client.answer())[2])["target"] for _ in range(20)]
        assert targets == [f"/{n}" for n in range(20)]


async def test_chunks_pass_in_both_directions() -> None:
    async def in_chunks(_: Backend, connection: h11.Connection, stream: trio.SocketStream) -> None:
        head = h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")])
        await stream.send_all(connection.send(head) or b"")
        for piece in (b"one", b"two", b"x" * 70_000):
            await stream.send_all(connection.send(h11.Data(data=piece)) or b"")
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")

    async with backend(in_chunks) as behind, door(sites_at(behind.port)) as front:
        client = await front.connect()
        await client.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab".encode())
        await trio.sleep(0.01)
        await client.send(b"c\r\n1;x=y\r\nd\r\n0\r\nTrailer-Field: 1\r\n\r\n")
        status, headers, body = await client.answer("POST")
        assert (status, body) == (200, b"onetwo" + b"x" * 70_000)
        assert headers["transfer-encoding"] == "chunked"
        assert behind.requests[0]["sha256"] == hashlib.sha256(b"abcd").hexdigest()
        await client.send(GET)
        assert (await client.answer())[0] == 200


async def test_an_answer_without_a_length_becomes_chunks() -> None:
    async def until_close(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        await stream.aclose()

    async with scripted(until_close) as port, door(sites_at(port)) as front:
        client = await front.connect()
        await client.send(GET)
        status, headers, body = await client.answer()
        assert (status, body, headers["transfer-encoding"]) == (200, b"all of it", "chunked")
        await client.send(f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
        rest = await client.rest()
        assert rest.endswith(b"\r\n\r\nall of it")
        assert b"chunked" not in rest


async def test_a_gibibyte_passes_without_being_kept() -> None:
    size = 1 << 30

    async def large(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        piece = bytes(1 << 20)
        for _ in range(size >> 20):
            await stream.send_all(piece)

    async with scripted(large) as port, door(sites_at(port)) as front:
        client = await front.connect()
        await client.send(GET)
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        received = 0
        with trio.fail_after(PATIENCE_S * 2):
            while received < size:
                received += len(await client.stream.receive_some(1 << 20))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 << 10


async def test_a_slow_reader_slows_the_backend() -> None:
    sent = 0

    async def endless(stream: trio.SocketStream) -> None:
        nonlocal sent
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        while True:
            await stream.send_all(bytes(1 << 16))
            sent += 1 << 16

    async with scripted(endless) as port, door(sites_at(port)) as front:
        client = await front.connect()
        await client.send(GET)
        before = -1
        while before != sent:
            before = sent
            await trio.sleep(0.3)
        # What the kernel's buffers hold, and no more.
        assert sent < 64 << 20


async def test_head_gets_no_body_and_keeps_the_length() -> None:
    async def headless(stream: trio.SocketStream) -> None:
        while await stream.receive_some(65_536):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")

    async with scripted(headless) as port, door(sites_at(port)) as front:
        client = await front.connect()
        for _ in range(2):
            await client.send(f"HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            status, headers, body = await client.answer("HEAD")
            assert (status, headers["content-length"], body) == (200, "12345", b"")


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_that_have_no_body_end_at_once(status: int) -> None:
    async def bodiless(stream: trio.SocketStream) -> None:
        while await stream.receive_some(65_536):
            await stream.send_all(f"HTTP/1.1 {status} X\r\nETag: a\r\n\r\n".encode())

    async with scripted(bodiless) as port, door(sites_at(port)) as front:
        client = await front.connect()
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer())[0] == status


async def test_who_expects_it_is_told_to_go_on() -> None:
    async with backend() as behind, door(sites_at(behind.port)) as front:
        client = await front.connect()
        await client.send(
            f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        with trio.fail_after(PATIENCE_S):
            assert (await client.stream.receive_some(65_536)).startswith(b"HTTP/1.1 100 ")
        await client.send(b"hello")
        assert json.loads((await client.answer())[2])["bytes"] == 5


async def test_a_websocket_becomes_raw_bytes_both_ways() -> None:
    async def upgraded(stream: trio.SocketStream) -> None:
        head = bytes(await stream.receive_some(65_536))
        assert b"Upgrade: websocket" in head
        assert b"Sec-WebSocket-Key: k" in head
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: a\r\n\r\n\x00first"
        )
        while data := await stream.receive_some(65_536):
            await stream.send_all(data.upper())
        await stream.send_all(b"bye")

    async with scripted(upgraded) as port, door(sites_at(port)) as front:
        client = await front.connect()
        await client.send(
            f"GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Key: k\r\n\r\n".encode()
        )
        received = b""
        with trio.fail_after(PATIENCE_S):
            while not received.endswith(b"\x00first"):
                received += await client.stream.receive_some(65_536)
        assert received.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: a" in received
        assert front.sites.open[KEY] == 1
        await client.send(b"\xffraw\x00")
        with trio.fail_after(PATIENCE_S):
            assert await client.stream.receive_some(65_536) == b"\xffRAW\x00"
        await client.stream.send_eof()
        assert await client.rest() == b"bye"
        await until(lambda: not front.sites.open[KEY])


async def test_no_protocol_but_websocket_is_changed_to() -> None:
    async with backend() as behind, door(sites_at(behind.port)) as front:
        client = await front.connect()
        await client.send(
            f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n".encode()
        )
        assert (await client.answer())[0] == 200
        assert not {"upgrade", "http2-settings", "connection"} & set(behind.headers())


async def test_a_client_that_goes_takes_its_request_along() -> None:
    async def silent(_: Backend, __: h11.Connection, stream: trio.SocketStream) -> None:
        assert not await stream.receive_some(1)
        raise trio.BrokenResourceError

    async with backend(silent) as behind, door(sites_at(behind.port)) as front:
        client = await front.connect()
        await client.send(GET)
        await until(lambda: len(behind.requests) == 1)
        await client.stream.aclose()
        await until(lambda: behind.open == 0)
        await until(lambda: front.sites.open[KEY] == 0)
        assert front.counts.gone == 1


async def test_a_backend_that_breaks_off_is_seen_to() -> None:
    async def half(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await stream.aclose()

    async with scripted(half) as port, door(sites_at(port)) as front:
        client = await front.connect()
        await client.send(GET)
        with pytest.raises((h11.RemoteProtocolError, trio.BrokenResourceError)):
            await client.answer()
        assert front.counts.cut_short == 1


async def test_lone_line_feeds_of_an_old_application_are_written_anew() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        for piece in (b"HTTP/1.1 200 OK\r", b"\nContent-Type: text/plain\nX-A: 1\n", b"\n", b"\nbody\r\n"):
            await stream.send_all(piece)
            await trio.sleep(0.01)
        await stream.aclose()

    async with scripted(script) as port, door(sites_at(port)) as front:
        client = await front.connect()
        await client.send(GET)
        status, headers, body = await client.answer()
        assert (status, headers["content-type"], headers["x-a"], body) == (200, "text/plain", "1", b"\nbody\r\n")


async def test_no_answer_or_nonsense_is_a_bad_gateway() -> None:
    replies = [b"", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
               b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
               b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n"]  # fmt: skip
    reply = b""

    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(reply)
        await stream.aclose()

    async with scripted(script) as port, door(sites_at(port)) as front:
        for reply in replies:
            client = await front.connect()
            await client.send(GET)
            status, headers, body = await client.answer()
            assert (status, headers["content-type"]) == (502, "application/problem+json"), reply
            assert str(port) in json.loads(body)["detail"]


async def test_a_request_is_repeated_only_where_that_does_no_harm() -> None:
    tries: list[bytes] = []

    async def closes_after_one(stream: trio.SocketStream) -> None:
        first = True
        while data := await stream.receive_some(65_536):
            tries.append(bytes(data[:4]))
            if not first:
                return
            first = False
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with scripted(closes_after_one) as port, door(sites_at(port)) as front:
        client = await front.connect()
        for request, status in ((GET, 200), (GET, 200), (GET.replace(b"GET", b"POST"), 502)):
            await client.send(request)
            assert (await client.answer())[0] == status
        # The second GET went over the kept connection first, and again over a new one; the POST only once.
        assert tries == [b"GET ", b"GET ", b"GET ", b"POST"]
        assert front.counts.retried == 1


async def test_a_request_whose_host_fell_silent_goes_to_the_next_container_if_that_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(_: Backend, __: h11.Connection, ___: trio.SocketStream) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(exchange, "SLOW_S", 0.1)
    monkeypatch.setattr(exchange, "MOVED_S", 0.3)
    async with backend(silent) as gone, backend() as next_one, door(sites_at(gone.port)) as front:
        reader, writer = await front.connect(), await front.connect()
        await reader.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await writer.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\n\r\nx".encode())
        await until(lambda: len(gone.requests) == 2)
        front.sites.add(port=next_one.port)
        assert (await reader.answer())[0] == 200
        status, _, body = await writer.answer()
        assert (status, b"another one has taken its place" in body) == (502, True)
        assert len(next_one.requests) == 1


async def test_connections_kept_by_a_backend_that_closed_them_are_not_used() -> None:
    async def closes(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await stream.aclose()

    async with scripted(closes) as port, door(sites_at(port)) as front:
        client = await front.connect()
        for _ in range(3):
            await client.send(GET.replace(b"GET", b"POST"))
            assert (await client.answer())[0] == 200
            await trio.sleep(0.05)


async def test_a_request_while_the_keeper_changes_waits_for_the_next_one() -> None:
    async with backend() as behind, door(sites_at(behind.port)) as front:
        front.sites.add(port=behind.port, phase="frozen")
        front.sites.failing, front.sites.failures = PeerUnreachable("n1", "gone"), 2
        client = await front.connect()
        await client.send(GET)
        status, headers, _ = await client.answer()
        assert (status, headers["x-fofoca-cold-start"], front.sites.failures) == (200, "1", 0)


async def test_the_end_lets_open_requests_finish() -> None:
    async def slowly(_: Backend, connection: h11.Connection, stream: trio.SocketStream) -> None:
        await trio.sleep(0.3)
        await answer(connection, stream, b"{}")

    async with backend(slowly) as behind, door(sites_at(behind.port), stop_grace_s=PATIENCE_S) as front:
        idle, busy = await front.connect(), await front.connect()
        await busy.send(GET)
        await until(lambda: len(behind.requests) == 1)
        front.scope.cancel()
        assert await idle.rest() == b""
        status, headers, _ = await busy.answer()
        assert (status, headers["connection"]) == (200, "close")
        await busy.stream.aclose()
        with pytest.raises(OSError, match="all attempts to connect"):
            RawClient(await trio.open_tcp_stream("127.0.0.1", front.port))


async def test_the_end_cuts_what_does_not_finish() -> None:
    async def never(_: Backend, __: h11.Connection, ___: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with backend(never) as behind, door(sites_at(behind.port), stop_grace_s=0.1) as front:
        client = await front.connect()
        await client.send(GET)
        await until(lambda: len(behind.requests) == 1)
        front.scope.cancel()
        assert await client.rest() == b""
