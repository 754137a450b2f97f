"""The HTTP API of a node: `build` makes the application of the node's services, `serve` listens."""

from node.api.app import build
from node.api.auth import Gate
from node.api.documents import ImageDocument
from node.api.rpc import serve_calls
from node.api.server import Listening, serve
from node.api.services import Bounds, Services

__all__ = ["Bounds", "Gate", "ImageDocument", "Listening", "Services", "build", "serve", "serve_calls"]
