"""Sealing: who may speak, and proof that nobody changed, replayed or invented a packet.

Owns the key ring, the derivation of sub-keys, nonces and replay windows. It knows nothing of what the bytes mean, of
sockets or of clocks. AES-256-GCM; keys by HKDF-SHA256 (RFC 5869); windows as in IPsec (RFC 4303, 3.4.3).

Every sender draws a random 8-byte session at each boot. A packet is sealed under a key derived from the cluster's
key, the purpose and that session, with a counter as nonce: so no nonce can come twice under one key, whatever a node
forgets when it restarts. Layout of everything sealed (sizes in bytes):

    1 marker and version (0xF0 + version; 0xE0 + version: not sealed)   2 key id   8 session   5 counter
    n ciphertext   16 tag
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cluster.errors import BadPacket, InvalidKey

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 2
SESSION_BYTES: Final = 8
COUNTER_BYTES: Final = 5
HEADER_BYTES: Final = 1 + KEY_ID_BYTES + SESSION_BYTES + COUNTER_BYTES
TAG_BYTES: Final = 16
SEAL_OVERHEAD_BYTES: Final = HEADER_BYTES + TAG_BYTES
WINDOW_PACKETS: Final = 1024
SESSIONS_MAX: Final = 16_384  # Remembered senders; the one unheard longest goes first.
KEYS_MAX: Final = 8
BODY_LIFETIME_S: Final = 30.0

_SEALED: Final = 0xF0
_PLAIN: Final = 0xE0
_KEY_SLICE: Final = slice(1, 1 + KEY_ID_BYTES)
_SESSION_SLICE: Final = slice(1 + KEY_ID_BYTES, 1 + KEY_ID_BYTES + SESSION_BYTES)
_COUNTER_SLICE: Final = slice(1 + KEY_ID_BYTES + SESSION_BYTES, HEADER_BYTES)
_COUNTER_MAX: Final = (1 << (8 * COUNTER_BYTES)) - 1
_NONCE_PADDING: Final = bytes(12 - COUNTER_BYTES)
_WINDOW_MASK: Final = (1 << WINDOW_PACKETS) - 1


def derive_key(cluster_key: bytes, purpose: str) -> bytes:
    """Return the 32-byte sub-key for one purpose; keys of different purposes say nothing of each other.

    Errors: InvalidKey. Source: HKDF-SHA256 with a fixed salt, one block.
    """
    if len(cluster_key) != KEY_BYTES:
        raise InvalidKey(f"cluster key: {len(cluster_key)} bytes are not valid; give {KEY_BYTES}")
    pseudo_random = hmac.digest(b"fofoca cluster key", cluster_key, hashlib.sha256)
    return hmac.digest(pseudo_random, purpose.encode() + b"\x01", hashlib.sha256)


class KeyRing:
    """The cluster's keys: every one opens, the primary seals. At most KEYS_MAX, known by their ids (4 hex digits)."""

    def __init__(self, cluster_key: bytes, *others: bytes, label: str = "fofoca") -> None:
        self.label = label
        self._keys: dict[bytes, bytes] = {}
        self._ciphers: OrderedDict[tuple[bytes, bytes, str], AESGCM] = OrderedDict()
        self._primary = bytes.fromhex(self.add(cluster_key))
        for key in others:
            self.add(key)

    def add(self, cluster_key: bytes) -> str:
        """Take a key in for opening and return its id; a key already there changes nothing."""
        key_id = derive_key(cluster_key, "key id")[:KEY_ID_BYTES]
        present = self._keys.get(key_id)
        if present is not None and not hmac.compare_digest(present, cluster_key):
            raise InvalidKey(f"cluster key: its id {key_id.hex()} is taken by another key; make a new key")
        if present is None and len(self._keys) >= KEYS_MAX:
            raise InvalidKey(f"key ring: {KEYS_MAX} keys are the most it holds; remove one first")
        self._keys[key_id] = cluster_key
        return key_id.hex()

    def use(self, key_id: str) -> None:
        """Seal with this key from now on."""
        self._primary = self._find(key_id)

    def remove(self, key_id: str) -> None:
        """Forget a key; the primary one can't be removed."""
        found = self._find(key_id)
        if found == self._primary:
            raise InvalidKey(f"key {key_id}: seals at present; use another one first")
        del self._keys[found]
        self._ciphers = OrderedDict((name, cipher) for name, cipher in self._ciphers.items() if name[0] != found)

    def replace(self, cluster_key: bytes, *others: bytes) -> None:
        """Hold these keys and no others; the first one seals. Errors: InvalidKey, and then nothing has changed."""
        fresh = KeyRing(cluster_key, *others, label=self.label)
        same = {key_id for key_id, key in fresh._keys.items() if self._keys.get(key_id) == key}
        self._keys, self._primary = fresh._keys, fresh._primary
        self._ciphers = OrderedDict((name, cipher) for name, cipher in self._ciphers.items() if name[0] in same)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The keys themselves, the primary one first."""
        primary = self._keys[self._primary]
        return primary, *(key for key in self._keys.values() if key != primary)

    def list(self) -> tuple[tuple[str, bool], ...]:
        """Return (id, is primary) of every key, in the order they were added."""
        return tuple((key_id.hex(), key_id == self._primary) for key_id in self._keys)

    def __contains__(self, key_id: bytes) -> bool:
        return key_id in self._keys

    @property
    def primary(self) -> bytes:
        """The id of the key that seals."""
        return self._primary

    def known(self, key_id: bytes, session: bytes, purpose: str) -> AESGCM | None:
        """Return the kept cipher of a sender's session."""
        return self._ciphers.get((key_id, session, purpose))

    def cipher(self, key_id: bytes, session: bytes, purpose: str) -> AESGCM:
        """Make the cipher of one sender's session for one purpose. Errors: BadPacket for an unknown key."""
        cluster_key = self._keys.get(key_id)
        if cluster_key is None:
            raise BadPacket("key", key_id.hex())
        return AESGCM(derive_key(cluster_key, f"{purpose}\0{self.label}\0{session.hex()}"))

    def keep(self, key_id: bytes, session: bytes, purpose: str, cipher: AESGCM) -> None:
        """Remember the cipher of a sender that proved itself; forged sessions must not push real ones out."""
        self._ciphers[key_id, session, purpose] = cipher
        if len(self._ciphers) > SESSIONS_MAX:
            self._ciphers.popitem(last=False)

    def _find(self, key_id: str) -> bytes:
        try:
            found = bytes.fromhex(key_id)
        except ValueError:
            found = b""
        if found not in self._keys:
            known = ", ".join(key.hex() for key in self._keys)
            raise InvalidKey(f"key id: {key_id!r} is not on the ring; known are {known}")
        return found


class Sealer:
    """One sender's outgoing half: seals under its session, counting. A ring of None leaves bytes readable."""

    def __init__(self, key_ring: KeyRing | None, session: bytes, purpose: str) -> None:
        if len(session) != SESSION_BYTES:
            raise InvalidKey(f"session: {len(session)} bytes are not valid; give {SESSION_BYTES}")
        self._ring = key_ring
        self._session = session
        self._purpose = purpose
        self._counter = 0

    def seal(self, version: int, data: bytes, request: bytes = b"") -> bytes:
        """Return the packet. `request`: the header of what it answers; not sent, yet the same is needed at opening.

        An answer is sealed under its request's key: a node that was away while the keys changed can read it.
        """
        self._counter += 1
        if self._counter > _COUNTER_MAX:
            raise InvalidKey("session: its counter is used up; restart the agent to draw a new one")
        counter = self._counter.to_bytes(COUNTER_BYTES, "big")
        ring = self._ring
        if ring is None:
            return b"%c\0\0%b%b%b" % (_PLAIN | version, self._session, counter, data)
        asked_under = request[_KEY_SLICE]
        key_id = asked_under if asked_under in ring else ring.primary
        cipher = ring.known(key_id, self._session, self._purpose)
        if cipher is None:
            cipher = ring.cipher(key_id, self._session, self._purpose)
            ring.keep(key_id, self._session, self._purpose, cipher)
        header = b"%c%b%b%b" % (_SEALED | version, key_id, self._session, counter)
        return header + cipher.encrypt(_NONCE_PADDING + counter, data, header + request)


class Opener:
    """The incoming half: opens any sender's packets of one purpose and refuses what came before."""

    def __init__(self, key_ring: KeyRing | None, purpose: str) -> None:
        self._ring = key_ring
        self._purpose = purpose
        self._windows: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    def open(self, packet: bytes, context: bytes = b"") -> tuple[int, bytes, bytes]:
        """Return (version, session of the sender, data). Errors: BadPacket, and then nothing has changed."""
        marker = packet[0] & 0xF0 if packet else 0
        if len(packet) < (SEAL_OVERHEAD_BYTES if self._ring is not None else HEADER_BYTES):
            raise BadPacket("short", f"{len(packet)} bytes")
        if marker != (_SEALED if self._ring is not None else _PLAIN):
            raise BadPacket("version", f"marker {packet[0]:#x}")
        session = bytes(packet[_SESSION_SLICE])
        counter_bytes = packet[_COUNTER_SLICE]
        counter = int.from_bytes(counter_bytes, "big")
        window = self._windows.get(session, (0, 0))
        if self._seen(window, counter):
            raise BadPacket("replayed", f"counter {counter}")
        data = packet[HEADER_BYTES:]
        if self._ring is not None:
            key_id = bytes(packet[_KEY_SLICE])
            known = self._ring.known(key_id, session, self._purpose)
            cipher = known or self._ring.cipher(key_id, session, self._purpose)
            try:
                data = cipher.decrypt(_NONCE_PADDING + counter_bytes, data, packet[:HEADER_BYTES] + context)
            except InvalidTag:
                raise BadPacket("forged", "the seal is broken") from None
            if known is None:
                self._ring.keep(key_id, session, self._purpose, cipher)
        self._remember(session, window, counter)
        return packet[0] & 0x0F, session, data

    @staticmethod
    def _seen(window: tuple[int, int], counter: int) -> bool:
        highest, bits = window
        if counter > highest:
            return False
        age = highest - counter
        return age >= WINDOW_PACKETS or bool(bits >> age & 1)

    def _remember(self, session: bytes, window: tuple[int, int], counter: int) -> None:
        highest, bits = window
        if counter > highest:
            step = counter - highest
            bits = ((bits << step) & _WINDOW_MASK) | 1 if step < WINDOW_PACKETS else 1
            highest = counter
        else:
            bits |= 1 << (highest - counter)
        self._windows[session] = (highest, bits)
        self._windows.move_to_end(session)
        if len(self._windows) > SESSIONS_MAX:
            self._windows.popitem(last=False)


class BodySealer:
    """Seals the bodies of requests and replies between nodes; each peer keeps one.

    A body carries its sender's name and the time it was sealed, and is refused when it is older than `lifetime_s` or
    was opened before. A reply is bound to its request: pass the request's `nonce_of` to both seal and open.
    `clock` gives wall-clock seconds; the lifetime must cover the clocks' skew.
    """

    def __init__(
        self,
        key_ring: KeyRing,
        sender: str,
        session: bytes,
        clock: Callable[[], float],
        lifetime_s: float = BODY_LIFETIME_S,
    ) -> None:
        name = sender.encode()
        if not 0 < len(name) < 256:
            raise InvalidKey(f"sender: {sender!r} is not valid; give a name of 1 to 255 bytes")
        self._prefix = bytes([len(name)]) + name
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._sealer = Sealer(key_ring, session, "body")
        self._opener = Opener(key_ring, "body")

    def seal(self, body: bytes, reply_to: bytes = b"") -> bytes:
        """Return the sealed body; `reply_to` is the nonce of the request that it answers."""
        sent_ms = int(self._clock() * 1000).to_bytes(8, "big")
        return self._sealer.seal(1, sent_ms + self._prefix + body, reply_to)

    def open(self, sealed: bytes, reply_to: bytes = b"") -> tuple[str, bytes]:
        """Return (sender's name, body). Errors: BadPacket."""
        version, _, data = self._opener.open(sealed, reply_to)
        if version != 1:
            raise BadPacket("version", f"body version {version}")
        if len(data) < 10 or len(data) < 9 + data[8]:
            raise BadPacket("malformed", "the body has no sender")
        age_s = self._clock() - int.from_bytes(data[:8], "big") / 1000
        if abs(age_s) > self._lifetime_s:
            raise BadPacket(
                "expired", f"sealed {age_s:.0f} s ago by its clock, at most {self._lifetime_s:.0f} s are fine"
            )
        end = 9 + data[8]
        try:
            return data[9:end].decode(), data[end:]
        except UnicodeDecodeError:
            raise BadPacket("malformed", "the sender's name is no text") from None

    @staticmethod
    def nonce_of(sealed: bytes) -> bytes:
        """Return what identifies a sealed request, to bind its reply to."""
        return sealed[:HEADER_BYTES]
