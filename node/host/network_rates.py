"""What a container may receive a second, as the script that LXC runs when its host's end of the interface is there.

So the rate holds before the container's command runs, whatever becomes of the agent. It is a token bucket (tc-tbf) on
the host's end, which goes with the interface. What a container *sends* is bounded by a rule (network_rules.py): its own
end is its own.
"""

from __future__ import annotations

BURST_MIN_BYTES = 16 << 10
LATENCY_MS = 100


def script(tc: str, host_end: str, rate_in: int) -> str:
    """Return a shell script; `tc` is the absolute path of the tool, the rate is in bytes per second."""
    burst = max(BURST_MIN_BYTES, rate_in // 50)
    bucket = f"rate {rate_in * 8}bit burst {burst} latency {LATENCY_MS}ms"
    return f"#!/bin/sh\nexec {tc} qdisc replace dev {host_end} root tbf {bucket}\n"
