"""Tasks as people name them on the command line: ID, or ID.INDEX."""

from __future__ import annotations

import re

from node.cli.failures import Failure


def parse(text: str) -> tuple[int, int]:
    """(job, index) of `12001` or `12001.3`."""
    match = re.fullmatch(r"([1-9][0-9]{0,18})(?:\.([0-9]{1,10}))?", text, re.ASCII)
    if match is None:
        raise Failure(f"{text!r} is no task; expected a job's ID, or ID.INDEX for one of its tasks")
    return int(match[1]), int(match[2] or 0)
