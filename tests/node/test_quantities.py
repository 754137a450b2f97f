"""Amounts: what people write, exactly; what makes no sense, refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import InvalidValue
from node.quantities import format_cpu, format_duration, format_size, parse_cpu, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "milli"),
    [("250m", 250), ("1", 1000), ("1.5", 1500), ("0.001", 1), (".5", 500), ("64", 64_000), (" 2 ", 2000)],
)
def test_cores_become_millicores(text, milli):
    assert parse_cpu(text) == milli


@pytest.mark.parametrize(
    "text", ["", "m", "0", "0m", "-1", "0.0001", "1.5m", "1k", "1e3", "inf", "nan", "٣", "1 m", "9" * 50]
)
def test_what_is_no_amount_of_cores_is_refused(text):
    with pytest.raises(InvalidValue) as refused:
        parse_cpu(text, "cpu")
    assert (refused.value.field, refused.value.value) == ("cpu", text)
    assert "250m" in refused.value.expected


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1", 1), ("64M", 64 << 20), ("64Mi", 64 << 20), ("64MiB", 64 << 20), ("64MB", 64 << 20), ("64m", 64 << 20),
        ("1.5G", 3 << 29), ("2K", 2048), ("1T", 1 << 40), ("1P", 1 << 50), ("512B", 512), ("0.5K", 512),
    ],
)  # fmt: skip
def test_sizes_count_in_powers_of_1024(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "M", "64Q", "0", "0M", "-1M", "1e9", "64 M M", "0x10", "1,5G", "9" * 39 + "P", "5000P"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidValue, match="powers of 1024"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 60),
        ("60s", 60),
        ("5m", 300),
        ("1h", 3600),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("0", 0),
    ],
)
def test_durations_become_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5x", "-1s", "1h-1m", "1:30", "soon", "99999d", "inf", "1e3"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InvalidValue):
        parse_duration(text)


@given(st.text(max_size=60))
def test_no_text_is_an_error_of_ours(text):
    for parse in (parse_cpu, parse_size, parse_duration):
        with suppress(InvalidValue):
            assert parse(text) >= 0


@given(st.integers(1, 10**9))
def test_cores_are_written_as_they_are_read(milli):
    assert parse_cpu(format_cpu(milli)) == milli


@given(st.integers(1, 10**15))
def test_a_written_size_is_near_the_real_one(size_bytes):
    assert abs(parse_size(format_size(size_bytes)) - size_bytes) <= size_bytes * 0.06


@given(st.floats(0, 10**7))
def test_a_written_duration_is_near_the_real_one(seconds):
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= max(0.06, seconds * 0.05)


def test_what_people_read_is_short():
    assert [format_cpu(each) for each in (0, 250, 1000, 1500)] == ["0", "250m", "1", "1.5"]
    assert [format_size(each) for each in (0, 512, 64 << 20, 3 << 29)] == ["0", "512", "64M", "1.5G"]
    assert [format_duration(each) for each in (0.5, 3, 12.34, 300, 5400, 187_200)] == [
        "500ms",
        "3s",
        "12.3s",
        "5m",
        "1h30m",
        "2d4h",
    ]
