"""What a warm request goes through: nothing, our door, nginx, HAProxy, each in a process of its own, to one backend.

    python proxies.py backend|door PORT BACKEND_PORT

The backend answers each request with a few bytes as fast as Python can. The door has one site, awake at the backend;
nginx and HAProxy are bare reverse proxies with kept connections to it. The client is a plain socket.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio

from node.door.catalogue import Catalogue
from node.door.config import Door
from node.door.http import serve
from scheduler.sites.site import Site, SitePhase, SiteView

HOST = "bench.example"
REQUEST = f"GET /page?a=b HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"

NGINX = """daemon off; pid {folder}/pid; worker_processes 1; events {{ worker_connections 1024; }}
http {{ access_log off; {places}
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 32; }}
  server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; location / {{ proxy_pass http://backend;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }} }} }}
"""
HAPROXY = """defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend web
  bind 127.0.0.1:{port}
  default_backend behind
backend behind
  http-reuse always
  server one 127.0.0.1:{backend}
"""


class OneSite:
    """A site that is awake for good."""

    def __init__(self, port: int) -> None:
        self._view = SiteView("b:u:bench:1", "bench", SitePhase.AWAKE, "n1", (HOST,), port=port, address="127.0.0.1")

    async def want(self, site: Site, wait_s: float) -> SiteView:
        return self._view

    async def wake(self, key: str, wait_s: float) -> SiteView:
        return self._view

    async def find(self, host: str) -> tuple[SiteView, ...]:
        return (self._view,)

    def remembered(self, key: str) -> SitePhase | None:
        return SitePhase.AWAKE

    def began(self, key: str, keeper: str) -> None:
        """Need no count."""

    def ended(self, key: str, keeper: str) -> None:
        """Need no count."""

    async def unready(self, key: str, keeper: str, why: str) -> SiteView:
        return self._view


@contextmanager
def all_of_them() -> Iterator[dict[str, int]]:
    """Run every way there is here; yield the ports by name."""
    backend, door, nginx, haproxy = _free_ports(4)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fofoca-bench.")))
        ports = {"direct": backend, "fofoca": door}
        commands = [[sys.executable, __file__, "backend", str(backend), "0"],
                    [sys.executable, __file__, "door", str(door), str(backend)]]  # fmt: skip
        if found := shutil.which("nginx", path="/usr/sbin:/usr/bin"):
            places = "".join(
                f"{each}_temp_path {folder};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            (folder / "nginx.conf").write_text(NGINX.format(folder=folder, places=places, port=nginx, backend=backend))
            commands.append([found, "-p", str(folder), "-e", f"{folder}/errors", "-c", f"{folder}/nginx.conf"])
            ports["nginx"] = nginx
        if found := shutil.which("haproxy", path="/usr/sbin:/usr/bin"):
            (folder / "haproxy.cfg").write_text(HAPROXY.format(port=haproxy, backend=backend))
            commands.append([found, "-db", "-q", "-f", f"{folder}/haproxy.cfg"])
            ports["haproxy"] = haproxy
        folder.chmod(0o755)
        for command in commands:
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        for port in ports.values():
            _wait_for(port)
        yield ports


def once(connection: socket.socket) -> float:
    """Send one request over a connection; return the milliseconds until its answer is whole."""
    began = time.perf_counter()
    _exchange(connection)
    return (time.perf_counter() - began) * 1000


def anew(port: int) -> float:
    """Send one request over a connection of its own; return the milliseconds, connecting included."""
    began = time.perf_counter()
    with open_to(port) as connection:
        _exchange(connection)
        return (time.perf_counter() - began) * 1000


def open_to(port: int) -> socket.socket:
    """Return a connection."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _exchange(connection: socket.socket) -> None:
    connection.sendall(REQUEST)
    received = b""
    while not received.endswith(b"hello"):
        piece = connection.recv(65_536)
        assert piece, received
        received += piece
    assert received.startswith(b"HTTP/1.1 200"), received


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for(port: int) -> None:
    for _ in range(1000):
        try:
            open_to(port).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit(f"nobody listens on port {port}")


async def _backend(stream: trio.SocketStream) -> None:
    try:
        while True:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = await stream.receive_some(65_536)
                if not piece:
                    return
                head += piece
            await stream.send_all(ANSWER)
    except trio.BrokenResourceError:
        return


def main() -> None:
    what, port, backend = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if what == "backend":
        trio.run(trio.serve_tcp, _backend, port)
    else:
        trio.run(serve, ("127.0.0.1", port), Door(), OneSite(backend), Catalogue())


if __name__ == "__main__":
    main()
