"""`python -m node.cli` is `fofoca`."""

from node.cli import main

main()
