"""Addresses: given once, kept over restarts, free again when given back."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.host.network import AddressPool, NetworkError, ensure_bridge, mac_address


def test_no_address_has_two_holders_and_the_gateway_has_its_own(tmp_path: Path) -> None:
    pool = AddressPool("10.77.1.1/28", tmp_path)
    taken = [pool.take(f"c{number}") for number in range(13)]
    assert len(set(taken)) == 13
    assert "10.77.1.1/28" not in taken
    assert not {"10.77.1.0/28", "10.77.1.15/28"} & set(taken)
    with pytest.raises(NetworkError, match="13 containers hold them all"):
        pool.take("one too many")


def test_a_gateway_in_the_middle_is_left_out(tmp_path: Path) -> None:
    pool = AddressPool("10.77.1.2/29", tmp_path)
    assert {pool.take(f"c{number}") for number in range(5)} == {f"10.77.1.{last}/29" for last in (1, 3, 4, 5, 6)}


def test_a_holder_keeps_its_address_over_a_restart(tmp_path: Path) -> None:
    address = AddressPool("10.77.1.1/24", tmp_path).take("a")
    again = AddressPool("10.77.1.1/24", tmp_path)
    assert again.take("a") == address
    assert again.take("b") != address


def test_a_freed_address_rests_as_long_as_possible(tmp_path: Path) -> None:
    pool = AddressPool("10.77.1.1/29", tmp_path)
    first = pool.take("a")
    pool.give_back("a")
    pool.give_back("a")
    later = [pool.take(f"b{number}") for number in range(4)]
    assert first not in later
    assert pool.take("c") == first


def test_an_address_claimed_by_nobody_is_free_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "10.77.1.2").write_text("")
    assert AddressPool("10.77.1.1/30", tmp_path).take("a") == "10.77.1.2/30"


@pytest.mark.parametrize("pool", ["", "10.77.1.1", "10.77.1.1/31", "10.77.1.1/33", "fd00::1/64"])
def test_a_wrong_pool_is_named(pool: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="address pool"):
        AddressPool(pool, tmp_path)


def test_hardware_addresses_are_local_unicast_and_stay_the_same() -> None:
    assert mac_address("a") == mac_address("a") != mac_address("b")
    assert mac_address("a").startswith("02:")


def test_an_interface_that_is_no_bridge_is_refused() -> None:
    with pytest.raises(NetworkError, match="lo is not a bridge"):
        ensure_bridge("lo", "10.0.0.1/24")
