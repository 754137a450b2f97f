"""Volumes, scratch, files in memory and secrets of real containers: they are what was asked and lead nowhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.host.secret_files import SecretFiles
from node.host.staging import scratch_obstacle
from node.host.volumes import VolumeRoot
from node.runtime import StartError
from node.runtime.lxc.lxc import LxcRuntime, lxcfs_files
from node.runtime.parts import FileMounts, VolumeMount
from scheduler.spec.files import Scratch, Tmpfs
from tests.end_to_end.inside import BASE, Inside, loop_files

pytestmark = [pytest.mark.lxc, pytest.mark.root]


@pytest.fixture
def inside(lxc_runtime: LxcRuntime, busybox_image: Path) -> Inside:
    return Inside(lxc_runtime, busybox_image)


@pytest.fixture
def homes() -> Iterator[Path]:
    """A directory of volumes; what is beside it must not be reached."""
    top = Path(tempfile.mkdtemp(prefix="fofoca-homes."))
    (top / "homes").mkdir()
    (top / "beside").mkdir()
    (top / "beside" / "secret").write_text("not yours")
    yield top / "homes"
    shutil.rmtree(top)


def volume(path: Path, folder: str = "", writable: bool = True, owner: str = "ana", **root: Any) -> FileMounts:
    where = VolumeRoot("homes", path, writable=True, **root)
    return FileMounts(volumes=(VolumeMount(where, owner, folder, "/home/ana", writable),))


async def test_a_home_directory_is_written_under_the_ids_it_has_inside(inside: Inside, homes: Path) -> None:
    files = volume(homes, "site", create=True, by_owner=True)
    ending, output = await inside.run("cd /home/ana && echo hi > page && chmod 640 page && ls -ln page", files=files)
    assert ending.exit_code == 0, output
    page = homes / "ana" / "site" / "page"
    assert page.read_text() == "hi\n"
    assert (page.stat().st_uid, page.stat().st_gid) == (0, 0)
    assert output.split()[2:4] == ["0", "0"]
    again, output = await inside.run("cat /home/ana/page", files=files, user_base=BASE + 65_536)
    assert (again.exit_code, output) == (0, "hi\n"), "another range on the host, the same ids inside"


async def test_ids_of_its_own_on_disk(inside: Inside, homes: Path) -> None:
    os.chown(homes, 4242, 4242)
    ending, output = await inside.run("echo hi > /home/ana/page", files=volume(homes, first_id=4242, last_id=4242))
    assert ending.exit_code == 0, output
    assert (homes / "page").stat().st_uid == 4242


async def test_a_read_only_volume_is(inside: Inside, homes: Path) -> None:
    (homes / "page").write_text("there\n")
    ending, output = await inside.run(
        "cat /home/ana/page; echo x > /home/ana/page && echo WRITTEN; mount -o remount,rw /home/ana && echo REMOUNTED",
        files=volume(homes, writable=False),
    )
    assert output.startswith("there\n")
    assert "WRITTEN" not in output
    assert "REMOUNTED" not in output
    assert ending.exit_code != 0


@pytest.mark.parametrize("target", ["../beside", "/etc", "{absolute}"])
async def test_a_link_out_of_a_volume_is_no_way_out(inside: Inside, homes: Path, target: str) -> None:
    (homes / "way").symlink_to(target.format(absolute=homes.parent / "beside"))
    for create in (False, True):
        with pytest.raises(StartError, match="leads out of the volume"):
            await inside.run("cat /home/ana/secret", files=volume(homes, "way", create=create))
        with pytest.raises(StartError, match="leads out of the volume"):
            await inside.run("true", files=volume(homes, "way/deeper", create=create))
    assert not (homes.parent / "beside" / "deeper").exists()


async def test_a_link_to_another_owners_folder_is_no_way_either(inside: Inside, homes: Path) -> None:
    (homes / "ana").mkdir()
    (homes / "bob").mkdir()
    (homes / "ana" / "way").symlink_to("../bob")
    with pytest.raises(StartError, match="leads out of the volume"):
        await inside.run("true", files=volume(homes, "way", by_owner=True))
    (homes / "eve").symlink_to("bob")
    with pytest.raises(StartError, match="a link where none may be"):
        await inside.run("true", files=volume(homes, by_owner=True, owner="eve"))


async def test_a_folder_that_turns_into_a_link_meanwhile_is_never_followed_out(inside: Inside, homes: Path) -> None:
    """The race that checking paths before mounting them loses: many starts while another exchanges the folder."""
    (homes / "real").mkdir()
    (homes / "real" / "secret").write_text("mine")
    racing = threading.Event()

    def exchange() -> None:
        while not racing.is_set():
            (homes / "new").symlink_to("../beside")
            os.rename(homes / "new", homes / "way")
            os.unlink(homes / "way")
            os.rename(homes / "real", homes / "way")
            os.rename(homes / "way", homes / "real")

    racer = threading.Thread(target=exchange)
    racer.start()
    seen, refused = [], 0
    try:
        for _ in range(15):
            try:
                seen.append((await inside.run("cat /home/ana/secret", files=volume(homes, "way")))[1])
            except StartError:
                refused += 1
    finally:
        racing.set()
        racer.join()
    assert set(seen) <= {"mine"}, seen
    assert len(seen) + refused == 15


async def test_a_folder_that_is_missing_is_named(inside: Inside, homes: Path) -> None:
    with pytest.raises(StartError, match="volume homes, folder not/there: there is no such folder"):
        await inside.run("true", files=volume(homes, "not/there"))


async def test_a_link_in_the_image_is_not_where_a_volume_goes(inside: Inside, homes: Path) -> None:
    (inside.image / "home").symlink_to(homes.parent / "beside")
    try:
        with pytest.raises(StartError, match="in the image /home is a link"):
            await inside.run("true", files=volume(homes))
    finally:
        (inside.image / "home").unlink()
    assert os.listdir(homes.parent / "beside") == ["secret"]


async def test_files_in_memory_end_at_their_size_and_count_as_memory(inside: Inside) -> None:
    files = FileMounts(tmpfs=(Tmpfs(target="/cache", size_bytes=4 << 20),))
    ending, output = await inside.run("dd if=/dev/zero of=/cache/x bs=1M count=20; wc -c < /cache/x", files=files)
    assert output.splitlines()[0] == str(4 << 20)
    assert ending.memory_peak_bytes > 4 << 20


@pytest.mark.skipif(scratch_obstacle() is not None, reason=str(scratch_obstacle()))
async def test_scratch_is_on_disk_ends_at_its_size_and_goes_with_the_container(inside: Inside) -> None:
    files = FileMounts(scratch=Scratch(size_bytes=16 << 20))
    line = "dd if=/dev/zero of=/scratch/x bs=1M count=100; wc -c < /scratch/x; ls -lnd /scratch; ls -A /scratch"
    ending, output = await inside.run(line, files=files)
    written, owner, *names = output.splitlines()[:3]
    assert (12 << 20) < int(written) < (16 << 20), output
    assert owner.split()[2:4] == ["0", "0"]
    assert names == ["x"]
    assert ending.memory_peak_bytes <= 64 << 20
    await inside.runtime.remove("1.1.1")
    assert loop_files(inside.runtime.log_path("1.1.1", "stdout").parents[1]) == []


@pytest.mark.skipif(scratch_obstacle() is not None, reason=str(scratch_obstacle()))
async def test_what_is_written_over_the_image_ends_at_its_size(inside: Inside) -> None:
    line = "dd if=/dev/zero of=/big bs=1M count=100; wc -c < /big; echo x > /etc/x; stat -c %u / /etc/hosts"
    ending, output = await inside.run(line, files=FileMounts(root_bytes=16 << 20))
    written, *owners = [word for word in output.splitlines() if word.isdigit()]
    assert (12 << 20) < int(written) < (16 << 20), output
    assert owners == ["0", "0"]
    assert ending.memory_peak_bytes <= 64 << 20
    await inside.runtime.remove("1.1.1")
    assert loop_files(inside.runtime.log_path("1.1.1", "stdout").parents[1]) == []


@pytest.mark.skipif(scratch_obstacle() is not None, reason=str(scratch_obstacle()))
async def test_much_scratch_takes_little_room_until_it_is_used(inside: Inside) -> None:
    line = "dd if=/dev/zero of=/scratch/x bs=1M count=1 seek=90000 && sleep 1"
    ending, output = await inside.run(line, files=FileMounts(scratch=Scratch(size_bytes=100 << 30)))
    assert ending.exit_code == 0, output
    image = inside.runtime.log_path("1.1.1", "stdout").with_name("scratch")
    assert image.stat().st_size == 100 << 30
    assert image.stat().st_blocks * 512 < 16 << 20


@pytest.mark.skipif(scratch_obstacle() is not None, reason=str(scratch_obstacle()))
async def test_scratch_larger_than_any_file_system_is_refused_in_words(inside: Inside) -> None:
    with pytest.raises(StartError, match="a file system of its own"):
        await inside.run("true", files=FileMounts(scratch=Scratch(size_bytes=1 << 60)))


async def test_secrets_are_readable_by_their_user_alone_and_on_no_disk(inside: Inside, homes: Path) -> None:
    homes.parent.chmod(0o711)
    store = SecretFiles(homes.parent / "secrets")
    try:
        folder = store.write("1.1.1", {"key": b"hunter2", "other": b"x"}, {"key": 0, "other": 1000}, BASE)
        line = "ls -ln /run/secrets; grep secrets /proc/mounts; echo x > /run/secrets/key; rm -f /run/secrets/key"
        _, output = await inside.run(f"{line}; cat /run/secrets/key", files=FileMounts(secrets=folder))
        listed = {line.split()[-1]: line.split() for line in output.splitlines() if line.startswith("-")}
        assert {name: (words[0], words[2]) for name, words in listed.items()} == {
            "key": ("-r--------", "0"),
            "other": ("-r--------", "1000"),
        }
        assert "ramfs" in output
        assert "hunter2" in output
        assert (folder / "key").read_bytes() == b"hunter2", "neither written nor removed from inside"
        files = [path for path in inside.runtime.log_path("1.1.1", "stdout").parent.rglob("*") if path.is_file()]
        assert [path.name for path in files if b"hunter2" in path.read_bytes()] == ["stdout"]
    finally:
        store.close()
    assert not (homes.parent / "secrets").exists()


async def test_a_read_only_root_takes_writes_in_its_mounts_alone(inside: Inside, homes: Path) -> None:
    mounts = volume(homes).volumes
    files = FileMounts(volumes=mounts, tmpfs=(Tmpfs(target="/cache", size_bytes=1 << 20),), read_only_root=True)
    places = "/x /etc/x /bin/x /tmp/x /dev/shm/x /cache/x /home/ana/x"
    ending, output = await inside.run(f"for each in {places}; do (echo 1 > $each) && echo $each; done", files=files)
    assert ending.error is None
    written = [line for line in output.splitlines() if line.startswith("/")]
    assert written == ["/tmp/x", "/dev/shm/x", "/cache/x", "/home/ana/x"]


@pytest.fixture
def lxcfs() -> Iterator[Path]:
    """An lxcfs of our own; the host's, if there is one, stays as it is."""
    if shutil.which("lxcfs") is None or not Path("/dev/fuse").exists():
        pytest.skip("no lxcfs")
    place = Path(tempfile.mkdtemp(prefix="fofoca-lxcfs."))
    place.chmod(0o755)
    command = ["lxcfs", "-f", f"--pidfile={place}.pid", str(place)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not lxcfs_files(place) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield place
    finally:
        server.terminate()
        server.wait(10)
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)
        place.rmdir()
        Path(f"{place}.pid").unlink(missing_ok=True)


async def test_free_tells_the_containers_own_memory_where_lxcfs_runs(inside: Inside, lxcfs: Path) -> None:
    inside.runtime._host = replace(inside.runtime._host, lxcfs=lxcfs_files(lxcfs))
    _, output = await inside.run("grep MemTotal /proc/meminfo; cat /proc/uptime")
    words = output.split()
    assert int(words[1]) == 64 << 10
    assert float(words[3]) < 60, "up since its own start"


async def test_nothing_is_left_of_what_was_mounted(inside: Inside, homes: Path) -> None:
    files = FileMounts(volumes=volume(homes).volumes, scratch=Scratch(size_bytes=8 << 20))
    await inside.run("true", files=files)
    await inside.runtime.remove("1.1.1")
    own = str(inside.runtime.log_path("1.1.1", "stdout").parents[2])
    left = [line for line in Path("/proc/self/mounts").read_text().splitlines() if own in line or str(homes) in line]
    assert [line for line in left if f"{own}/mounts/" not in line] == []
    assert len(left) == 1, "the image's own mount stays for the next container"
