"""Control groups, v1, v2 and both at once: one tree in every hierarchy for each container, with its limits.

limits.py has what may be asked, table.py what each of it is on v1 and on v2, layouts.py which hierarchies a host has,
trees.py makes, changes, reads and removes the groups, devices.py is v1's device filter, files.py reads and writes.

Nobody here knows LXC's configuration, jobs or trio. Everything is synchronous and takes microseconds.
"""

from node.host.cgroups.devices import DEVICES
from node.host.cgroups.files import CgroupError, remove_tree
from node.host.cgroups.layouts import Hierarchy, Layout, detect
from node.host.cgroups.limits import DiskRate, HugePageLimit, Limits, MoreLimits
from node.host.cgroups.trees import PAYLOAD, PIVOT, SUPERVISORS, Cgroups

__all__ = [
    "DEVICES",
    "PAYLOAD",
    "PIVOT",
    "SUPERVISORS",
    "CgroupError",
    "Cgroups",
    "DiskRate",
    "Hierarchy",
    "HugePageLimit",
    "Layout",
    "Limits",
    "MoreLimits",
    "detect",
    "remove_tree",
]
