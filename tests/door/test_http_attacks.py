"""What two readers could understand differently is refused, and the application behind hears nothing of it."""

from __future__ import annotations

import json

import pytest
import trio

from tests.door.http_parts import HOST, KEY, MemorySites, backend, door, until

H = f"Host: {HOST}\r\n"
CHUNKED = f"POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = f"GET /hidden HTTP/1.1\r\n{H}\r\n"

ATTACKS = {
    "both lengths": f"POST / HTTP/1.1\r\n{H}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "both lengths, turned": f"POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": f"POST / HTTP/1.1\r\n{H}Content-Length: 0\r\nContent-Length: 40\r\n\r\n{HIDDEN}",
    "two equal lengths": f"POST / HTTP/1.1\r\n{H}Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "a list of lengths": f"POST / HTTP/1.1\r\n{H}Content-Length: 2, 2\r\n\r\nab",
    "a signed length": f"POST / HTTP/1.1\r\n{H}Content-Length: +2\r\n\r\nab",
    "a negative length": f"POST / HTTP/1.1\r\n{H}Content-Length: -1\r\n\r\nab",
    "a hexadecimal length": f"POST / HTTP/1.1\r\n{H}Content-Length: 0x2\r\n\r\nab",
    "an empty length": f"POST / HTTP/1.1\r\n{H}Content-Length:\r\n\r\n",
    "a length past all numbers": f"POST / HTTP/1.1\r\n{H}Content-Length: {'9' * 40}\r\n\r\n",
    "a length of other digits": f"POST / HTTP/1.1\r\n{H}Content-Length: \xb2\r\n\r\nab",
    "a blank before the colon of a length": f"POST / HTTP/1.1\r\n{H}Content-Length : 40\r\n\r\n{HIDDEN}",
    "xchunked": f"POST / HTTP/1.1\r\n{H}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": f"POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip, chunked": f"POST / HTTP/1.1\r\n{H}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": f"POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": f'POST / HTTP/1.1\r\n{H}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked after a tab of another kind": f"POST / HTTP/1.1\r\n{H}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon of a coding": f"POST / HTTP/1.1\r\n{H}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "an empty coding": f"POST / HTTP/1.1\r\n{H}Transfer-Encoding:\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": f"POST / HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": f"GET / HTTP/1.1\r\n{H}X-A: b\r\n c\r\n\r\n",
    "a folded coding": f"POST / HTTP/1.1\r\n{H}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a folded first line": f"GET / HTTP/1.1\r\n Host: {HOST}\r\n\r\n",
    "lone LF between lines": f"GET / HTTP/1.1\nHost: {HOST}\n\n",
    "lone LF in one place": f"GET / HTTP/1.1\r\n{H}X-A: b\nTransfer-Encoding: chunked\r\n\r\n",
    "lone LF at the end": f"GET / HTTP/1.1\r\n{H}\n",
    "lone CR in a value": f"GET / HTTP/1.1\r\n{H}X-A: b\rX-User: root\r\n\r\n",
    "lone CR between lines": f"GET / HTTP/1.1\rHost: {HOST}\r\r",
    "CR CR LF": f"GET / HTTP/1.1\r\n{H}X-A: b\r\r\n\r\n",
    "NUL in a value": f"GET / HTTP/1.1\r\n{H}X-A: b\0c\r\n\r\n",
    "NUL in a name": f"GET / HTTP/1.1\r\n{H}X-\0A: b\r\n\r\n",
    "NUL in the target": f"GET /a\0b HTTP/1.1\r\n{H}\r\n",
    "a control character": f"GET / HTTP/1.1\r\n{H}X-A: b\x1b[2J\r\n\r\n",
    "no host": "GET / HTTP/1.1\r\nX-A: b\r\n\r\n",
    "no host in HTTP/1.0": "GET / HTTP/1.0\r\n\r\n",
    "an empty host": "GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "two hosts": f"GET / HTTP/1.1\r\n{H}Host: other.example\r\n\r\n",
    "two equal hosts": f"GET / HTTP/1.1\r\n{H}{H}\r\n",
    "a list of hosts": f"GET / HTTP/1.1\r\nHost: {HOST}, other.example\r\n\r\n",
    "a host with a path": f"GET / HTTP/1.1\r\nHost: {HOST}/admin\r\n\r\n",
    "a host with a user": f"GET / HTTP/1.1\r\nHost: a@{HOST}\r\n\r\n",
    "a host with a quote": f'GET / HTTP/1.1\r\nHost: {HOST}";for=1.2.3.4\r\n\r\n',
    "another host in the target": f"GET http://other.example/ HTTP/1.1\r\n{H}\r\n",
    "a user in the target": f"GET http://{HOST}@other.example/ HTTP/1.1\r\n{H}\r\n",
    "a tunnel": f"CONNECT {HOST}:443 HTTP/1.1\r\n{H}\r\n",
    "a target without a slash": f"GET admin HTTP/1.1\r\n{H}\r\n",
    "a star for GET": f"GET * HTTP/1.1\r\n{H}\r\n",
    "a fragment": f"GET /a#b HTTP/1.1\r\n{H}\r\n",
    "a blank in the target": f"GET /a b HTTP/1.1\r\n{H}\r\n",
    "two blanks": f"GET  / HTTP/1.1\r\n{H}\r\n",
    "a tab for a blank": f"GET\t/ HTTP/1.1\r\n{H}\r\n",
    "a blank first": f" GET / HTTP/1.1\r\n{H}\r\n",
    "an empty line first": f"\r\nGET / HTTP/1.1\r\n{H}\r\n",
    "a target of other letters": f"GET /\xe9 HTTP/1.1\r\n{H}\r\n",
    "HTTP/0.9": "GET /\r\n\r\n",
    "a version that is none": f"GET / HTTP/1.1x\r\n{H}\r\n",
    "small letters for HTTP": f"GET / http/1.1\r\n{H}\r\n",
    "a method that is none": f"GE(T / HTTP/1.1\r\n{H}\r\n",
    "a name with a blank": f"GET / HTTP/1.1\r\n{H}X A: b\r\n\r\n",
    "a name with a blank after it": f"GET / HTTP/1.1\r\n{H}X-A : b\r\n\r\n",
    "a name of other letters": f"GET / HTTP/1.1\r\n{H}X-\xc4: b\r\n\r\n",
    "an empty name": f"GET / HTTP/1.1\r\n{H}: b\r\n\r\n",
    "a line without a colon": f"GET / HTTP/1.1\r\n{H}nonsense\r\n\r\n",
    "a chunk size with a plus": CHUNKED + "+3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a minus": CHUNKED + "-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + "0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a blank": CHUNKED + "3 \r\nabc\r\n0\r\n\r\n",
    "a chunk size after a blank": CHUNKED + " 3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with _": CHUNKED + "1_0\r\nabc\r\n0\r\n\r\n",
    "an empty chunk size": CHUNKED + "\r\nabc\r\n0\r\n\r\n",
    "a chunk size past 64 bits": CHUNKED + "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "a chunk size past 32 bits twice": CHUNKED + "f" * 16 + "\r\nabc\r\n",
    "a chunk line without end": CHUNKED + "3;" + "x" * 1000,
    "a chunk line with lone LF": CHUNKED + "3\nabc\r\n0\r\n\r\n",
    "a chunk line with lone CR": CHUNKED + "3\rabc\r\n0\r\n\r\n",
    "an extension with lone LF": CHUNKED + f"3;a\nabc\r\n0\r\n\r\n{HIDDEN}",
    "an extension with NUL": CHUNKED + "3;\0\r\nabc\r\n0\r\n\r\n",
    "a chunk too long": CHUNKED + "3\r\nabcd\r\n0\r\n\r\n",
    "a chunk that ends in other bytes": CHUNKED + "3\r\nabcXX0\r\n\r\n",
    "a chunk that ends in LF": CHUNKED + "3\r\nabc\n0\r\n\r\n",
    "an end that ends in LF": CHUNKED + f"0\n\n{HIDDEN}",
    "a trailer that is no field": CHUNKED + "0\r\nnonsense\r\n\r\n",
    "a trailer with a blank": CHUNKED + "0\r\nContent-Length : 3\r\n\r\n",
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_it_is_refused_and_nobody_behind_hears_of_it(name: str) -> None:
    async with backend() as behind:
        sites = MemorySites()
        sites.add(port=behind.port)
        async with door(sites) as front:
            client = await front.connect()
            await client.send(ATTACKS[name].encode("latin-1"))
            status, headers, body = await client.answer()
            assert (status, headers["connection"]) == (400, "close")
            assert json.loads(body)["type"] == "urn:fofoca:problem:malformed"
            # A second request, hidden or not, is not answered.
            await client.send(HIDDEN.encode())
            await client.stream.send_eof()
            assert await client.rest() == b""
            await until(lambda: front.counts.refused["malformed"] == 1)
            assert (behind.connections, bytes(behind.raw)) == (0, b"")


async def test_what_is_no_attack_passes() -> None:
    plain = [
        f"GET / HTTP/1.1\r\n{H}\r\n",
        f"GET / HTTP/1.1\r\nhost:{HOST}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: \t{HOST}:8080 \r\n\r\n",
        f"GET http://{HOST.upper()}/a HTTP/1.1\r\n{H}\r\n",
        f"GET http://{HOST}?q HTTP/1.1\r\n{H}\r\n",
        f"OPTIONS * HTTP/1.1\r\n{H}\r\n",
        f"GET / HTTP/1.1\r\n{H}X-A:\r\nX-B: \xe9\t,\r\n\r\n",
        f"POST / HTTP/1.1\r\n{H}Content-Length: 002\r\n\r\nab",
        f'POST / HTTP/1.1\r\n{H}transfer-encoding: Chunked\r\n\r\n0000A;a="b"\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n',
    ]
    async with backend() as behind:
        sites = MemorySites()
        sites.add(port=behind.port)
        async with door(sites) as front:
            client = await front.connect()
            for text in plain:
                await client.send(text.encode("latin-1"))
                assert (await client.answer())[0] == 200, text
            assert [each["target"] for each in behind.requests[3:6]] == ["/a", "/?q", "*"]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (f"GET / HTTP/2.0\r\n{H}\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (f"GET /{'a' * 9000} HTTP/1.1\r\n{H}\r\n", 414),
        (f"GET / HTTP/1.1\r\n{H}X-A: {'a' * 20_000}\r\n\r\n", 431),
        (f"GET / HTTP/1.1\r\n{H}X-A: {'a' * 70_000}", 431),
        (f"GET / HTTP/1.1\r\n{H}" + "A: b\r\n" * 101 + "\r\n", 431),
        (f"POST / HTTP/1.1\r\n{H}Content-Length: 1\r\nExpect: 200-ok\r\n\r\n", 417),
        (f"POST / HTTP/1.1\r\n{H}Content-Length: 1001\r\n\r\n", 413),
        (CHUNKED + "3e9\r\n" + "x" * 1001 + "\r\n0\r\n\r\n", 413),
    ],
)
async def test_what_passes_a_bound_is_refused(text: str, status: int) -> None:
    async with backend() as behind:
        sites = MemorySites()
        sites.add(port=behind.port)
        async with door(sites, body_bytes_max=1000) as front:
            client = await front.connect()
            await client.send(text.encode())
            assert (await client.answer())[0] == status
            await client.stream.send_eof()
            assert await client.rest() == b""
            assert behind.requests == []


async def test_a_body_that_turns_bad_later_is_never_whole_behind() -> None:
    async with backend() as behind:
        sites = MemorySites()
        sites.add(port=behind.port)
        async with door(sites) as front:
            client = await front.connect()
            await client.send((CHUNKED + "3\r\nabc\r\n").encode())
            await until(lambda: b"abc" in behind.raw)
            await client.send(f"+0\r\n\r\n{HIDDEN}".encode())
            assert (await client.answer())[0] == 400
            await until(lambda: behind.open == 0)
            assert behind.requests == []
            assert b"hidden" not in behind.raw
            assert not front.sites.open[KEY]


async def test_a_body_that_passes_its_bound_later_is_never_whole_behind() -> None:
    async with backend() as behind:
        sites = MemorySites()
        sites.add(port=behind.port)
        async with door(sites, body_bytes_max=1000) as front:
            client = await front.connect()
            await client.send((CHUNKED + "3\r\nabc\r\n").encode())
            await until(lambda: b"abc" in behind.raw)
            await client.send(b"3e6\r\n" + b"x" * 998 + b"\r\n0\r\n\r\n")
            assert (await client.answer())[0] == 413
            await until(lambda: behind.open == 0)
            assert behind.requests == []


async def test_slow_heads_and_bodies_are_ended() -> None:
    async with backend() as behind:
        sites = MemorySites()
        sites.add(port=behind.port)
        async with door(sites, head_timeout_s=0.3, stall_timeout_s=0.3, keep_alive_s=0.3) as front:
            for text in ("GET / HT", f"POST / HTTP/1.1\r\n{H}Content-Length: 9\r\n\r\nab", CHUNKED):
                client = await front.connect()
                for letter in text:
                    await client.send(letter.encode())
                assert (await client.answer())[0] == 408, text
            # A head that drips has no more time than one that stops.
            client = await front.connect()
            began_s = trio.current_time()
            with trio.move_on_after(10):
                while not front.counts.refused["slow"] >= 4:
                    await client.send(b"G")
                    await trio.sleep(0.05)
            assert trio.current_time() - began_s < 10
            # One that says nothing at all is told nothing.
            assert await (await front.connect()).rest() == b""


async def test_one_client_has_no_more_than_its_part() -> None:
    sites = MemorySites()
    async with door(sites, client_connections_max=3) as front:
        clients = [await front.connect() for _ in range(3)]
        await until(lambda: front.counts.open_connections == 3)
        status, headers, body = await (await front.connect()).answer()
        assert (status, headers["retry-after"]) == (503, "2")
        assert "door.client_connections_max" in json.loads(body)["detail"]
        await clients[0].stream.aclose()
        await until(lambda: front.counts.open_connections == 2)
        client = await front.connect()
        await client.send(HIDDEN.encode())
        assert (await client.answer())[0] == 404


async def test_front_ends_are_not_one_client() -> None:
    async with door(MemorySites(), client_connections_max=1, front_ends=("127.0.0.0/8",)) as front:
        for client in [await front.connect() for _ in range(5)]:
            await client.send(HIDDEN.encode())
            assert (await client.answer())[0] == 404


async def test_idle_connections_make_room_for_new_ones() -> None:
    async with door(MemorySites(), connections_max=8, client_connections_max=100) as front:
        clients = [await front.connect() for _ in range(20)]
        await clients[-1].send(HIDDEN.encode())
        assert (await clients[-1].answer())[0] == 404
        assert await clients[0].rest() == b""
        assert front.counts.open_connections <= 8
