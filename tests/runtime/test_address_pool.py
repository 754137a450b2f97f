"""Addresses and ports: each has one holder, and rests before the next one."""

from __future__ import annotations

import pytest

from node.host.network import NetworkError, ensure_bridge, mac_address
from node.host.network_pools import REST_MIN_S, REST_S, AddressPool, PortPool, Range

POOL = Range.parse("10.77.1.0/29", "fd77::/64")


def test_every_holder_has_an_address_of_its_own_and_none_the_bridges() -> None:
    pool = AddressPool(POOL, {}, {})
    taken = [pool.take(f"c{number}", 0.0) for number in range(5)]
    assert sorted(taken) == [f"10.77.1.{last}" for last in range(2, 7)]
    assert pool.take("c3", 0.0) == taken[3]
    with pytest.raises(NetworkError, match=r"no address is free in 10.77.1.0/29: 5 containers"):
        pool.take("c5", 0.0)


def test_what_was_held_before_a_restart_is_not_given_away() -> None:
    pool = AddressPool(POOL, {"a": "10.77.1.2"}, {})
    assert pool.take("a", 0.0) == "10.77.1.2"
    assert pool.take("b", 0.0) == "10.77.1.3"


def test_a_freed_address_rests_and_is_the_last_to_be_taken_again() -> None:
    pool = AddressPool(POOL, {}, {})
    first = pool.take("a", 0.0)
    assert pool.give_back("a", 0.0) == first
    assert pool.give_back("a", 0.0) is None
    assert first not in [pool.take(f"b{number}", 1.0) for number in range(4)]
    with pytest.raises(NetworkError, match="1 rest for some seconds more"):
        pool.take("c", REST_MIN_S - 0.1)
    pool.give_back("b1", 1.0)
    assert pool.take("c", REST_S) == first


def test_with_no_other_address_free_a_rest_is_cut_short_beginning_with_the_longest() -> None:
    """Ten seconds for each of 253 addresses would be 25 tasks a second, whatever the node can do."""
    pool = AddressPool(POOL, {}, {})
    taken = [pool.take(f"a{number}", 0.0) for number in range(5)]
    for number in (3, 1):
        pool.give_back(f"a{number}", 4.0 - number)
    with pytest.raises(NetworkError, match="2 rest"):
        pool.take("b", 1.0 + REST_MIN_S - 0.1)
    assert pool.take("b", 1.0 + REST_MIN_S) == taken[3]
    with pytest.raises(NetworkError, match="1 rest"):
        pool.take("c", 3.0 + REST_MIN_S - 0.1)


def test_the_rest_goes_on_after_a_restart() -> None:
    pool = AddressPool(Range.parse("10.77.1.0/30"), {}, {"10.77.1.2": REST_S})
    with pytest.raises(NetworkError):
        pool.take("a", REST_MIN_S - 0.1)
    assert pool.take("a", REST_MIN_S) == "10.77.1.2"


def test_the_ipv6_address_is_at_the_same_place_of_its_pool() -> None:
    assert (POOL.gateway6, POOL.address6("10.77.1.5")) == ("fd77::1", "fd77::5")
    assert Range.parse("10.77.1.0/29").address6("10.77.1.5") == ""


@pytest.mark.parametrize(
    ("four", "six"),
    [("", ""), ("10.77.1.1/24", ""), ("10.77.1.0/31", ""), ("fd00::/64", ""), ("10.0.0.0/8", "fd::/120")],
)
def test_a_wrong_pool_is_named(four: str, six: str) -> None:
    with pytest.raises(NetworkError, match="address pool"):
        Range.parse(four, six)


def test_a_port_of_the_host_has_one_holder_by_protocol() -> None:
    ports = PortPool(range(1024, 2048), range(2000, 2002), [("tcp", 1500)])
    assert ports.take("udp", 1500) == 1500
    for wanted, reason in ((1500, "is taken"), (80, "allows 1024 to 2047")):
        with pytest.raises(NetworkError, match=reason):
            ports.take("tcp", wanted)
    with pytest.raises(NetworkError, match="is taken"):
        ports.take("tcp", 1600, in_use=[("tcp", 1600)])
    assert [ports.take("tcp", 0), ports.take("tcp", 0)] == [2000, 2001]
    with pytest.raises(NetworkError, match="no tcp port of 2000 to 2001 is free"):
        ports.take("tcp", 0)
    ports.give_back([("tcp", 2000)])
    assert ports.take("tcp", 0) == 2000


def test_hardware_addresses_are_local_unicast_and_stay_the_same() -> None:
    assert mac_address("a") == mac_address("a") != mac_address("b")
    assert mac_address("a").startswith("02:")


def test_an_interface_that_is_no_bridge_is_refused() -> None:
    with pytest.raises(NetworkError, match="lo is not a bridge"):
        ensure_bridge("lo", "10.0.0.1/24")
