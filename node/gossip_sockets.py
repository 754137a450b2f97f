"""Gossip's sockets: binding UDP and TCP to one port, refusals from the error queue, frames on streams.

Knows nothing of the machine. A refused datagram shows up in the socket's error queue (IP_RECVERR, Linux), together
with the address it was sent to.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import Final

import trio

from cluster.config import FRAME_BYTES_MAX
from cluster.membership import Address

IP_RECVERR: Final = 11
IPV6_RECVERR: Final = 25
ERRORS_A_TURN: Final = 64
LISTEN_BACKLOG: Final = 512
_LENGTH: Final = struct.Struct("!I")


def read_refusals(udp: socket.socket) -> list[Address]:
    """Empty the socket's error queue; return the addresses that refused a datagram."""
    refused: list[Address] = []
    for _ in range(ERRORS_A_TURN):
        try:
            _, ancillary, _, target = udp.recvmsg(1, 512, socket.MSG_ERRQUEUE)
        except OSError:
            break
        for _, kind, data in ancillary:
            if kind in (IP_RECVERR, IPV6_RECVERR) and struct.unpack_from("=I", data)[0] == errno.ECONNREFUSED:
                refused.append((target[0], target[1]))
    return refused


def bind(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP socket and a TCP listener on the same port. Errors: OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    attempts = 20 if port == 0 else 1
    while True:
        attempts -= 1
        udp = socket.socket(family, socket.SOCK_DGRAM)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            udp.setblocking(False)
            listener.setblocking(False)
            if family == socket.AF_INET6:
                udp.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            else:
                udp.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            udp.bind((host, port))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, udp.getsockname()[1]))
            listener.listen(LISTEN_BACKLOG)
        except OSError as error:
            udp.close()
            listener.close()
            if attempts and error.errno == errno.EADDRINUSE:
                continue
            raise OSError(error.errno, f"gossip can't listen on {host}:{port}: {error.strerror}") from None
        return udp, listener


async def connect(address: Address) -> trio.SocketStream:
    """Connect by TCP; a host that is no IP address is looked up. Errors: OSError."""
    host, port = address
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return await trio.open_tcp_stream(host, port)
    connection = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await connection.connect((host, port))
    except BaseException:
        connection.close()
        raise
    return trio.SocketStream(connection)


async def send_frame(stream: trio.SocketStream, frame: bytes) -> None:
    """Send one frame: four bytes of length, then the bytes."""
    await stream.send_all(_LENGTH.pack(len(frame)) + frame)


async def receive_frame(stream: trio.SocketStream) -> bytes:
    """Return one frame, empty when the stream ended early or the length is out of bounds."""
    received = bytearray()
    length = _LENGTH.size
    while len(received) < length:
        chunk = await stream.receive_some(65536)
        if not chunk:
            return b""
        received += chunk
        if length == _LENGTH.size and len(received) >= length:
            length += _LENGTH.unpack_from(received)[0]
            if length > _LENGTH.size + FRAME_BYTES_MAX:
                return b""
    return bytes(received[_LENGTH.size : length])
