"""Tokens: what was signed is believed, and nothing else."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import BadToken, ExpiredToken, ForgedToken, InvalidValue, MalformedToken
from node.tokens import Principal, Role, Tokens, _mac

KEY = bytes(range(32))
NOW = 1_800_000_000.0
tokens = Tokens(KEY)


@pytest.mark.parametrize("role", list(Role))
def test_a_token_speaks_for_the_user_and_role_it_was_made_for(role):
    text = tokens.create("ana", role, NOW, lifetime_s=100)
    assert tokens.verify(text, NOW) == Principal("ana", role)
    assert text.startswith("fof1.")
    assert text.isascii()
    assert not set(text) & set("+/= \n")


def test_a_token_ends_with_its_time():
    text = tokens.create("ana", "user", NOW, lifetime_s=100)
    assert tokens.verify(text, NOW + 99.9)
    with pytest.raises(ExpiredToken, match="expired"):
        tokens.verify(text, NOW + 100)


def test_a_token_from_the_future_is_not_taken_but_a_little_skew_is():
    text = tokens.create("ana", "user", NOW)
    assert tokens.verify(text, NOW - 200)
    with pytest.raises(ExpiredToken, match="clock"):
        tokens.verify(text, NOW - 1000)


def test_a_token_of_another_cluster_is_forged():
    with pytest.raises(ForgedToken):
        tokens.verify(Tokens(bytes(32)).create("ana", "admin", NOW), NOW)


def test_no_part_of_a_token_can_be_changed():
    text = tokens.create("ana", "user", NOW)
    _, payload, mac = text.split(".")
    claims = msgspec.msgpack.decode(base64.urlsafe_b64decode(payload + "=="))
    claims[1] = "admin"
    better = base64.urlsafe_b64encode(msgspec.msgpack.encode(claims)).rstrip(b"=").decode()
    for forged in (f"fof1.{better}.{mac}", f"fof1.{payload}.", f"fof1..{mac}", f"fof1.{payload}.{mac[:-4]}"):
        with pytest.raises(ForgedToken):
            tokens.verify(forged, NOW)


def test_what_is_signed_but_unknown_is_not_believed():
    for claims in (["ana", "emperor", 0, 2**40], ["ana", "user", 0], {"name": "ana"}, 3):
        payload = msgspec.msgpack.encode(claims)
        text = ".".join(
            [
                "fof1",
                *(
                    base64.urlsafe_b64encode(each).rstrip(b"=").decode()
                    for each in (payload, _mac(tokens._keys[0], payload))
                ),
            ]
        )
        with pytest.raises(MalformedToken):
            tokens.verify(text, NOW)


@pytest.mark.parametrize(
    "text", ["", "x", "fof1", "fof1.a", "fof2.AAAA.BBBB", "fof1.ä.B", "fof1.A.B.C", "fof1.!.!", "x" * 9999]
)
def test_what_is_no_token_is_malformed(text):
    with pytest.raises(BadToken):
        tokens.verify(text, NOW)


@given(st.text(max_size=200))
def test_no_text_is_a_token_by_chance_or_an_error_of_ours(text):
    with pytest.raises(BadToken):
        tokens.verify(text, NOW)
    with pytest.raises(BadToken):
        tokens.verify("fof1." + text, NOW)


@pytest.mark.parametrize("name", ["", "-a", ".", "..", ".a", "a/b", "A", "a b", "a\n", "ä", "x" * 33, None, 3])
def test_names_that_could_be_paths_or_options_are_no_users(name):
    with pytest.raises(InvalidValue) as refused:
        tokens.create(name, "user", NOW)
    assert refused.value.field == "user"


@pytest.mark.parametrize("name", ["a", "ana", "_x", "ana.maria-2", "0", "x" * 32])
def test_ordinary_names_are(name):
    assert tokens.verify(tokens.create(name, "user", NOW), NOW).name == name


def test_wrong_roles_and_lifetimes_are_named():
    with pytest.raises(InvalidValue, match="expected one of user, operator, admin, door"):
        tokens.create("ana", "root", NOW)
    for lifetime_s in (0, -1, 1e12, float("nan")):
        with pytest.raises(InvalidValue, match="ten years"):
            tokens.create("ana", "user", NOW, lifetime_s)


def test_a_token_is_good_under_every_key_of_the_ring_and_signed_under_the_first():
    old, new = KEY, bytes([7]) * 32
    before = Tokens(old).create("ana", "user", NOW)
    both = Tokens(new, old)
    assert both.verify(before, NOW) == Principal("ana", Role.USER)
    assert Tokens(new).verify(both.create("ana", "user", NOW), NOW).name == "ana"
    with pytest.raises(ForgedToken):
        Tokens(new).verify(before, NOW)
