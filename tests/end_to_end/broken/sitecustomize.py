"""On a test's PYTHONPATH: no agent can start."""

import os
import sys

if sys.orig_argv[1:4] == ["-m", "node.cli", "agent"]:
    os.write(2, b"this agent is broken on purpose\n")
    os._exit(3)
