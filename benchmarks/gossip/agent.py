"""agent.py NAME HOST:PORT SEED KEY: the gossip part alone, for a harness; stdio_agent.py tells what it says and takes.

Kept this short because Python compiles a program's main file at every start, and only what it imports comes from its
cache: that is a megabyte of memory and some milliseconds for each of sixty agents.
"""

import sys

from stdio_agent import main

main(sys.argv[1:5])
