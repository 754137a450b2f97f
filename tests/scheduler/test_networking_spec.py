"""What a job may ask of the network, and which nodes can give it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from node.cli.options.networking import published
from scheduler.abilities import requirements
from scheduler.errors import InvalidSpec
from scheduler.model import JobSpec, Resources
from scheduler.spec.gang import Gang
from scheduler.spec.networking import Networking, Publish, check, needs
from scheduler.validate import validate


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"publish": (Publish(port=0),)}, "networking.publish.port"),
        ({"hostname": "a.b"}, "networking.hostname"),
        ({"hostname": "-a"}, "networking.hostname"),
        ({"hostname": "a" * 64}, "networking.hostname"),
        ({"publish": (Publish(port=80, host_port=70_000),)}, "networking.publish.host_port"),
        (
            {"publish": (Publish(port=80, host_port=9000), Publish(port=81, host_port=9000))},
            "9000/tcp.* each port of the host once",
        ),
        ({"publish": (Publish(port=80),) * 33}, "networking.publish"),
        ({"rate_in": 10}, "networking.rate_in"),
        ({"rate_out": -1}, "networking.rate_out"),
        ({"mac": "00:11:22:33:44:55"}, "networking.mac"),
        ({"mac": "03:11:22:33:44:55"}, "networking.mac"),
        ({"mtu": 500}, "networking.mtu"),
        ({"networks": ("a", "a")}, "networking.networks"),
        ({"networks": ("../x",)}, "networking.networks"),
        ({"traffic_class": "1:10"}, "networking.traffic_class"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSpec, match=named):
        check(Networking(**fields))


def test_what_is_asked_for_is_what_a_node_must_have() -> None:
    asked = Networking(
        publish=(Publish(port=80),),
        rate_in=5_000,
        networks=("storage",),
        traffic_class="bulk",
        ipv6=True,
        mac="02:00:00:00:00:01",
    )
    check(asked)
    assert list(needs(asked)) == [
        ("network", "publish"),
        ("network", "rates"),
        ("network", "mac"),
        ("network", "ipv6"),
        ("networks", "storage"),
        ("classes", "bulk"),
    ]
    assert list(needs(Networking())) == []


def test_ports_are_read_as_users_of_containers_write_them() -> None:
    assert published("8080:80") == {"port": 80, "host_port": 8080}
    assert published("53/udp") == {"port": 53, "protocol": "udp"}


def test_only_a_gang_can_share_a_network_and_only_where_nodes_can() -> None:
    alone = JobSpec("a", ("true",), Resources(1, 1 << 20), network="shared")
    with pytest.raises(InvalidSpec, match="only a gang's tasks"):
        validate(alone)
    gang = msgspec.structs.replace(alone, gang=Gang(nodes=2, tasks_per_node=2))
    validate(gang)
    (asked,) = requirements(gang)
    assert (asked.label, asked.values) == ("network", ("shared",))
    assert requirements(msgspec.structs.replace(gang, network="bridge")) == ()
