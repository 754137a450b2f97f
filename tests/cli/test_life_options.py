"""What the options of a task's life become, and what a mistake in one is told."""

from __future__ import annotations

from typing import Any

import pytest

from node.cli.options import life
from node.errors import InvalidValue


@pytest.mark.parametrize(
    ("options", "health"),
    [
        ({"health_command": "sh -c 'test -f /ready'"}, {"command": ["sh", "-c", "test -f /ready"]}),
        ({"health_tcp": 5432, "health_interval": "1m"}, {"tcp": 5432, "interval_s": 60.0}),
        ({"health_http": "8080"}, {"http": {"port": 8080}}),
        ({"health_http": "80/a?b=c", "health_host": "x"}, {"http": {"port": 80, "path": "/a?b=c", "host": "x"}}),
        ({"health_http": "1", "health_status": "204"}, {"http": {"port": 1, "status_min": 204, "status_max": 204}}),
        ({"health_tcp": 1, "health_failures": 5}, {"tcp": 1, "failures_max": 5}),
        ({"health_tcp": 1, "unhealthy": "report"}, {"tcp": 1, "unhealthy": "report"}),
    ],
)  # fmt: skip
def test_checks_are_written_as_they_are_read(options: dict[str, Any], health: dict[str, Any]) -> None:
    assert life.body(options) == {"health": health}


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("USR1@60", {"warn_signal": "USR1", "warn_s": 60.0}),
        ("usr2@2m", {"warn_signal": "USR2", "warn_s": 120.0}),
        ("SIGINT", {"warn_signal": "INT", "warn_s": 60.0}),
        ("10@5", {"warn_signal": "USR1", "warn_s": 5.0}),
        ("B:USR1@60", {"warn_signal": "USR1", "warn_s": 60.0, "warn_alone": True}),
    ],
)
def test_warnings_are_written_as_with_sbatch(text: str, warning: dict[str, Any]) -> None:
    assert life.body({"warn_signal": text}) == warning


def test_a_stop_signal_has_a_name_or_a_number() -> None:
    assert [life.body({"stop_signal": text})["stop_signal"] for text in ("QUIT", "sigint", "28")] == [
        "QUIT", "INT", "WINCH",
    ]  # fmt: skip


def test_what_was_not_asked_for_is_not_sent() -> None:
    assert life.body({}) == {}


@pytest.mark.parametrize(
    "options",
    [
        {"health_command": "sh -c 'open"},
        {"health_http": "web/"},
        {"health_http": "80", "health_status": "ok"},
        {"health_host": "x"},
        {"warn_signal": "R:USR1@60"},
        {"warn_signal": "USR1@soon"},
        {"stop_signal": "4711"},
    ],
)
def test_a_mistake_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match=r"health-|signal"):
        life.body(options)
