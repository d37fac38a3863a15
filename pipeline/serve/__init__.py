"""A local page that classifies a clip, a text or both with a run."""

from .server import serve

__all__ = ["serve"]
