"""Tasks that run together on several nodes or not at all."""

from __future__ import annotations

from scheduler.spec.part import Part, require

GANG_NODES_MAX = 999
TASKS_PER_NODE_MAX = 1000
GANG_TASKS_MAX = 4096


class Gang(Part, frozen=True):
    """Tasks that run together: `tasks_per_node` of them on each of `nodes` different nodes, or none at all.

    Rank r, which is also the task's index, runs on the node number r // tasks_per_node.
    """

    nodes: int = 1
    tasks_per_node: int = 1

    @property
    def size(self) -> int:
        """How many tasks there are."""
        return self.nodes * self.tasks_per_node


def check(gang: Gang) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
    require(
        1 <= gang.nodes <= GANG_NODES_MAX, "gang.nodes", gang.nodes, f"use a number of nodes from 1 to {GANG_NODES_MAX}"
    )
    require(
        1 <= gang.tasks_per_node <= TASKS_PER_NODE_MAX,
        "gang.tasks_per_node",
        gang.tasks_per_node,
        f"use a number from 1 to {TASKS_PER_NODE_MAX}",
    )
    require(gang.size <= GANG_TASKS_MAX, "gang", gang.size, f"a gang has at most {GANG_TASKS_MAX} tasks in all")
