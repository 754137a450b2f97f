"""Secrets of jobs: sealed when a job is taken, opened by the node that runs it, in between only sealed.

AES-256-GCM under a key derived from the cluster's for this purpose alone; owner and name are bound in, so that nobody
can have another user's sealed secret opened in a job of their own. Layout: 12 random bytes, then ciphertext and tag.
Sealed under the ring's first key, opened under any: what was sealed under a key that was removed since is lost.
"""

from __future__ import annotations

import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cluster.seal import KeyRing, derive_key
from node.errors import InvalidValue, NodeError
from scheduler.model import JobSpec
from scheduler.spec.files import SECRET_BYTES_MAX, Secret

NONCE_BYTES = 12
PURPOSE = "job secrets"


class SecretLost(NodeError):
    """Nobody's fault but the order of events: the key is gone. Names the secret, never its content."""


class JobSecrets:
    """Seals and opens under one cluster's keys. A ring of None: a node without a key, which takes no secrets."""

    def __init__(self, ring: KeyRing | None) -> None:
        self._ring = ring

    def seal(self, owner: str, spec: JobSpec) -> JobSpec:
        """Return the spec with its secrets sealed; InvalidValue, which never quotes a content."""
        if not spec.files.secrets:
            return spec
        sealed = tuple(self._sealed(owner, secret) for secret in spec.files.secrets)
        return msgspec.structs.replace(spec, files=msgspec.structs.replace(spec.files, secrets=sealed))

    def open(self, owner: str, secret: Secret) -> bytes:
        """Return a sealed secret's content; SecretLost."""
        nonce, box = secret.sealed[:NONCE_BYTES], secret.sealed[NONCE_BYTES:]
        for key in self._ring.keys if self._ring else ():
            try:
                return _cipher(key).decrypt(nonce, box, _context(owner, secret.name))
            except (InvalidTag, ValueError):
                continue
        raise SecretLost(
            f"the secret {secret.name} can't be opened: the key it was sealed under was removed; submit the job anew"
        )

    def _sealed(self, owner: str, secret: Secret) -> Secret:
        field = f"files.secrets {secret.name[:64]}"
        if secret.sealed:
            raise InvalidValue(field, "sealed", "send its content; nodes seal it themselves")
        if not 0 < len(secret.content) <= SECRET_BYTES_MAX:
            raise InvalidValue(field, f"{len(secret.content)} bytes", f"expected 1 to {SECRET_BYTES_MAX:,} bytes")
        if self._ring is None:
            raise InvalidValue(field, "not sealable", "expected a cluster with a key (cluster.key_file)")
        nonce = os.urandom(NONCE_BYTES)
        box = _cipher(self._ring.keys[0]).encrypt(nonce, secret.content, _context(owner, secret.name))
        return msgspec.structs.replace(secret, content=b"", sealed=nonce + box)


def _cipher(key: bytes) -> AESGCM:
    return AESGCM(derive_key(key, PURPOSE))


def _context(owner: str, name: str) -> bytes:
    return f"{owner}\0{name}".encode()
