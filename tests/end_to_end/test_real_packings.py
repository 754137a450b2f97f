"""What podman writes is what we read: one image in every form it knows."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from node import rootfs
from node.host.images import ImageStore

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("podman") is None, reason="needs podman to make images with"),
]
RECIPE = """FROM localhost/base:1
COPY app /opt/app
COPY app /opt/gone
ENV GREETING=hi
USER 1234
WORKDIR /opt
ENTRYPOINT ["/opt/app"]
CMD ["world"]
"""


class Podman:
    """One with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]

    def __call__(self, *arguments: str | Path) -> str:
        command = ["podman", *self._options, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    storage = Path(tempfile.mkdtemp(prefix="fofoca-podman."))  # podman takes no long paths
    podman = Podman(storage)
    try:
        _make_image(podman, tmp_path)
        yield podman
    finally:
        shutil.rmtree(storage)


def _make_image(podman: Podman, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "base.tar", "w") as archive:
        info = tarfile.TarInfo("etc/passwd")
        content = b"root:x:0:0::/:/bin/sh\n"
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    podman("import", "-q", tmp_path / "base.tar", "localhost/base:1")
    context = tmp_path / "context"
    context.mkdir()
    (context / "app").write_text("#!/bin/sh\n")
    (context / "Dockerfile").write_text(RECIPE)
    podman("build", "-q", "--network", "none", "-t", "localhost/app:1", context)


async def test_every_form_of_one_image_is_the_same_image(podman: Podman, tmp_path: Path) -> None:
    forms = ("docker-archive", "oci-archive", "oci-dir")
    for form in forms:
        podman("save", "-q", "--format", form, "-o", tmp_path / form, "localhost/app:1")
    store = await ImageStore.open(tmp_path / "images")

    async def import_(path: Path) -> str:
        async def chunks() -> AsyncIterator[bytes]:
            for chunk in rootfs.read(path):
                yield chunk

        return (await store.import_tar("app", chunks())).digest

    digests = {await import_(tmp_path / form) for form in forms}
    assert len(digests) == 1
    digest = digests.pop()
    config = store.facts(digest).config
    assert (config.command, config.user, config.workdir) == (("/opt/app", "world"), "1234", "/opt")
    assert ("GREETING", "hi") in config.env
    assert (store.rootfs(digest) / "opt/app").read_text() == "#!/bin/sh\n"
