"""Rules, routes and rates as text: what is added is taken back, and names of the host stay untouched."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from node.host.listening import listening_ports
from node.host.network_pools import Range
from node.host.network_rates import script
from node.host.network_records import Attachment, Interface, PublishedPort, Records
from node.host.network_routes import changes, usable
from node.host.network_rules import Remote, Setting, added, link_local, removed, whole

INTERFACE = Interface("", "ffabc", "10.77.1.2", "fd77::2", "02:00:00:00:00:02")
PORT = PublishedPort("tcp", 8080, 80)
ANN = Attachment("1.0.1", "ann", 100_000, (INTERFACE,), (PORT,), True, 1_000_000, "1:10")
SETTING = Setting("fofoca_test", ("br0",), (Range.parse("10.77.1.0/24", "fd77::/64"),), range(1024, 2048))
LOAD = """
import sys
from node.host.nftables import Nftables
SOURCE
from node.host.network_rules import remotes_changed, removed_whole
tables, remote = Nftables(), (Remote(100_000, "10.77.2.2", "fd77:1::2"),)
import subprocess
listing = lambda: subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
tables.run(whole(SETTING, [], []))
empty = listing()
tables.run(added("fofoca_test", ANN))
tables.run(remotes_changed("fofoca_test", (), remote))
full = listing()
tables.run(remotes_changed("fofoca_test", remote, ()))
tables.run(removed("fofoca_test", ANN))
assert listing() == empty, listing()
tables.run(whole(SETTING, [ANN], remote))
assert listing() == full, listing()
tables.run(removed_whole("fofoca_test"))
assert listing() == "", listing()
"""


@pytest.mark.root
@pytest.mark.skipif(shutil.which("nft") is None, reason="no nft")
def test_the_kernel_takes_all_of_it_and_gives_all_of_it_back() -> None:
    command = ["unshare", "--net", sys.executable, "-c", LOAD.replace("SOURCE", SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


SOURCE = f"""
from node.host.network_pools import Range
from node.host.network_records import Attachment, Interface, PublishedPort
from node.host.network_rules import Remote, Setting, added, removed, whole
INTERFACE = {INTERFACE!r}
PORT = {PORT!r}
ANN = {ANN!r}
SETTING = Setting("fofoca_test", ("br0",), (Range.parse("10.77.1.0/24", "fd77::/64"),), range(1024, 2048))
"""


def test_every_line_that_adds_is_taken_back_in_turn() -> None:
    forth, back = added("t", ANN).splitlines(), removed("t", ANN).splitlines()
    assert len(forth) == len(back)
    assert [line.split()[1:5] for line in forth] == [line.split()[1:5] for line in back[::-1]]
    assert all(line.startswith("delete ") for line in back)


def test_the_rules_name_nothing_but_the_agents_own_tables() -> None:
    text = whole(SETTING, [ANN], [Remote(100_000, "10.77.2.2")])
    assert {line.split()[2] for line in text.splitlines() if line.startswith(("table", "delete", "flush"))} <= {
        "fofoca_test",
        "set",
        "inet",
        "bridge",
    }


def test_a_link_local_address_is_made_as_kernels_do() -> None:
    assert link_local("02:68:72:b1:4d:94") == "fe80::68:72ff:feb1:4d94"


def test_routes_follow_the_nodes_and_nothing_else() -> None:
    now = {"10.77.2.0/24": "10.78.0.2", "10.77.3.0/24": "10.78.0.3"}
    wanted = {"10.77.2.0/24": "10.78.0.9", "10.77.4.0/24": "10.78.0.4"}
    assert changes(now, wanted) == [
        "route del 10.77.3.0/24 proto 197",
        "route replace 10.77.2.0/24 via 10.78.0.9 proto 197",
        "route replace 10.77.4.0/24 via 10.78.0.4 proto 197",
    ]
    assert changes(now, now) == []
    assert usable({"fd77::/64": "10.78.0.2", "10.77.2.0/24": "10.78.0.2", "10.77.3.0/24": "127.0.0.1"}) == {
        "10.77.2.0/24": "10.78.0.2"
    }


def test_a_rate_is_told_in_bits_and_lets_a_packet_pass() -> None:
    assert script("/sbin/tc", "ffabc", 1000).endswith("root tbf rate 8000bit burst 16384 latency 100ms\n")


def test_a_record_survives_and_its_address_rests_after_it(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.put(ANN)
    assert Records(tmp_path).attachments == {"1.0.1": ANN}
    records.drop("1.0.1")
    again = Records(tmp_path)
    assert again.attachments == {}
    assert list(again.resting()) == ["10.77.1.2"]


def test_ports_that_the_host_listens_on_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert ("tcp", server.getsockname()[1]) in listening_ports()
