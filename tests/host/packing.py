"""Makes packed images for the tests: layers, an OCI layout, what `docker save` writes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from typing import Any

from node.host.oci import ARCHITECTURES

Entry = tuple[tarfile.TarInfo, bytes]
MACHINE = os.uname().machine
PLATFORM = {"architecture": ARCHITECTURES.get(MACHINE, MACHINE), "os": "linux"}


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **attributes: Any) -> Entry:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    info.mode = 0o755
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def tar(*entries: Entry) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def configuration(layers: list[bytes], **config: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}
    return json.dumps({**PLATFORM, "config": config, "rootfs": rootfs}).encode()


class Layout:
    """An OCI layout in memory: `files` may be tampered with before `pack`."""

    def __init__(self, layers: list[bytes], packed: list[bytes] | None = None, **config: Any) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.config = configuration(layers, **config)
        self.manifest: dict[str, Any] = {
            "config": self.add(self.config),
            "layers": [self.add(layer) for layer in packed or layers],
        }
        self.index: dict[str, Any] = {"manifests": [self.add(json.dumps(self.manifest).encode())]}

    def add(self, content: bytes) -> dict[str, Any]:
        self.files["blobs/sha256/" + digest(content).removeprefix("sha256:")] = content
        return {"digest": digest(content), "size": len(content), "mediaType": ""}

    def remanifest(self) -> None:
        """Take over a changed manifest."""
        self.index = {"manifests": [self.add(json.dumps(self.manifest).encode())]}

    def pack(self) -> bytes:
        files = {**self.files, "index.json": json.dumps(self.index).encode()}
        folders = [entry(name, kind=tarfile.DIRTYPE) for name in (".", "blobs", "blobs/sha256")]
        return tar(*folders, *(entry(name, content) for name, content in files.items()))


def docker_archive(layers: list[bytes], *extra: Entry, images: int = 1, **config: Any) -> bytes:
    text = configuration(layers, **config)
    names = [f"{digest(layer)[7:]}.tar" for layer in layers]
    manifest = [{"Config": f"{digest(text)[7:]}.json", "RepoTags": ["app:1"], "Layers": names}] * images
    files = [entry(name, layer) for name, layer in zip(names, layers, strict=True)]
    files += [entry(f"{digest(text)[7:]}.json", text), entry("manifest.json", json.dumps(manifest).encode())]
    return tar(*files, *extra)
