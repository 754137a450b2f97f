"""Which cluster is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.caller import Agents
from node.cli import find
from node.cli.failures import Failure
from node.errors import InvalidValue
from node.lab import record
from node.lab.record import Lab, LabNode

NODE = LabNode("n2", 2, "10.78.0.2", 8642, 7946, "/run/n2.sock", "/d", "/c", "/l", "fofoca-n2", 1, 2)
LAB = Lab(runtime="lxc", isolated=True, token="lab-token", nodes=(NODE,), owner_uid=0)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FOFOCA_API", "FOFOCA_TOKEN", find.IN_LAB):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(record, "load", lambda: None)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "load", lambda: LAB)
    monkeypatch.setattr(record, "is_on", lambda node: True)


def token_of(agents: Agents) -> str | None:
    return agents._token


def test_an_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOFOCA_API", "http://b:1")
    assert find.agents("http://a:2").places[0].host == "a"
    assert find.agents().places[0].host == "b"


@pytest.mark.usefixtures("lab")
def test_a_lab_is_found_without_options() -> None:
    agents = find.agents()
    assert [place.socket_path for place in agents.places] == ["/run/n2.sock"]
    assert token_of(agents) == "lab-token"


@pytest.mark.usefixtures("lab")
def test_a_labs_address_is_reached_through_its_socket_from_outside_only(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = find.agents("http://10.78.0.2:8642/")
    assert agents.places[0].socket_path == "/run/n2.sock"
    assert token_of(agents) == "lab-token"
    monkeypatch.setenv(find.IN_LAB, "n1")
    assert find.agents("http://10.78.0.2:8642").places[0].host == "10.78.0.2"


@pytest.mark.usefixtures("lab")
def test_a_token_of_ones_own_is_shown_to_a_lab_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOFOCA_TOKEN", "mine")
    assert token_of(find.agents()) == "mine"
    assert token_of(find.agents(NODE.api_url)) == "mine"


@pytest.mark.usefixtures("lab")
def test_the_labs_token_is_never_sent_elsewhere() -> None:
    assert token_of(find.agents("http://evil.example:8642")) is None


def test_the_configuration_file_is_the_last_resort_but_one(tmp_path: Path) -> None:
    assert [place.label for place in find.agents().places] == [find.LOCAL_SOCKET, find.LOCAL_URL]
    (tmp_path / "fofoca").mkdir()
    file = tmp_path / "fofoca" / "config.toml"
    file.write_text('api = "http://c:3"\ntoken = "t"\n')
    assert (find.agents().places[0].host, token_of(find.agents())) == ("c", "t")
    file.write_text('apu = "http://c:3"\n')
    with pytest.raises(Failure, match="apu"):
        find.agents()


@pytest.mark.parametrize(
    "text", ["", "n1", "http://", "http://h:99999", "ftp://h", "https://h/x", "unix://run/x", "http://h/x"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    from node.caller import parse_address

    with pytest.raises(InvalidValue):
        parse_address(text)


def test_whom_to_trust_is_said_by_the_variable_or_the_file_and_for_https_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trusted(url: str) -> object:
        return vars(find.agents(url))["_ca_file"]

    assert trusted("https://h:1") is None
    (tmp_path / "fofoca").mkdir()
    (tmp_path / "fofoca" / "config.toml").write_text('ca_file = "/etc/ca.pem"\n')
    assert (trusted("https://h:1"), trusted("http://h:1")) == ("/etc/ca.pem", None)
    monkeypatch.setenv("FOFOCA_CA_FILE", "/other.pem")
    assert trusted("https://h:1") == "/other.pem"


def test_a_lab_without_a_running_node_is_named(lab: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "is_on", lambda node: False)
    with pytest.raises(Failure, match="every node of the lab is off; `fofoca lab start NODE`"):
        find.agents()
