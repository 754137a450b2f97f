"""What the agent wrote down for the supervisor: DIR/orders, read once at the start."""

import signal

from node.runtime.twin.files import read_text

START_TIMEOUT_MS = 60_000


class Orders:
    """DIR/orders."""

    def __init__(self) -> None:
        pairs = [line.partition(" ")[::2] for line in read_text("orders").splitlines()]
        values = dict(pairs)
        self.lxc = values.get("kind") == "lxc"
        self.start_timeout_ms = int(values.get("start_timeout_ms", START_TIMEOUT_MS))
        self.time_limit_ms = int(values.get("time_limit_ms", 0))
        self.grace_ms = int(values.get("grace_ms", 10_000))
        self.stop_signal = int(values.get("stop_signal", signal.SIGTERM))
        self.warn_signal = int(values.get("warn_signal", 0))
        self.warn_ms = int(values.get("warn_ms", 0))
        self.warn_alone = values.get("warn_alone") == "1"
        self.log_bytes = int(values.get("log_bytes", 1 << 20))
        self.owner = int(values.get("owner", -1))
        self.cgroups = [value for key, value in pairs if key == "cgroup"]
        self.memory, self.cpu = values.get("memory", ""), values.get("cpu", "")
        self.join, self.workdir = values.get("join", ""), values.get("workdir", "")
