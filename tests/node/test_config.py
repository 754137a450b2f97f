"""The configuration refuses what it can't take in one clear line, and its documentation is its declaration."""

from __future__ import annotations

import ast
import stat
from pathlib import Path

import pytest

from node import config_text, keys
from node.config import AgentConfig, Api, Gossip, Node, all_sections, from_tables, load
from node.errors import InvalidConfig
from node.settings import declaration_of, fields_of

ROOT = Path(__file__).parents[2]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return path


def test_an_empty_file_makes_a_node_on_loopback(tmp_path):
    config = load(written(tmp_path, ""))
    assert config == AgentConfig()
    assert config.api.host == config.gossip.host == "127.0.0.1"
    assert config.node_name
    assert str(config.socket_path) == "/var/lib/fofoca/run/api.sock"
    assert config.cluster_keys() is None


def test_quantities_are_taken_as_people_write_them(tmp_path):
    config = load(
        written(
            tmp_path,
            """
            [resources]
            cpu_milli = "1.5"
            extra = { gpu = "2" }
            memory_bytes = "2G"
            overcommit_cpu = 2
            [runtime]
            start_timeout_s = "1m30s"
            log_bytes_max = "1M"
            [scheduler]
            lost_grace_s = 3
            [node]
            labels = { disk = "ssd", gpu = "" }
            [network]
            networks = { storage = "br1 10.90.1.0/24 fd90::/64" }
            """,
        )
    )
    assert (config.resources.cpu_milli, config.resources.memory_bytes) == (1500, 2 << 30)
    assert config.resources.cpu_ratio_permille == 2000
    assert (config.runtime.start_timeout_s, config.runtime.log_bytes_max) == (90.0, 1 << 20)
    assert config.scheduler.lost_grace_s == 3.0
    assert config.node.labels == {"disk": "ssd", "gpu": ""}
    assert config.resources.extra == {"gpu": "2"}
    assert config.network.networks == {"storage": "br1 10.90.1.0/24 fd90::/64"}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"apx": {}}, "apx: {} is not valid; there is no such setting, did you mean `api`?"),
        ({"api": {"prot": 1}}, "api.prot: 1 is not valid; there is no such setting, did you mean `port`?"),
        (
            {"network": {"networks": {"storage": "br1"}}},
            "network.networks.storage: 'br1' is not valid; expected BRIDGE POOL [POOL6], parted by blanks",
        ),
        (
            {"resources": {"extra": {"gpu": "two"}}},
            "resources.extra.gpu: 'two' is not valid; expected numbers, as texts",
        ),
        ({"api": 3}, "api: 3 is not valid; expected a table [api]"),
        ({"api": {"port": "x"}}, "api.port: 'x' is not valid; expected a whole number from 1 to 65,535"),
        ({"api": {"port": True}}, "api.port: True is not valid; expected a whole number from 1 to 65,535"),
        ({"api": {"port": 1.5}}, "api.port: 1.5 is not valid; expected a whole number from 1 to 65,535"),
        ({"api": {"port": 65_536}}, "api.port: 65536 is not valid; expected a whole number from 1 to 65,535"),
        ({"api": {"stall_timeout_s": "soon"}}, "api.stall_timeout_s: 'soon' is not valid; expected a time such as"),
        ({"gossip": {"probe_interval_s": float("nan")}}, "gossip.probe_interval_s: nan is not valid"),
        ({"resources": {"memory_bytes": "64Q"}}, "resources.memory_bytes: '64Q' is not valid; expected bytes with K"),
        ({"resources": {"overcommit_cpu": 0.5}}, "resources.overcommit_cpu: 0.5 is not valid"),
        ({"resources": {"cpu_milli": 100, "reserve_cpu_milli": 100}}, "expected less than resources.cpu_milli (100)"),
        ({"runtime": {"kind": "docker"}}, "expected one of auto, lxc, process"),
        ({"runtime": {"cgroup_root": "../x"}}, "runtime.cgroup_root: '../x' is not valid; expected a relative path"),
        ({"runtime": {"cgroup_root": "/x"}}, "expected a relative path"),
        ({"runtime": {"address_pool": "10.7.1.1/24"}}, "expected a network such as 10.77.1.0/24"),
        ({"runtime": {"address_pool": "10.7.1.0/31"}}, "/30 or larger"),
        ({"runtime": {"bridge": "a/b"}}, "expected a network interface's name"),
        ({"cluster": {"seeds": "n1:1"}}, "cluster.seeds: 'n1:1' is not valid; expected a list of texts"),
        ({"cluster": {"seeds": ["n1"]}}, "cluster.seeds: 'n1' is not valid; expected host:port"),
        ({"cluster": {"seeds": ["n1:99999"]}}, "expected host:port"),
        ({"cluster": {"seeds": [3]}}, "cluster.seeds: 3 is not valid"),
        ({"cluster": {"key_file": "key"}}, "expected an absolute path"),
        ({"node": {"name": "A_b"}}, "node.name: 'A_b' is not valid; expected 1 to 63 small letters"),
        ({"node": {"number": 1000}}, "node.number: 1000 is not valid; expected a whole number from 1 to 999"),
        ({"node": {"labels": {"a b": "c"}}}, "node.labels: 'a b' is not valid"),
        ({"node": {"labels": ["a"]}}, "expected labels"),
        ({"node": {"labels": {"a": 1}}}, "node.labels.a: 1 is not valid"),
        ({"node": {"data_dir": "x\0"}}, "expected an absolute path"),
        ({"node": {"data_dir": "/" + "x" * 200}}, "expected a shorter path, or api.unix_socket set"),
        ({"gossip": {"host": "0.0.0.0"}}, "gossip.host: '0.0.0.0' is not valid; expected a loopback address, or"),
        ({"api": {"host": "10.0.0.1"}}, "api.host: '10.0.0.1' is not valid; expected a loopback address, or"),
        ({"gossip": {"probe_timeout_s": 0.9}}, "expected at most half of gossip.probe_interval_s (1)"),
        ({"gossip": {"probe_interval_s": 5}}, "expected at least gossip.probe_interval_s (5)"),
        ({"log": {"level": "loud"}}, "log.level: 'loud' is not valid; expected one of debug, info, warning, error"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_field_value_and_what_would_be_right(tables, message):
    with pytest.raises(InvalidConfig) as refused:
        from_tables(tables)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_with_a_key_a_node_may_listen_anywhere(tmp_path):
    tables = {"cluster": {"key_file": "/k"}, "api": {"host": "0.0.0.0"}, "gossip": {"host": "10.0.0.1"}}
    assert from_tables(tables).api.host == "0.0.0.0"


def test_sections_made_in_python_are_checked_too():
    with pytest.raises(InvalidConfig):
        Api(port=0)
    with pytest.raises(InvalidConfig):
        Gossip(probe_interval_s=1)
    with pytest.raises(InvalidConfig):
        Node(name="-")


@pytest.mark.parametrize("text", ["x", "[api", "a = 1\na = 2", "[api]\nport = 1\n[api]\n"])
def test_a_file_that_is_no_toml_is_one_line(tmp_path, text):
    with pytest.raises(InvalidConfig) as refused:
        load(written(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_files_that_can_not_be_read_are_named(tmp_path):
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing", tmp_path, binary):
        with pytest.raises(InvalidConfig, match=path.name):
            load(path)


def test_what_is_written_is_read_back(tmp_path):
    tables = {
        "node": {"name": "n1", "labels": {"disk": 'a "quoted" \\ one', "é/x": "ü\n"}, "number": 7},
        "cluster": {"key_file": "/etc/fofoca.key", "seeds": ["10.0.0.1:7946", "[::1]:1"]},
        "resources": {"cpu_milli": "2", "overcommit_memory": 1.25},
        "log": {"format": "json"},
    }
    tables["node"]["labels"].pop("é/x")
    config = from_tables(tables)
    assert load(written(tmp_path, config_text.to_toml(config))) == config
    assert config_text.to_toml(AgentConfig()) == ""


def test_the_documentation_is_generated_from_the_declarations():
    documented = (ROOT / "docs" / "config.md").read_text()
    assert documented == config_text.document(), "run: python -m node.config_text > docs/config.md"


def test_every_setting_says_what_it_means():
    for section in all_sections():
        assert section.about.endswith(".")
        for field, _ in fields_of(section):
            declaration = declaration_of(field)
            assert declaration.meaning.endswith("."), field.name
            assert field.default is not None or declaration.unset, f"{field.name}: say what happens without a value"


def test_a_key_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "key"
    keys.create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(keys.read_keys(path).primary) == 32
    with pytest.raises(FileExistsError):
        keys.create_key(path)
    path.chmod(0o640)
    with pytest.raises(InvalidConfig, match="chmod 600"):
        keys.read_keys(path)


@pytest.mark.parametrize("content", [b"", b"short", b"AAAA", b"!" * 44, b"A" * 43, b"\xff" * 32])
def test_a_file_that_holds_no_key_is_refused(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InvalidConfig, match="32 random bytes"):
        keys.read_keys(path)


def test_the_configuration_does_not_pull_in_the_network(tmp_path):
    source = (ROOT / "node" / "config.py").read_text()
    imported = {
        alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names
    }
    assert not imported & {"httpx", "trio"}
