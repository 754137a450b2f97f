"""A front end inside a lab's node: python inside.py cold|thaw ROUNDS, or at-once COUNT; prints JSON.

`cold`: each round asks for a site that nobody ever asked for, and removes it after. `thaw`: one site, idle until it is
frozen, is asked for again. `at-once`: so many sites are asked for in the same moment, over all doors (FOFOCA_DOORS).
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
import urllib.request
from collections import Counter
from typing import Any

DOOR = os.environ["FOFOCA_DOOR"].removeprefix("http://")
USERS = 4
TIMEOUT_S = 60.0
SETTLE_S = 0.6
IDLE_MINUTES = "0.005"


def ask(key: str, door: str = DOOR, idle: str = "60") -> tuple[int, float, dict[str, str]]:
    """Return status, milliseconds from before connecting to the whole answer, and headers."""
    fields = {"Host": f"site{key.replace(':', '-')}.example", "X-Backend": key, "X-User": key.split(":")[2],
              "X-Application": "demo;port=8080", "X-Idle-Timeout": idle}  # fmt: skip
    began = time.perf_counter()
    connection = http.client.HTTPConnection(door, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/", headers=fields)
        answer = connection.getresponse()
        answer.read()
        return answer.status, (time.perf_counter() - began) * 1000, {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


def api(method: str, path: str) -> Any:
    """Call the node's API."""
    request = urllib.request.Request(os.environ["FOFOCA_API"] + path, method=method)
    request.add_header("Authorization", f"Bearer {os.environ['FOFOCA_TOKEN']}")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return json.loads(answer.read() or b"null")


def until_phase(key: str, phase: str) -> None:
    for _ in range(3000):
        if api("GET", f"/v1/sites/{key}")["phase"] == phase:
            return
        time.sleep(0.02)
    raise SystemExit(f"{key} never got {phase}")


def cold(rounds: int) -> list[float]:
    times = []
    for number in range(1, rounds + 1):
        key = f"b:u:cold{number % USERS}:{number}"
        status, took_ms, headers = ask(key)
        assert (status, headers.get("x-fofoca-cold-start")) == (200, "1"), (status, headers)
        times.append(took_ms)
        api("DELETE", f"/v1/sites/{key}")
        time.sleep(SETTLE_S)  # what the one before leaves is being removed
    return times


def thaw(rounds: int) -> list[float]:
    times = []
    for number in range(rounds + 1):
        status, took_ms, headers = ask("b:u:thaw:1", idle=IDLE_MINUTES)
        assert (status, headers.get("x-fofoca-cold-start")) == (200, "1"), (status, headers)
        if number:  # the first one starts it
            times.append(took_ms)
        until_phase("b:u:thaw:1", "frozen")
    api("DELETE", "/v1/sites/b:u:thaw:1")
    return times


def at_once(count: int) -> dict[str, Any]:
    doors = os.environ["FOFOCA_DOORS"].split(",")
    keys = [f"b:u:crowd{number % USERS}:{number + 1}" for number in range(count)]
    answers: list[tuple[str, float]] = []
    barrier = threading.Barrier(count)

    def one(number: int) -> None:
        barrier.wait()
        try:
            status, took_ms, _ = ask(keys[number], doors[number % len(doors)])
            answers.append((str(status), took_ms))
        except (OSError, http.client.HTTPException) as error:
            answers.append((repr(error), 0.0))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key in keys:
        api("DELETE", f"/v1/sites/{key}")
    times = [took_ms for status, took_ms in answers if status == "200"]
    return {"answers": Counter(status for status, _ in answers), "times_ms": times}


if __name__ == "__main__":
    verb, number = sys.argv[1], int(sys.argv[2])
    print(json.dumps({"cold": cold, "thaw": thaw, "at-once": at_once}[verb](number)))
