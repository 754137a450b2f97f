"""A front end in a few lines, run inside a lab's node by `fofoca lab exec`: prints what came as JSON (no test module).

door_client.py many COUNT SITE DOOR...     so many requests at once, spread over the doors
door_client.py loop SITE DOOR FILE         one after the other until the file is there, telling of the first by `asking`
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

TIMEOUT_S = 40.0


def headers(site: str, **more: str) -> dict[str, str]:
    """Return what a front end says for a site by its key, or by a host name alone, as browsers do."""
    if ":" not in site:
        return {"Host": site}
    user = site.split(":")[2]
    return {"Host": f"{user}.br", "X-Backend": site, "X-User": user, "X-Application": "demo;port=8080",
            "X-Memory-Limit": "16", "X-CPU-Limit": "10", **more}  # fmt: skip


def get(door: str, fields: dict[str, str]) -> str:
    """Return status and body, or what went wrong."""
    connection = http.client.HTTPConnection(door, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/", headers=fields)
        answer = connection.getresponse()
        return f"{answer.status} {answer.read().decode()}"
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def many(count: int, site: str, doors: list[str]) -> Counter[str]:
    answers: list[str] = []
    start = threading.Barrier(count)

    def ask(door: str) -> None:
        start.wait()
        answers.append(get(door, headers(site)))

    threads = [threading.Thread(target=ask, args=(doors[number % len(doors)],)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(answers)


def loop(site: str, door: str, until: Path) -> Counter[str]:
    answers: Counter[str] = Counter()
    while not until.exists():
        answers[get(door, headers(site))] += 1
        until.with_name("asking").touch()
        time.sleep(0.005)
    return answers


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    found = many(int(rest[0]), rest[1], rest[2:]) if verb == "many" else loop(rest[0], rest[1], Path(rest[2]))
    print(json.dumps(found))
