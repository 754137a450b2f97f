"""Which site a request is for, whom the door believes, how long it waits, and what it says by itself."""

from __future__ import annotations

import json
import logging
from collections import Counter

import pytest
import trio

from node.door.calls import raised, refusal
from node.door.http.choosing import Chooser
from node.door.http.senders import client_of, plain_address
from node.errors import Busy, ForgedToken, UnknownImage
from node.tokens import Principal, Role
from scheduler.sites.site import SitePhase, SiteView
from tests.door.http_parts import HOST, KEY, PATIENCE_S, MemorySites, RunningDoor, backend, door, until

LOCAL = ("127.0.0.0/8",)
WISH = {"X-User": "shop", "X-Application": "demo;port=8080", "X-Backend": KEY, "X-Memory-Limit": "32"}
HTML = {"Accept": "text/html,application/xhtml+xml"}


def request(host: str = HOST, method: str = "GET", **headers: str) -> bytes:
    lines = [f"{method} / HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def ask(front: RunningDoor, host: str = HOST, **headers: str) -> tuple[int, dict[str, str], bytes]:
    client = await front.connect()
    await client.send(request(host, **headers))
    answered = await client.answer()
    await client.stream.aclose()
    return answered


def verify(token: str) -> Principal:
    if not token.startswith("fof1.good."):
        raise ForgedToken("forged")
    return Principal("edge", Role(token.removeprefix("fof1.good.")))


# --- trust


async def test_a_front_ends_wish_makes_a_site_and_wakes_it() -> None:
    sites = MemorySites(start_s=0.2)
    async with backend() as behind, door(sites, front_ends=LOCAL) as front:
        sites.ports[KEY] = behind.port
        status, headers, _ = await ask(front, **WISH)
        assert (status, headers["x-fofoca-cold-start"]) == (200, "1")
        assert 150 <= int(headers["x-fofoca-start-ms"]) < 30_000
        status, headers, _ = await ask(front, **WISH)
        assert status == 200
        assert not {"x-fofoca-cold-start", "x-fofoca-start-ms"} & set(headers)
        await until(lambda: (sites.starts[KEY], front.counts.cold, front.counts.requests) == (1, 1, 2))


async def test_a_hundred_wishes_at_once_are_all_answered_by_one_start() -> None:
    sites = MemorySites(start_s=0.3)
    async with backend() as behind, door(sites, front_ends=LOCAL) as front:
        sites.ports[KEY] = behind.port
        answered: list[int] = []

        async def one() -> None:
            answered.append((await ask(front, **WISH))[0])

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)
        assert answered == [200] * 100
        assert sites.starts[KEY] == 1


async def test_the_publics_wish_is_neither_believed_nor_passed_on() -> None:
    sites = MemorySites()
    async with backend() as behind, door(sites, verify) as front:
        sites.add(port=behind.port)
        said = {**WISH, "X-Backend": "b:u:shop:2", "X_User": "root", "X-Fofoca-Door": "answer", "X-Instance": "9",
                "X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "X_Forwarded_For": "6.6.6.6",
                "Forwarded": "for=6.6.6.6"}  # fmt: skip
        client = await front.connect()
        lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        await client.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n".encode())
        assert (await client.answer())[0] == 200
        assert list(sites.views) == [KEY]
        assert b"root" not in behind.raw
        assert b"6.6.6.6" not in behind.raw
        seen = behind.headers()
        assert set(seen) == {"host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via"}
        assert (seen["x-forwarded-for"], seen["forwarded"]) == ("127.0.0.1", f'for=127.0.0.1;host="{HOST}";proto=http')


async def test_a_front_end_is_believed_about_where_requests_come_from() -> None:
    sites = MemorySites()
    async with backend() as behind, door(sites, front_ends=LOCAL) as front:
        sites.add(port=behind.port)
        said = {"X_Forwarded_For": "9.9.9.9", "X_Forwarded_Proto": "https", "X_Forwarded_Host": "a.example",
                "Forwarded": "for=9.9.9.9", "Via": "1.1 edge", "X_Real_IP": "9.9.9.9"}  # fmt: skip
        assert (await ask(front, **said))[0] == 200
        seen = behind.headers()
        assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("9.9.9.9, 127.0.0.1", "https")
        assert (seen["x-forwarded-host"], seen["via"]) == ("a.example", "1.1 edge, 1.1 fofoca")
        assert seen["forwarded"].startswith("for=9.9.9.9, for=127.0.0.1;")
        assert seen["x-real-ip"] == "9.9.9.9"


@pytest.mark.parametrize("field", ["X_Fofoca_Token", "Authorization"])
async def test_a_door_token_makes_a_front_end_and_goes_no_further(field: str) -> None:
    sites = MemorySites()
    async with backend() as behind, door(sites, verify) as front:
        sites.ports[KEY] = behind.port
        token = "fof1.good.door"
        said = {**WISH, field: token if field.startswith("X") else f"Bearer {token}"}
        assert (await ask(front, **said))[0] == 200
        assert b"fof1" not in behind.raw


async def test_other_tokens_make_nobody_a_front_end() -> None:
    sites = MemorySites()
    async with backend() as behind, door(sites, verify) as front:
        sites.add(port=behind.port)
        assert (await ask(front, X_Fofoca_Token="fof1.bad", **WISH))[0] == 401
        assert (await ask(front, X_Fofoca_Token="fof1.good.user", **WISH))[0] == 403
        wish = {**WISH, "X-Backend": "b:u:shop:7"}
        # What is in Authorization may be the application's own affair: it passes, and makes nobody anything.
        for value in ("Bearer fof1.good.user", "Bearer fof1.bad", "Basic eDp5"):
            assert (await ask(front, Authorization=value, **wish))[0] == 200
            assert behind.headers()["authorization"] == value
        assert list(sites.views) == [KEY]
    async with door(MemorySites()) as front:
        assert (await ask(front, X_Fofoca_Token="fof1.good.door"))[0] == 403


async def test_a_wrong_wish_names_the_header() -> None:
    async with door(MemorySites(), front_ends=LOCAL) as front:
        status, headers, body = await ask(front, **{**WISH, "X-Memory-Limit": "lots"})
        problem = json.loads(body)
        assert (status, headers["content-type"]) == (400, "application/problem+json")
        assert (problem["type"], problem["field"]) == ("urn:fofoca:problem:invalid-value", "X-Memory-Limit")
        status, _, body = await ask(front, **{**WISH, "X-Application": "nothing"})
        assert status == 404
        assert "door.catalogue" in json.loads(body)["detail"], "an operator is told where applications come from"
        assert "demo;port=8080" in json.loads(body)["detail"]
        status, _, body = await ask(front, **{**WISH, "X-Application": "demo;port=99999"})
        assert (status, json.loads(body)["field"]) == (400, "X-Application")
        client = await front.connect()
        twice = "".join(f"{name}: {value}\r\n" for name, value in [*WISH.items(), ("x-user", "other")])
        await client.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n{twice}\r\n".encode())
        assert (await client.answer())[0] == 400


def test_addresses_are_plain() -> None:
    assert plain_address("::ffff:10.0.0.1") == "10.0.0.1"
    assert plain_address("fe80::1%eth0") == "fe80::1"
    assert client_of("10.0.0.1") == "10.0.0.1"
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:1") != client_of("2001:db8:0:1::1")


# --- which site


async def test_an_unknown_host_is_told_what_to_do() -> None:
    async with door(MemorySites()) as front:
        for host in ("nobody.example", "[::1]:80", "1.2.3.4", "a_b"):
            status, headers, body = await ask(front, host)
            assert (status, headers["content-type"]) == (404, "application/problem+json")
            assert "X-Backend" in json.loads(body)["detail"]


async def test_hosts_count_without_port_and_capitals() -> None:
    sites = MemorySites()
    async with backend() as behind, door(sites) as front:
        sites.add(port=behind.port)
        assert (await ask(front, "SHOP.Example.:8080"))[0] == 200


def view(key: str, phase: str = "awake", **more: object) -> SiteView:
    return SiteView(key, "shop", SitePhase(phase), "n1", **more)  # type: ignore[arg-type]


def test_instances_take_turns_by_weight() -> None:
    views = [view("a", weight=5), view("b", weight=1), view("c", weight=1)]
    chooser = Chooser()
    turns = "".join(chooser.choose(HOST, views).key for _ in range(14))
    assert turns == "aabacaa" * 2
    assert Counter(chooser.choose("other", views[1:]).key for _ in range(10)) == {"b": 5, "c": 5}


def test_sleepers_are_woken_only_where_none_is_awake() -> None:
    chooser = Chooser()
    views = [view("a", "asleep"), view("b"), view("c", "frozen")]
    assert {chooser.choose(HOST, views).key for _ in range(5)} == {"b"}
    assert chooser.choose(HOST, [views[0], views[2]]).key == "c"
    assert chooser.choose(HOST, [view("a", "broken"), view("b", "asleep"), view("c", "leaving")]).key == "b"
    used_less = [view("a", "asleep", idle_for_s=5.0), view("b", "asleep", idle_for_s=50.0)]
    assert chooser.choose(HOST, used_less).key == "b"


async def test_x_instance_of_a_front_end_chooses_one() -> None:
    sites = MemorySites()
    async with backend() as one, backend() as two, door(sites, front_ends=LOCAL) as front:
        sites.add("b:u:shop:1", port=one.port)
        sites.add("b:u:shop:2", port=two.port)
        for _ in range(3):
            assert (await ask(front, X_Instance="2"))[0] == 200
        assert (len(one.requests), len(two.requests)) == (0, 3)
        assert (await ask(front, X_Instance="3"))[0] == 404
        for _ in range(4):
            assert (await ask(front))[0] == 200
        assert (len(one.requests), len(two.requests)) == (2, 5)


# --- answering instead of forwarding


async def test_a_front_end_that_proxies_by_itself_is_told_where() -> None:
    sites = MemorySites()
    async with door(sites, front_ends=LOCAL, mode="answer") as front:
        sites.ports[KEY] = 8080
        status, headers, body = await ask(front, **WISH)
        assert (status, headers["x-backend-address"], headers["x-fofoca-cold-start"]) == (200, "127.0.0.1:8080", "1")
        told = json.loads(body)
        assert (told["site"], told["address"], told["port"], told["cold_start"]) == (KEY, "127.0.0.1", 8080, True)
        await until(lambda: (sites.uses, sites.open[KEY], front.counts.answered) == (1, 0, 1))
        status, _, body = await ask(front, X_Fofoca_Door="sideways", **WISH)
        assert (status, "answer or forward" in json.loads(body)["detail"]) == (400, True)


async def test_the_header_of_a_front_end_decides_and_the_public_is_never_told() -> None:
    sites = MemorySites()
    async with backend() as behind:
        sites.add(port=behind.port)
        async with door(sites, front_ends=LOCAL, mode="answer") as front:
            assert "x-backend-address" not in (await ask(front, X_Fofoca_Door="forward"))[1]
        async with door(sites, front_ends=LOCAL) as front:
            assert "x-backend-address" in (await ask(front, X_Fofoca_Door="Answer"))[1]
        async with door(sites, mode="answer") as front:
            assert "x-backend-address" not in (await ask(front, X_Fofoca_Door="answer"))[1]
        assert len(behind.requests) == 2


async def test_a_container_can_not_speak_for_the_door() -> None:
    async def forging(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Backend-Address: 10.0.0.1:22\r\nX-Fofoca-Cold-Start: 1\r\n"
            b"Connection: X-Own\r\nX-Own: 1\r\nKeep-Alive: timeout=5\r\n\r\n"
        )

    sites = MemorySites()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, forging, 0)
        sites.add(port=listeners[0].socket.getsockname()[1])
        async with door(sites, front_ends=LOCAL) as front:
            _, headers, _ = await ask(front)
            assert set(headers) == {"content-length", "via", "connection"}
        nursery.cancel_scope.cancel()


# --- waiting


async def test_who_waits_too_long_is_told_to_come_again() -> None:
    sites = MemorySites(start_s=60)
    sites.add(phase="asleep")
    async with door(sites, hold_s=0.1) as front:
        status, headers, body = await ask(front)
        assert (status, headers["retry-after"], headers["content-type"]) == (503, "2", "application/problem+json")
        problem = json.loads(body)
        assert (problem["type"], problem["title"]) == ("urn:fofoca:problem:starting", "Service Unavailable")
        assert KEY in problem["detail"]
        await until(lambda: front.counts.refused["starting"] == 1)


async def test_browsers_get_a_page_that_asks_again() -> None:
    sites = MemorySites(start_s=60)
    sites.add(phase="asleep", reason="<b>no & room</b>")
    async with door(sites, hold_s=0.0) as front:
        status, headers, body = await ask(front, **HTML)
        assert (status, headers["content-type"], headers["retry-after"]) == (503, "text/html; charset=utf-8", "2")
        assert b'http-equiv="refresh" content="2"' in body
        assert b"&lt;b&gt;no &amp; room" in body
        assert b"http://" not in body
        assert b"https://" not in body
        assert headers["cache-control"] == "no-store"
        client = await front.connect()
        await client.send(request(method="POST", Content_Length="0", **HTML))
        assert (await client.answer())[1]["content-type"] == "application/problem+json"


async def test_a_site_that_is_thawed_while_it_is_asked_for_was_cold_all_the_same() -> None:
    sites = MemorySites()

    async def at_once(key: str, wait_s: float) -> SiteView:
        sites.add(port=behind.port)
        return sites.views[key]

    sites.wake = at_once  # type: ignore[method-assign]
    async with backend() as behind, door(sites) as front:
        sites.add(phase="frozen")
        status, headers, _ = await ask(front)
        assert (status, headers["x-fofoca-cold-start"]) == (200, "1")
        assert "x-fofoca-cold-start" not in (await ask(front))[1]


async def test_browsers_see_the_page_before_others_are_told_anything() -> None:
    sites = MemorySites(start_s=0.6)
    async with backend() as behind, door(sites, browser_hold_s=0.05, hold_s=30.0) as front:
        sites.add(port=behind.port, phase="asleep")
        status, headers, _ = await ask(front, **HTML)
        assert (status, headers["content-type"]) == (503, "text/html; charset=utf-8")
        status, headers, _ = await ask(front)
        assert (status, headers["x-fofoca-cold-start"]) == (200, "1")


async def test_an_application_without_its_image_is_the_operators_to_mend() -> None:
    refused = raised(refusal(UnknownImage("tomcat8")))  # as it comes from the keeper's node
    async with door(MemorySites(failing=refused), front_ends=LOCAL) as front:
        status, headers, body = await ask(front, **WISH)
        assert (status, headers["retry-after"]) == (503, "30")
        assert json.loads(body)["type"] == "urn:fofoca:problem:no-image"
        assert "tomcat8" in json.loads(body)["detail"]


async def test_nobody_is_held_for_a_site_that_fits_nowhere() -> None:
    sites = MemorySites(start_s=60)
    sites.add(phase="starting", hopeless=True, reason="memory is short on 3 of 3 nodes")
    sites.starting[KEY] = trio.Event()
    async with door(sites, hold_s=60.0) as front:
        with trio.fail_after(PATIENCE_S):
            status, headers, body = await ask(front)
        assert (status, headers["retry-after"], json.loads(body)["type"]) == (503, "30", "urn:fofoca:problem:no-room")
        assert "memory is short on 3 of 3 nodes" in json.loads(body)["detail"]


async def test_nobody_is_held_for_a_site_whose_container_ends_again_and_again() -> None:
    sites = MemorySites(start_s=60)
    sites.add(phase="starting", failing=True, reason="its container ended 2 times, last with: exit code 3")
    sites.starting[KEY] = trio.Event()
    async with door(sites, hold_s=60.0) as front:
        with trio.fail_after(PATIENCE_S):
            status, headers, body = await ask(front)
        assert (status, headers["retry-after"], json.loads(body)["type"]) == (503, "2", "urn:fofoca:problem:failing")
        assert "last with: exit code 3" in json.loads(body)["detail"]
        with trio.fail_after(PATIENCE_S):
            status, headers, body = await ask(front, **HTML)
        assert (status, headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert b"does not start" in body
        assert b"last with: exit code 3" in body


async def test_a_broken_site_says_why_and_when() -> None:
    sites = MemorySites()
    sites.add(phase="broken", reason="exited with 1", retry_s=41.5)
    async with door(sites) as front:
        status, headers, body = await ask(front)
        assert (status, headers["retry-after"]) == (503, "42")
        assert "exited with 1" in json.loads(body)["detail"]
        assert b"exited with 1" in (await ask(front, **HTML))[2]


async def test_the_keeper_is_told_when_nobody_answers() -> None:
    sites = MemorySites()
    sites.add(port=1)
    async with door(sites, connect_timeout_s=0.2) as front:
        status, headers, body = await ask(front)
        assert (status, headers["retry-after"]) == (503, "7")
        assert len(sites.told) == 1
        assert "127.0.0.1:1 takes no connections" in json.loads(body)["detail"]


async def test_a_site_that_moved_is_found_where_it_is_now() -> None:
    sites = MemorySites()
    sites.add(port=1)
    async with backend() as behind, door(sites, connect_timeout_s=20.0) as front:
        client = await front.connect()
        await client.send(request())
        await until(lambda: len(sites.asked) > 0)
        sites.add(port=behind.port)
        assert (await client.answer())[0] == 200
        assert sites.told == []


async def test_a_request_waits_where_the_keeper_finds_that_nobody_answers_either() -> None:
    sites = MemorySites(start_s=0.6)
    sites.add(port=1)

    async def lost(key: str, keeper: str, why: str) -> SiteView:
        sites.told.append(why)
        sites.add(port=behind.port, phase="asleep")
        return await sites.wake(key, 0.0)

    sites.unready = lost  # type: ignore[method-assign]
    async with backend() as behind, door(sites, connect_timeout_s=0.1) as front:
        assert (await ask(front))[0] == 200
        assert len(sites.told) == 1


async def test_a_request_waits_for_a_site_that_was_just_lost() -> None:
    sites = MemorySites(start_s=0.6)
    sites.add(port=1)
    async with backend() as behind, door(sites, connect_timeout_s=0.3) as front:
        client = await front.connect()
        await client.send(request())
        await until(lambda: len(sites.asked) > 0)
        sites.add(port=behind.port, phase="asleep")
        assert (await client.answer())[0] == 200
        assert sites.told == []


async def test_a_silent_backend_may_be_frozen_so_its_keeper_is_asked() -> None:
    answering = trio.Event()

    async def thawed(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await answering.wait()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    sites = MemorySites()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, thawed, 0)
        sites.add(port=listeners[0].socket.getsockname()[1])
        async with door(sites) as front:
            client = await front.connect()
            await client.send(request())
            await until(lambda: sites.asked == [KEY])
            answering.set()
            assert (await client.answer())[0] == 200
        nursery.cancel_scope.cancel()


async def test_an_application_that_never_answers_is_a_gateway_time_out() -> None:
    async def silent(stream: trio.SocketStream) -> None:
        while await stream.receive_some(65_536):
            pass

    sites = MemorySites()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, silent, 0)
        sites.add(port=listeners[0].socket.getsockname()[1])
        async with door(sites, answer_timeout_s=1.2) as front:
            assert (await ask(front))[0] == 504
        nursery.cancel_scope.cancel()


async def test_who_waits_has_a_bound_in_all_and_for_each_site() -> None:
    sites = MemorySites(start_s=60)
    for number in (1, 2, 3):
        sites.add(f"b:u:shop:{number}", f"h{number}.example", phase="asleep")
    async with door(sites, waiting_max=3, site_waiting_max=2) as front:
        clients = [await front.connect() for _ in range(3)]
        for client, host in zip(clients, ("h1.example", "h1.example", "h2.example"), strict=True):
            await client.send(request(host))
        await until(lambda: front.counts.waiting == 3)
        status, headers, body = await ask(front, "h1.example")
        assert (status, headers["retry-after"]) == (503, "2")
        assert "door.waiting_max" in json.loads(body)["detail"]
        # One that gives up makes room.
        await clients[2].stream.aclose()
        await until(lambda: front.counts.waiting == 2)
        assert "door.site_waiting_max" in json.loads((await ask(front, "h1.example"))[2])["detail"]
        assert front.counts.gone == 1


async def test_a_site_is_carried_so_many_requests_at_once() -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await trio.sleep_forever()

    sites = MemorySites()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, silent, 0)
        sites.add(port=listeners[0].socket.getsockname()[1])
        async with door(sites, site_requests_max=1) as front:
            client = await front.connect()
            await client.send(request())
            await until(lambda: sites.open[KEY] == 1)
            assert "door.site_requests_max" in json.loads((await ask(front))[2])["detail"]
        nursery.cancel_scope.cancel()


async def test_the_sites_own_refusals_are_passed_on() -> None:
    sites = MemorySites(failing=Busy("shop has 100 sites up here"))
    async with door(sites, front_ends=LOCAL) as front:
        status, headers, body = await ask(front, **WISH)
        assert (status, headers["retry-after"]) == (503, "2")
        assert "100 sites" in json.loads(body)["detail"]


# --- what is known of it


async def test_each_request_is_a_line_of_the_log_where_that_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fofoca.door")
    sites = MemorySites()
    async with backend() as behind:
        sites.add(port=behind.port)
        async with door(sites) as front:
            await ask(front)
        assert not [each for each in caplog.records if "client" in each.fofoca_fields]  # type: ignore[attr-defined]
        async with door(sites, access_log=True) as front:
            client = await front.connect()
            await client.send(f"GET /{'a' * 5000} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await client.answer()
            await ask(front, "nobody.example")
            await until(lambda: front.counts.requests == 2)
    told = [record.fofoca_fields for record in caplog.records]  # type: ignore[attr-defined]
    first, second = (each for each in told if "client" in each)
    assert (first["method"], first["status"], first["site"], first["client"]) == ("GET", 200, KEY, "127.0.0.1")
    assert len(first["target"]) == 200
    assert first["sent"] > 100
    assert (second["status"], second["refused"]) == (404, "unknown-host")


async def test_counts_are_there_by_name() -> None:
    async with door(MemorySites()) as front:
        await ask(front)
        await until(lambda: front.counts.requests == 1)
        counted = front.counts.as_dict()
        assert (counted["requests"], counted["refused_unknown_host"], counted["cold"]) == (1, 1, 0)
