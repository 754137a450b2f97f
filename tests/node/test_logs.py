"""Logs: one event a line, whatever is in it."""

from __future__ import annotations

import io
import json
import logging

import pytest

from node import logs


@pytest.fixture
def written():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    streams = []

    def configure(**options: str) -> io.StringIO:
        streams.append(io.StringIO())
        logs.configure(stream=streams[-1], **options)
        return streams[-1]

    yield configure
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("fofoca").setLevel(logging.NOTSET)


def test_a_json_line_carries_the_fields(written):
    stream = written(style="json", node="n1")
    logs.get("peers").warning("refused", sender="n2", count=3, why=ValueError("x"))
    event = json.loads(stream.getvalue())
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "warning", "log": "peers", "node": "n1", "message": "refused", "sender": "n2", "count": 3, "why": "x",
    }  # fmt: skip


@pytest.mark.parametrize("style", ["json", "text"])
def test_nothing_from_outside_can_forge_a_line(written, style):
    stream = written(style=style)
    logs.get("api").info("bad name\nERROR fake", name="x\r\n\x1b[2Jy")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_a_line_has_a_bound(written):
    stream = written(style="text")
    logs.get("api").info("x" * 100_000, name="y" * 100_000)
    assert len(stream.getvalue()) < 5_000


def test_only_what_matters_is_written(written):
    stream = written(level="warning", style="text")
    logs.get("api").info("quiet")
    logging.getLogger("library").info("quiet")
    logging.getLogger("library").warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_our_bugs_leave_their_traceback_in_the_log(written):
    for style in ("json", "text"):
        stream = written(style=style)
        try:
            {}["boom"]
        except KeyError:
            logs.get("api").exception("a request failed", reference="ab12")
        assert "KeyError: 'boom'" in stream.getvalue()
        assert "ab12" in stream.getvalue()
