"""The request door: one HTTP request to any node, and a container answers."""
