"""
Many nodes on one machine: a cluster for trying things out, for the demo and for the end-to-end tests.

As root every node is a small host of its own: a network namespace with a bridge, joined to the others through a
fabric namespace, and a process namespace whose first process (the keeper) starts the agent; taking the keeper away
takes the whole host away at once, as pulling a plug would. Without root the nodes are plain processes on loopback
ports and containers are plain processes.

    layout.py    names, addresses and folders: everything a lab may leave behind has a name that is known beforehand
    record.py    lab.json: what is up, for later commands
    network.py   namespaces, links, cuts
    keeper.py    the first process of a node; silence.py: what is left of one that is switched off
    configuration.py  agents' configuration files, the cluster's key and the tokens
    hosts.py     making and switching on the nodes
    looking.py   what can be seen of a lab
    control.py   up, down, kill, start, cut, heal
    leftovers.py removing all traces, also of a lab that crashed
    demo.py      the guided tour
"""
