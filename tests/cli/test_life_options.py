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


def test_what_was_not_asked_for_is_not_sent() -> None:
    assert life.body({}) == {}


@pytest.mark.parametrize(
    "options",
    [
        {"health_command": "sh -c 'open"},
        {"health_http": "web/"},
        {"health_http": "80", "health_status": "ok"},
        {"health_host": "x"},
    ],
)
def test_a_mistake_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match="health-"):
        life.body(options)
