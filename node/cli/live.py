"""The live cluster as the simulator's copy of it: asked for page by page, read from a file, or both refused clearly."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from node.cli import find
from node.cli.failures import Failure
from node.errors import ApiProblem, ClientError

if TYPE_CHECKING:
    from sim.live import Live

PAGES_MAX = 100_000


def take(node_api: str | None) -> Live:
    """Ask every node for what it knows; those that don't answer are named in the copy and on stderr."""
    from scheduler.snapshot import NodeSnapshot
    from sim.live import Live, decode_page, joined

    agents = find.agents(node_api)
    states = {str(node["name"]): str(node["state"]) for node in agents.get("/v1/nodes").json()}
    taken_unix_s, found, missing = time.time(), [], []
    for name in sorted(states):
        pages: list[NodeSnapshot] = []
        after: int | None = 0
        try:
            while after is not None and len(pages) < PAGES_MAX:
                answer = agents.get(f"/v1/nodes/{quote(name, safe='')}/snapshot", after=after)
                pages.append(decode_page(answer.body))
                after = pages[-1].next
        except ApiProblem as error:
            if error.status == 403:
                raise Failure(f"a copy of the cluster is for operators: {error}") from None
            missing.append(name)
        except ClientError:
            missing.append(name)
        if after is None:
            found.append(joined(pages))
    if missing:
        print(f"fofoca: no answer from {', '.join(missing)}; their jobs are not in the copy", file=sys.stderr)
    return Live(taken_unix_s=taken_unix_s, states=states, missing=tuple(missing), nodes=tuple(found))
