"""`fofoca job`, `jobs`, `explain` and `cancel`."""

from __future__ import annotations

import sys
from typing import Any

import click

from node.cli import find, show
from node.cli.failures import TASK_FAILED
from node.cli.words import JOB_ID

TASKS_SHOWN_MAX = 1000
TASKS_EXPLAINED_MAX = 20


@click.command(short_help="Show one job and its tasks.")
@click.argument("job_id", type=JOB_ID, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def job(job_id: int, as_json: bool, node_api: str | None) -> None:
    """Show one job and its tasks: where each runs, and how it ended."""
    answer = find.agents(node_api).get(f"/v1/jobs/{job_id}").json()
    if as_json:
        show.print_json(answer)
        return
    state = show.coloured(answer["state"])
    print(f"{answer['id']} ({answer['name']}) {state}, of {answer['owner']}, home {answer['home']}")
    tasks = answer["tasks"][:TASKS_SHOWN_MAX]
    show.print_table(*_tasks(tasks))
    if len(answer["tasks"]) > len(tasks):
        print(f"... and {len(answer['tasks']) - len(tasks)} more (--json shows all)")


@click.command(short_help="List the cluster's jobs.")
@click.option("--owner", metavar="NAME", help="Only this user's jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def jobs(owner: str | None, as_json: bool, node_api: str | None) -> None:
    """List the jobs of all homes that answer; those that did not are named on stderr."""
    answer = find.agents(node_api).get("/v1/jobs", owner=owner)
    missing = answer.headers.get("x-fofoca-missing", "")
    if as_json:
        show.print_json(answer.json())
    else:
        rows = [_summary(entry) for entry in answer.json()]
        show.print_table(["ID", "NAME", "OWNER", "HOME", "STATE", "AGE", "TASKS"], rows)
    if missing:
        print(f"fofoca: no answer from {missing}; their jobs are not in this list", file=sys.stderr)


@click.command(short_help="Say why a job waits, or why it runs where it runs.")
@click.argument("job_id", type=JOB_ID, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def explain(job_id: int, as_json: bool, node_api: str | None) -> None:
    """Say why a job waits: which resource is short on how many nodes, and who is before it."""
    answer = find.agents(node_api).get(f"/v1/jobs/{job_id}/explain").json()
    if as_json:
        show.print_json(answer)
        return
    print(f"{answer['id']} {show.coloured(answer['state'])}: {answer['summary']}")
    for reason in answer.get("reasons") or () if answer.get("pending_tasks", 1) else ():
        print("  " + reason_text(reason))
    for task in answer.get("tasks", ())[:TASKS_EXPLAINED_MAX]:
        print(f"  task {task['index']}: {task['reason']}")
    if answer.get("position") is not None:
        of = f" of {answer['waiting']}" if answer.get("waiting") else ""
        print(f"  position {answer['position']}{of} in the queue kept by {answer.get('leader') or 'nobody yet'}")
    if answer.get("start_in_s") is not None:
        print(f"  expected to start in about {show.duration(answer['start_in_s'])}, by the time limits of what runs")


@click.command(short_help="Cancel jobs, running tasks included.")
@click.argument("ids", nargs=-1, required=True, type=JOB_ID, metavar="ID...")
@find.node_api_option
def cancel(ids: tuple[int, ...], node_api: str | None) -> None:
    """Cancel jobs: tasks that wait never start, tasks that run are stopped."""
    agents = find.agents(node_api)
    refused = False
    for job_id in ids:
        state = agents.delete(f"/v1/jobs/{job_id}").json().get("state")
        if state not in ("cancelled", "pending", "running"):
            print(f"fofoca: job {job_id} had already ended ({state})", file=sys.stderr)
            refused = True
    if refused:
        raise click.exceptions.Exit(TASK_FAILED)


def reason_text(reason: Any) -> str:
    """One reason as a line; the node words it, in `text`, and may add fields of its own."""
    if not isinstance(reason, dict):
        return str(reason)
    return str(reason.get("text") or ", ".join(f"{key} {value}" for key, value in reason.items()))


def _tasks(tasks: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns that some task has something for, beside those that are always there."""
    columns = {
        "TASK": [task["index"] for task in tasks],
        "STATE": ["frozen" if task.get("frozen") else task["state"] for task in tasks],
        "HEALTH": [task.get("health") or "" for task in tasks],
        "NODE": [task["node"] for task in tasks],
        "ATTEMPT": [task["attempt"] for task in tasks],
        "EXIT": [task["exit_code"] for task in tasks],
        "PEAK": [_peak(task) for task in tasks],
        "ADDRESSES": [" ".join(task.get("addresses", ())) for task in tasks],
        "PORTS": [_ports(task) for task in tasks],
        "REASON": [_reason(task) for task in tasks],
    }
    head = [name for name, cells in columns.items() if name not in ("HEALTH", "PEAK") or any(cells)]
    return head, [list(row) for row in zip(*(columns[name] for name in head), strict=True)]


def _peak(task: dict[str, Any]) -> str:
    """Of its memory, where it ended and that was measured."""
    peak_bytes = (task.get("result") or {}).get("memory_peak_bytes") or 0
    return show.size(peak_bytes) if peak_bytes else ""


def _ports(task: dict[str, Any]) -> str:
    return " ".join(f"{each['host_port']}->{each['port']}/{each['protocol']}" for each in task.get("ports", ()))


def _reason(task: dict[str, Any]) -> str:
    """What the last failed check of a task that runs said is the news."""
    if task.get("health_reason"):
        return f"{task['health']}: {task['health_reason']}"
    return str(task["reason"])


def _summary(entry: dict[str, Any]) -> list[Any]:
    counts = {**entry["tasks"], **{name: entry.get(name, 0) for name in ("frozen", "unhealthy")}}
    tasks = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    since = show.age(entry["submitted_unix_s"])
    return [entry["id"], entry["name"], entry["owner"], entry["home"], entry["state"], since, tasks]
