"""The web console: a page in the browser that uses the HTTP API only. Every node serves it."""

from node.console.serving import PREFIX, routes

__all__ = ["PREFIX", "routes"]
