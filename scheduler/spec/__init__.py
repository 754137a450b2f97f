"""The parts of a job's spec beyond what is packed: one definition of each for API, ledger and wire."""
