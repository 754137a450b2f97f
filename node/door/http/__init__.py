"""The front of the request door: an HTTP/1.1 proxy that finds, wakes and reaches the container a request is for."""

from node.door.http.server import serve

__all__ = ["serve"]
